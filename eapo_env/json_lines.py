"""[edge] JSON-lines files: appended to by several processes, readable after a kill at any moment.

There is one policy for damage. A last line without its end was cut short by a crash: reading leaves
it out, and the next append removes it. Any other line that is not JSON is an error that names it.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from eapo_env.disk import cannot_write
from eapo_env.validation import UserError

_TAIL_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class JsonLines:
    """A file with one JSON object a line; it need not exist yet.

    Threads and processes may append to it, and read it, at the same time.
    """

    path: Path

    def read(self) -> list[Any]:
        """Return the rows in order; an empty list without a file.

        A last line that a crash cut short is left out.

        Raises:
            UserError: the file cannot be read, or another line is not JSON (file and line named).
        """
        return [row for _, row in self.read_with_places()]

    def read_with_places(self) -> list[tuple[str, Any]]:
        """Return the rows as `read`, each with its place ("FILE, line 7") for error messages.

        Raises:
            UserError: as `read`.
        """
        *lines, last = self._bytes().split(b"\n")
        if _is_whole(last):
            lines.append(last)
        places = ((f"{self.path}, line {n}", line) for n, line in enumerate(lines, start=1))
        return [(place, _parsed(place, line)) for place, line in places if line.strip()]

    def append(self, *rows: Mapping[str, Any]) -> None:
        """Append rows in one write; once it returns, a killed process loses none of them.

        Writers wait for each other. A last line that a crash cut short is removed first.

        Raises:
            UserError: they cannot be written, because the disk is full say; none of them is.
        """
        lines = "".join(json_line(row) for row in rows).encode()
        try:
            with self.path.open("ab+", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                _write(file, _repair(file) + lines)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _bytes(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {error}") from error


def json_line(row: Mapping[str, Any]) -> str:
    """Return the line of a row, its end included; all of it is ASCII."""
    return json.dumps(row) + "\n"


def _parsed(place: str, line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        shown = line[:80].decode("utf-8", "replace")
        raise UserError(f"{place} is not JSON: {shown!r}") from None


def _is_whole(last: bytes) -> bool:
    """Return whether a line lacks at most its end: no part of an object is an object."""
    try:
        return isinstance(json.loads(last), dict | list)
    except (ValueError, RecursionError):
        return False


def _repair(file: FileIO) -> bytes:
    """Remove a last line that was cut short; return what a new line needs before it."""
    end = start = file.seek(0, os.SEEK_END)
    tail = b""
    while start and b"\n" not in tail:
        size = min(_TAIL_BYTES, start)
        start -= size
        file.seek(start)
        tail = file.read(size) + tail
    last = tail.rpartition(b"\n")[2]
    if _is_whole(last):
        return b"\n"
    file.truncate(end - len(last))
    return b""


def _write(file: FileIO, lines: bytes) -> None:
    """Write to the end of a file all of the lines, or nothing."""
    start, rest = file.seek(0, os.SEEK_END), memoryview(lines)
    try:
        while rest:  # a write cut short by a full disk does not say why; the next one does
            rest = rest[file.write(rest) :]
    except OSError:
        file.truncate(start)
        raise
