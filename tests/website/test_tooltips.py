"""Tooltips: the first mention of each word of the glossary has one, and nothing else changes."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given, strategies as st
from markdown import markdown

from website.tooltips import definitions, makeExtension, meanings

WORDS = {"gate": "decides which replies are read", "acceptance rate": "how often it does"}
GLOSSARY = Path(__file__).parents[2] / "docs" / "glossary.md"
ABBR = re.compile(r'<abbr tabindex="0" title="([^"]*)">(.*?)</abbr>')


def rendered(text: str) -> str:
    page = f"{text}\n\n{definitions(WORDS)}\n"
    return markdown(page, extensions=["abbr", "tables", makeExtension()])


def test_first_mentions_of_plurals_and_capitals() -> None:
    page = rendered("Gates open. The gate has an acceptance rate, the gate.")
    assert ABBR.findall(page) == [
        (WORDS["gate"], "Gates"),
        (WORDS["acceptance rate"], "acceptance rate"),
    ]


def test_headings_links_and_code_have_none() -> None:
    page = rendered("# The gate\n\n[the gate](a.md), `gate` and then a gate")
    assert ABBR.findall(page) == [(WORDS["gate"], "gate")]
    assert page.endswith(
        'then a <abbr tabindex="0" title="decides which replies are read">gate</abbr></p>'
    )


@given(
    st.lists(st.sampled_from(["gate", "Gates", "acceptance rate", "rates", "`gate`", "**gate**"]))
)
def test_the_text_stays_and_each_word_has_one_tooltip_at_most(words: list[str]) -> None:
    text = " ".join(["A", *words])
    page = rendered(text)
    titles = [title for title, _ in ABBR.findall(page)]
    assert len(set(titles)) == len(titles)
    plain = re.sub(r"</?(?:abbr|span)[^>]*>", "", page)
    assert plain == markdown(text)


def test_the_words_of_the_glossary_are_read() -> None:
    words = meanings(GLOSSARY.read_text(encoding="utf-8"))
    assert len(words) > 50
    assert words["gate"] == "decides which replies enter the history"
    assert "word" not in words
    assert "run" not in words  # everyday words have no tooltip
