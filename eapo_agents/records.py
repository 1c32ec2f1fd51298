"""[edge] Recorded JSON, read back: whatever is wrong with it is an error that names its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError


def json_lines(path: Path) -> list[Any]:
    """Return what the lines of a file hold; nothing if it is not there.

    A last line that a crash cut short is left out.

    Raises:
        ValueError: a line that is not JSON, before the last.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise ValueError(f"{path}, line {number} is not JSON: {line[:80]!r}") from None
    return rows


def validated(tree: object, kind: type[Any], place: Path | str) -> Any:
    """Return the value of a kind that a JSON tree describes.

    Raises:
        ValueError: it describes none; the place, the part and its value are named.
    """
    try:
        return TypeAdapter(kind).validate_python(tree)
    except ValidationError as error:
        first = error.errors()[0]
        what = ".".join(map(str, first["loc"])) + f": {first['msg']}: {repr(first['input'])[:80]}"
        name = kind.__name__.strip("_")
        raise ValueError(f"{place} holds no {name}: {what.removeprefix(': ')}") from None
