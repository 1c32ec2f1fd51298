"""Rows of problem files and data sets, each with its place (file and line) for error messages.

JSONL and CSV are read with the standard library, because the error of a malformed row must name its
file, line and column; Parquet files and hub data sets are read with `datasets`, imported on use,
and their errors name the row.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from eapo_env.types import LONE_SURROGATE
from eapo_env.validation import UserError

PlacedRow = tuple[str, Mapping[str, object] | UserError]
"""The place of a row ("file.csv, line 7"), and its values by column or why it cannot be read."""

_ABSENT = object()


def read_rows(location: str, split: str, subset: str | None = None) -> Iterator[PlacedRow]:
    """Yield the rows of a .jsonl, .csv or .parquet file, of a folder, or of a hub data set.

    Args:
        location: the file, the folder (laid out like a hub data set), or the hub id.
        split: of a folder or hub data set.
        subset: configuration of a folder or hub data set that has several.

    A row that cannot be read is yielded as an error, and the next one follows.

    Raises:
        UserError: a file of another kind or not in UTF-8, a CSV file with an open quotation mark, a
            data set that cannot be loaded, or `datasets` is needed and not installed.
    """
    path = Path(location)
    match path.suffix:
        case ".jsonl":
            return _jsonl_rows(path)
        case ".csv":
            return _csv_rows(path)
        case ".parquet":
            return _dataset_rows(location, "train", subset, builder="parquet")
        case _ if path.is_file():
            raise UserError(f"{location!r} is not a .jsonl, .csv or .parquet file")
        case _:
            return _dataset_rows(location, split, subset)


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file, ends included; only `\\n` ends one, as in JSONL."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}, line {number}, column {error.start + 1}: not UTF-8"
                ) from None


def _jsonl_rows(path: Path) -> Iterator[PlacedRow]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line.rstrip("\r\n"))
        except json.JSONDecodeError as error:
            yield where, UserError(f"{where}, column {error.colno}: not JSON: {error.msg}")
        except (ValueError, RecursionError) as error:
            yield where, UserError(f"{where}: not readable JSON: {error}")
        else:
            if isinstance(row, dict):
                yield where, row
            else:
                yield where, UserError(f"{where}: a JSON object is needed, not {line[:80]!r}")


def _csv_rows(path: Path) -> Iterator[PlacedRow]:
    """Yield the rows of a CSV file with the line on which each starts; a cell may span lines."""
    reader = csv.reader(_lines(path), strict=True)
    header: list[str] = []
    while True:
        where = f"{path}, line {reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(f"{where}: not CSV: {error}") from None
        if not cells:
            continue
        if not header:
            header = cells
            if repeated := sorted({name for name in header if header.count(name) > 1}):
                raise UserError(f"{where}, column {repeated[0]!r}: named twice")
        elif len(cells) < len(header):
            column = header[len(cells)]
            yield where, UserError(f"{where}, column {column!r}: the row ends before it")
        elif len(cells) > len(header):
            yield where, UserError(f"{where}: {len(cells)} values for {len(header)} columns")
        else:
            yield where, dict(zip(header, cells, strict=True))


def _dataset_rows(
    location: str, split: str, subset: str | None, builder: str | None = None
) -> Iterator[PlacedRow]:
    """Yield the rows of a hub data set, of a folder like one, or of a file read by `builder`."""
    try:
        import datasets
    except ImportError:
        raise UserError(
            f"reading {location!r} needs the datasets package: pip install datasets"
        ) from None
    try:
        if builder:
            data = datasets.load_dataset(builder, data_files=location, split=split)
        else:
            data = datasets.load_dataset(location, subset, split=split)
    except (ValueError, OSError, datasets.exceptions.DatasetGenerationError) as error:
        raise UserError(f"{location}: {error}") from error
    numbers = itertools.count(1)
    for batch in data.iter(batch_size=1000):
        for cells, number in zip(zip(*batch.values(), strict=True), numbers, strict=False):
            yield f"{location}, row {number}", dict(zip(batch, cells, strict=True))


def cell(where: str, row: Mapping[str, object], column: str) -> str:
    """Return the text of a column of a row; dots lead into nested values (`prompt.user.content`).

    In a list of chat messages a role names its first message.

    Raises:
        UserError: no such column; the system turn of a chat; or neither text that UTF-8 can encode
            nor a finite number.
    """
    value = _nested(row, column)
    if value is _ABSENT:
        raise UserError(f"{where}, column {column!r}: missing (columns: {', '.join(row)})")
    if _is_system_turn(row, column):
        raise UserError(
            f"{where}, column {column!r}: the system turn of a chat; a role names another one"
            " (prompt.user.content)"
        )
    if isinstance(value, str) and LONE_SURROGATE.search(value) is None:
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else repr(value)
    raise UserError(f"{where}, column {column!r}: text or a number is needed, not {value!r}")


def texts(where: str, row: Mapping[str, object], column: str) -> tuple[str, ...]:
    """Return the texts of a column that holds a text or a list of them (several answers).

    Raises:
        UserError: as `cell` does, for any of them, or an empty list.
    """
    value = _nested(row, column)
    if not isinstance(value, list):
        return (cell(where, row, column),)
    if not value:
        raise UserError(f"{where}, column {column!r}: an empty list")
    return tuple(cell(where, row, f"{column}.{index}") for index in range(len(value)))


def has_column(row: Mapping[str, object], column: str) -> bool:
    """Return whether a row has a column, read as in `cell`."""
    return _nested(row, column) is not _ABSENT


def _nested(row: Mapping[str, object], column: str) -> object:
    if column in row:
        return row[column]
    value: object = row
    for key in column.split("."):
        if isinstance(value, Mapping) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        elif isinstance(value, list) and (message := _message(value, key)) is not None:
            value = message
        else:
            return _ABSENT
    return value


def _message(messages: list[object], role: str) -> object | None:
    """Return the first message of a role."""
    return next((m for m in messages if isinstance(m, Mapping) and m.get("role") == role), None)


def _is_system_turn(row: Mapping[str, object], column: str) -> bool:
    """Return whether a column leads by number into a chat and meets its system turn."""
    holder, _, key = column.rpartition(".")
    if key != "content" or not holder.rpartition(".")[2].isdecimal():
        return False
    message = _nested(row, holder)
    return isinstance(message, Mapping) and message.get("role") == "system"
