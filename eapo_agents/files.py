"""[edge] Files and folders that are whole or absent, and journals that a computation resumes from.

A file or folder is written beside its place, under a hidden name, and renamed when it is complete.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from eapo_env.disk import cannot_write, is_write_error
from eapo_env.json_lines import JsonLines, json_line
from eapo_env.validation import UserError

T = TypeVar("T")

_UNFINISHED = ".unfinished-"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Make the folder of a path; turn what fails in writing it into a `UserError`.

    Raises:
        UserError: it cannot be written; the path and the reason are named.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except UserError:
        raise
    except Exception as error:
        if not is_write_error(path, error):
            raise
        raise cannot_write(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file and make its folder; characters that UTF-8 cannot hold become "?".

    Raises:
        UserError: it cannot be written.
    """
    with writing(path):
        beside = _hidden(path)
        beside.write_text(text, encoding="utf-8", errors="replace")
        beside.replace(path)


def write_folder(place: Path, write: Callable[[Path], None], *, mode: int) -> None:
    """Make a new folder that `write` fills, and set the mode of its files.

    Leftovers of interrupted attempts beside it are removed.

    Raises:
        UserError: it cannot be written; `place` does not exist then.
    """
    with writing(place):
        remove_unfinished(place.parent)
        unfinished = _hidden(place)
        unfinished.mkdir(parents=True)
        write(unfinished)
        _settle(unfinished, mode)
        unfinished.rename(place)
        _flush(place.parent)


def remove_unfinished(folder: Path) -> None:
    """Remove what interrupted attempts to write files or folders have left in a folder."""
    for leftover in folder.glob(f"{_UNFINISHED}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def remove_folder(folder: Path) -> None:
    """Remove a folder; it is never seen with a part of its files."""
    shutil.rmtree(folder.rename(_hidden(folder)))


def _settle(folder: Path, mode: int) -> None:
    """Bring a folder to disk, so that no rename comes before it, and let others read it."""
    for path in (*folder.rglob("*"), folder):
        if path.is_file():
            path.chmod(mode)  # safetensors writes files for their owner alone
        _flush(path)


def _hidden(path: Path) -> Path:
    return path.with_name(f"{_UNFINISHED}{path.name}")


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace a JSON-lines file by one with these rows; do not append meanwhile."""
    write_text(path, "".join(map(json_line, rows)))


def resume_journal(journal: JsonLines, subject: Mapping[str, Any], kind: type[T]) -> list[T]:
    """Return the finished parts of a computation from its journal, which is started if need be.

    The journal's first line is the subject: what is computed, and with which settings. Each later
    line is a part.

    Raises:
        UserError: the journal is of another subject, or a line of it is invalid.
    """
    subject = json.loads(json.dumps(subject))
    rows = journal.read_with_places()
    if not rows:
        with writing(journal.path):
            journal.append(subject)
    elif rows[0][1] != subject:
        raise UserError(
            f"{journal.path} holds results of another model, settings or problems; delete it to"
            " start over"
        )
    return [validated(row, kind, place) for place, row in rows[1:]]


def validated(tree: object, kind: type[Any], place: Path | str) -> Any:
    """Return the value of type `kind` that a JSON tree describes.

    Raises:
        UserError: it does not fit the type; `place`, the part and its value are named.
    """
    try:
        return _adapter(kind).validate_python(tree)  # type: ignore[arg-type]  # a class is hashable
    except ValidationError as error:
        first = error.errors()[0]
        what = ".".join(map(str, first["loc"])) + f": {first['msg']}: {repr(first['input'])[:80]}"
        name = kind.__name__.strip("_")
        raise UserError(f"{place} holds no {name}: {what.removeprefix(': ')}") from None


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
