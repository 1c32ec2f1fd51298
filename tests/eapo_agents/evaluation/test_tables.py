"""Tables and foreign text, shown as they are by the console and by Markdown."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import example, given, strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from eapo_agents.evaluation.metrics import Interval, PairedDifference
from eapo_agents.evaluation.tables import (
    Table,
    difference_cells,
    escaped,
    fenced,
    first_distinct,
    visible,
)

MARKDOWN = MarkdownIt("commonmark").enable("table")
texts = st.text(st.sampled_from("`~\n\r\t\x1b\u202e\ud800<>|\\*_#[]!&;$ a1-")) | st.text()


@given(texts)
@example("```")
@example("a\n````\nb\n```")
def test_nothing_in_a_text_ends_its_code_block(text: str) -> None:
    [token] = MARKDOWN.parse(fenced(text))
    assert token.type == "fence"
    assert token.content == visible(text) + "\n"


@given(texts)
def test_an_inline_text_is_one_paragraph_of_plain_text(text: str) -> None:
    shown = escaped(text)
    assert "\n" not in shown
    for token in MARKDOWN.parse(f"x {shown} x"):
        for child in token.children or ():
            assert child.type == "text"
            assert child.content == f"x {' '.join(visible(text).split())} x".replace("x  x", "x  x")


@given(texts)
def test_only_what_shows_as_itself_is_left(text: str) -> None:
    assert all(32 <= ord(one) < 127 or ord(one) > 159 or one in "\n\t" for one in visible(text))
    assert not set("\x1b\x07\r\u202e\u2028\u200b\ufeff") & set(visible(text))
    visible(text).encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("a\u202eb", r"a\u202eb"),
        ("√ 7\tx\ny", "√ 7\tx\ny"),
        ("\0", r"\x00"),
    ],
)
def test_what_a_terminal_would_obey_is_spelled_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def shown_by_rich(table: Table) -> str:
    shown = io.StringIO()
    Console(file=shown, width=80).print(table.rich())
    return shown.getvalue()


def test_a_table_is_the_same_in_both_forms() -> None:
    table = Table(title="T", header=["", "a|b"], rows=[["x[red]", "<b>1</b>"], ["y", "2"]])
    printed = shown_by_rich(table)
    assert all(text in printed for text in ("a|b", "x[red]", "<b>1</b>"))
    html = MARKDOWN.render(table.markdown())
    assert html.count("<tr>") == 3
    assert re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", html) == [
        "", "a|b", "x[red]", "&lt;b&gt;1&lt;/b&gt;", "y", "2",
    ]  # fmt: skip


def test_nothing_in_a_table_commands_the_terminal() -> None:
    foreign = "\x1b[2J[red]"
    printed = shown_by_rich(Table(title=foreign, header=[foreign], rows=[[foreign]]))
    assert printed.count(r"\x1b[2J[red]") == 3
    assert "\x1b" not in printed


@pytest.mark.parametrize(
    ("p_value", "shown"),
    [(1.0, "1.000"), (0.001, "0.001"), (1 / 10_001, "< 0.001"), (0.0, "< 0.001")],
)
def test_a_small_p_value_is_not_shown_as_zero(p_value: float, shown: str) -> None:
    found = PairedDifference(mean=0.25, interval=Interval(-0.125, 0.5), p_value=p_value)
    assert difference_cells(found) == ("+25.0", "-12.5 to +50.0", shown)


def test_the_first_naming_without_twins_is_taken() -> None:
    assert first_distinct(["a", "a"], ["b", "c"], ["d", "e"]) == ["b", "c"]
    assert first_distinct(["a", "a"], ["b", "b"]) == ["b", "b"]
