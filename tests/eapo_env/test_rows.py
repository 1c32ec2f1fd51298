"""Rows: every malformed one is an error that names the file, the line and the column."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from eapo_env.rows import cell, has_column, read_rows, texts
from eapo_env.validation import UserError

CELL = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def read(path: Path) -> list[tuple[str, dict[str, object]]]:
    rows = []
    for where, row in read_rows(str(path), "train"):
        if isinstance(row, UserError):
            raise row
        rows.append((where, dict(row)))
    return rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', r"a\.jsonl, line 2, column 7: not JSON"),
        ("a.jsonl", b'{"a": 1}\n\n[1, 2]\n', r"a\.jsonl, line 3: a JSON object is needed"),
        ("a.jsonl", b'{"a": "ok"}\n{"a": "\xff"}\n', r"a\.jsonl, line 2, column 8: not UTF-8"),
        ("a.jsonl", b"[" * 100_000, r"a\.jsonl, line 1: not readable JSON"),
        ("a.jsonl", b'{"a": ' + b"9" * 5000 + b"}", r"a\.jsonl, line 1: not readable JSON"),
        ("a.csv", b"id,answer\n1,2\n3\n", r"a\.csv, line 3, column 'answer': the row ends"),
        ("a.csv", b"id,answer\n1,2\n3,4,5\n", r"a\.csv, line 3: 3 values for 2 columns"),
        ("a.csv", b'id,answer\n1,"2\n\n', r"a\.csv, line 2: not CSV"),
        ("a.csv", b'id,answer\n1,"2"x\n', r"a\.csv, line 2: not CSV"),
        ("a.csv", b"id,id\n1,2\n", r"a\.csv, line 1, column 'id': named twice"),
        ("a.csv", b'id,answer\n1,"two\nlines"\n\n3\n', r"a\.csv, line 5, column 'answer'"),
        ("a.csv", b"id,answer\n1,2\n\xff,3\n", r"a\.csv, line 3, column 1: not UTF-8"),
        ("a.txt", b"id\n", r"a\.txt' is not a \.jsonl, \.csv or \.parquet file"),
    ],
)
def test_a_malformed_row_names_its_place(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read(path)


def test_a_csv_row_stands_where_it_starts_though_cells_span_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,text\r\n1,"one\r\ntwo\r\nthree"\r\n2,four\r\n')
    assert read(path) == [
        (f"{path}, line 2", {"id": "1", "text": "one\r\ntwo\r\nthree"}),
        (f"{path}, line 5", {"id": "2", "text": "four"}),
    ]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    for name, content in (("a.csv", b"id\n7\n"), ("a.jsonl", b'{"id": "7"}\n')):
        path = tmp_path / name
        path.write_bytes(b"\xef\xbb\xbf" + content)
        assert [row for _, row in read(path)] == [{"id": "7"}]


@settings(max_examples=50)
@given(rows=st.lists(st.tuples(CELL, CELL), max_size=6))
def test_jsonl_gives_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    lines = [json.dumps({"a": a, "b": b}, ensure_ascii=False) for a, b in rows]
    path.write_bytes("".join(line + "\n" for line in lines).encode())
    assert read(path) == [
        (f"{path}, line {number}", {"a": a, "b": b}) for number, (a, b) in enumerate(rows, start=1)
    ]


@settings(max_examples=50)
@given(rows=st.lists(st.tuples(CELL, CELL), max_size=6))
def test_csv_gives_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerows([("a", "b"), *rows])
    path.write_bytes(text.getvalue().encode())
    assert [row for _, row in read(path)] == [{"a": a, "b": b} for a, b in rows]


def test_a_cell_is_text_or_a_finite_number() -> None:
    row: dict[str, object] = {"s": " x ", "i": 34, "f": 0.5, "w": 34.0, "a.b": "flat"}
    assert [cell("here", row, column) for column in row] == ["x", "34", "0.5", "34", "flat"]


def test_dots_lead_into_nested_values() -> None:
    row = {"prompt": [{"role": "user", "content": "Q"}], "reward_model": {"ground_truth": "7"}}
    assert cell("here", row, "prompt.0.content") == "Q"
    assert cell("here", row, "reward_model.ground_truth") == "7"


@pytest.mark.parametrize("column", ["c", "prompt.1.content", "prompt.x", "prompt.0.text", "s.0"])
def test_a_missing_column_is_named_beside_those_there_are(column: str) -> None:
    row = {"prompt": [{"content": "Q"}], "s": "text"}
    with pytest.raises(ValueError, match=rf"here, column '{column}': missing .*prompt, s"):
        cell("here", row, column)


@pytest.mark.parametrize("value", [None, True, float("nan"), float("inf"), [1], {}, "\ud800"])
def test_a_cell_that_is_neither_is_refused_with_its_value(value: object) -> None:
    with pytest.raises(ValueError, match="here, column 'a': text or a number is needed, not"):
        cell("here", {"a": value}, "a")


CHAT = {"prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}]}


def test_a_role_names_a_message_of_a_chat() -> None:
    assert cell("row 1", CHAT, "prompt.user.content") == "1+1?"
    assert cell("row 1", CHAT, "prompt.1.content") == "1+1?"
    assert not has_column(CHAT, "prompt.assistant.content")


def test_a_system_turn_is_no_statement() -> None:
    with pytest.raises(UserError, match=r"row 1, column 'prompt.0.content': the system turn"):
        cell("row 1", CHAT, "prompt.0.content")


def test_a_column_may_hold_several_texts() -> None:
    assert texts("row 1", {"a": ["1", 2, 0.5]}, "a") == ("1", "2", "0.5")
    assert texts("row 1", {"a": "1"}, "a") == ("1",)
    with pytest.raises(UserError, match="an empty list"):
        texts("row 1", {"a": []}, "a")
    with pytest.raises(UserError, match=r"column 'a.1': text or a number is needed, not None"):
        texts("row 1", {"a": ["1", None]}, "a")


def test_a_row_that_cannot_be_read_does_not_hide_those_after_it(tmp_path: Path) -> None:
    lines, cells = tmp_path / "a.jsonl", tmp_path / "a.csv"
    lines.write_text('{"a": 1}\n{"a": \n[]\n{"a": 2}\n')
    cells.write_text("a,b\n1,2\n3\n4,5,6\n7,8\n")
    for path in (lines, cells):
        bad = [isinstance(row, UserError) for _, row in read_rows(str(path), "train")]
        assert bad == [False, True, True, False]
