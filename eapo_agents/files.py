"""[edge] Files and folders that are whole or not there, whenever the machine stops.

They are written beside their place, under a hidden name, and moved there in one stroke.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from eapo_env.validation import UserError

_UNFINISHED = ".unfinished-"


def write_text(path: Path, text: str) -> None:
    """Write a text file, and the folder it is in; what UTF-8 cannot hold becomes "?"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = _hidden(path)
    beside.write_text(text, encoding="utf-8", errors="replace")
    beside.replace(path)


def write_folder(place: Path, write: Callable[[Path], None], *, mode: int) -> None:
    """Make a new folder that `write` fills, and give its files a mode.

    What an earlier attempt left beside it is removed.

    Raises:
        OSError: it cannot be written; nothing stands in its place.
    """
    for leftover in place.parent.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(leftover)
    unfinished = _hidden(place)
    unfinished.mkdir(parents=True)
    try:
        write(unfinished)
        _settle(unfinished, mode)
    except Exception as error:  # each library has its own for a full disk
        raise OSError(f"cannot write {place}: {error}") from error
    unfinished.rename(place)
    _flush(place.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder; no part of it is ever seen in its place."""
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


def json_lines(path: Path) -> list[Any]:
    """Return what the lines of a file hold; nothing if it is not there.

    A last line that a crash cut short is left out.

    Raises:
        UserError: a line that is not JSON, before the last.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise UserError(f"{path}, line {number} is not JSON: {line[:80]!r}") from None
    return rows


def validated(tree: object, kind: type[Any], place: Path | str) -> Any:
    """Return the value of a kind that a JSON tree describes.

    Raises:
        UserError: it describes none; the place, the part and its value are named.
    """
    try:
        return TypeAdapter(kind).validate_python(tree)
    except ValidationError as error:
        first = error.errors()[0]
        what = ".".join(map(str, first["loc"])) + f": {first['msg']}: {repr(first['input'])[:80]}"
        name = kind.__name__.strip("_")
        raise UserError(f"{place} holds no {name}: {what.removeprefix(': ')}") from None
