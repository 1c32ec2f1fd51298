"""JSON-lines files: cut at any byte, shared by processes, killed, on a full disk, damaged."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from eapo_env.json_lines import JsonLines, json_line
from eapo_env.validation import UserError

TEXTS = st.text(st.characters(codec=None), max_size=8) | st.sampled_from(["\n", "\u2028", "}", "{"])
VALUES = TEXTS | st.integers() | st.none() | st.lists(st.integers(), max_size=2)
ROWS = st.dictionaries(TEXTS, VALUES, max_size=3)
BATCHES = st.lists(st.lists(ROWS, max_size=3), max_size=4)


def written(path: Path, batches: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Append the batches; return their rows."""
    for batch in batches:
        JsonLines(path).append(*batch)
    return [row for batch in batches for row in batch]


@given(before=BATCHES, after=BATCHES, data=st.data())
def test_a_file_cut_at_any_byte_reads_as_a_prefix_and_grows_from_it(
    before: list[list[dict[str, Any]]], after: list[list[dict[str, Any]]], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        rows = written(path, before)
        assert JsonLines(path).read() == rows
        whole = path.read_bytes() if path.exists() else b""
        cut = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:cut])
        ends = accumulate(len(json_line(row)) for row in rows)
        prefix = rows[: sum(end - 1 <= cut for end in ends)]  # a row may lack its line's end
        assert JsonLines(path).read() == prefix
        grown = prefix + written(path, after)
        assert JsonLines(path).read() == grown


@pytest.mark.parametrize("cut", [1, 2, 100_000, 299_990])
def test_a_long_torn_line_is_removed_by_the_next_append(tmp_path: Path, cut: int) -> None:
    file, long = JsonLines(tmp_path / "rows.jsonl"), {"text": "x" * 300_000}
    file.append({"n": 1}, long)
    file.path.write_bytes(file.path.read_bytes()[:-cut])
    file.append({"n": 2})
    assert file.read() == [{"n": 1}, *([long] if cut == 1 else []), {"n": 2}]


def test_a_file_that_is_not_there_has_no_rows(tmp_path: Path) -> None:
    assert JsonLines(tmp_path / "rows.jsonl").read() == []


@pytest.mark.parametrize("line", [b'{"a": ', b"\xff\xfe", b"[" * 100_000, b"nonsense"])
@pytest.mark.parametrize("rest", [b"\n", b'\n{"b": 1}\n', b'\n{"b": 1', b'\n{"b": 1}'])
def test_a_damaged_line_that_has_its_end_is_named(tmp_path: Path, line: bytes, rest: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n\n' + line + rest)
    with pytest.raises(UserError, match=r"rows\.jsonl, line 3 is not JSON: '"):
        JsonLines(path).read()


def test_rows_know_their_lines_though_blank_ones_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\n{"a": 1}\r\n \n[2]')
    assert JsonLines(path).read_with_places() == [
        (f"{path}, line 2", {"a": 1}),
        (f"{path}, line 4", [2]),
    ]


def test_what_cannot_be_read_or_written_is_an_error_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"cannot read {tmp_path}: "):
        JsonLines(tmp_path).read()
    with pytest.raises(UserError, match=f"cannot write {tmp_path / 'no' / 'rows'}: "):
        JsonLines(tmp_path / "no" / "rows").append({})


APPENDING = """
import sys
from pathlib import Path
from eapo_env.json_lines import JsonLines

file, name, number = JsonLines(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
for n in range(number):
    file.append({"by": name, "n": n, "text": name * 10_000}, {"by": name, "n": n, "second": True})
    print(n, flush=True)
"""


def appending(path: Path, name: str, number: int) -> subprocess.Popen[str]:
    """Start a process that appends pairs of rows, and prints the number of each when it is done."""
    command = [sys.executable, "-c", APPENDING, str(path), name, str(number)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_that_append_at_once_never_mix_their_rows(tmp_path: Path) -> None:
    """One of them finds a line that a crash cut short, and the file is read all the while."""
    file = JsonLines(tmp_path / "rows.jsonl")
    file.path.write_text('{"by": "nobody", "n": 0', encoding="utf-8")
    processes = [appending(file.path, name, 30) for name in "abcd"]
    read = 0
    while any(process.poll() is None for process in processes):
        rows = file.read()
        assert len(rows) >= read
        read = len(rows)
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    rows = file.read()
    for name in "abcd":
        numbers = [(row["n"], "second" in row) for row in rows if row["by"] == name]
        assert numbers == [(n, second) for n in range(30) for second in (False, True)]
    assert len(rows) == 4 * 2 * 30
    pairs = zip(rows[::2], rows[1::2], strict=True)
    assert all((a["by"], a["n"]) == (b["by"], b["n"]) for a, b in pairs), "one write a call"


def test_a_killed_process_loses_nothing_that_it_was_told_is_there(tmp_path: Path) -> None:
    file = JsonLines(tmp_path / "rows.jsonl")
    process = appending(file.path, "a", 1_000_000)
    assert process.stdout
    for _ in range(50):
        process.stdout.readline()
    process.kill()
    told = 50 + len(process.communicate()[0].splitlines())
    pairs = [row["n"] for row in file.read() if "second" in row]
    assert pairs == list(range(len(pairs)))
    assert len(pairs) >= told - 1  # its last line may be half a number
    file.append({"by": "b"})
    assert file.read()[-1] == {"by": "b"}


FULL = """
import resource, sys
from pathlib import Path
from eapo_env.json_lines import JsonLines
from eapo_env.validation import UserError

file = JsonLines(Path(sys.argv[1]))
file.append({"n": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    file.append({"n": 2, "text": "x" * 100})
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize("room", [0, 1, 50])
def test_on_a_full_disk_the_row_is_refused_and_the_file_stays_whole(
    tmp_path: Path, room: int
) -> None:
    """The limit on a file's size cuts a write short as a full disk does."""
    file, first = JsonLines(tmp_path / "rows.jsonl"), len(json_line({"n": 1}))
    command = [sys.executable, "-c", FULL, str(file.path), str(first + room)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    reason = "a file is larger than the limit on file sizes (ulimit -f)"
    assert said == f"cannot write {file.path}: {reason}\n"
    assert file.path.read_bytes() == b'{"n": 1}\n'
    file.append({"n": 3})
    assert file.read() == [{"n": 1}, {"n": 3}]


@given(ROWS)
def test_a_line_is_ascii_with_one_end(row: dict[str, Any]) -> None:
    line = json_line(row)
    assert line.isascii()
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert json.loads(line) == row
