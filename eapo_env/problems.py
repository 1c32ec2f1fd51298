"""Problems from named sources, files, folders and hub data sets.

Every gold answer is checked when it is loaded: one that the verifier could never confirm is an
error now, not a reward of 0 throughout training. Rows are read by `rows.py`, whose errors name
file, line and column.
"""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from eapo_env.answers import extract_answer
from eapo_env.hub import is_hub_id
from eapo_env.rows import PlacedRow, cell, has_column, read_rows
from eapo_env.types import Problem
from eapo_env.validation import UserError
from eapo_env.verifier import check_gold

AnswerKind = Literal["math", "words"]

_Found = tuple[str, Problem]  # its place, for error messages, and the problem

_USUAL_NAMES = {
    "statement": ("problem", "question", "statement", "prompt", "query", "input", "text"),
    "answer": ("answer", "final_answer", "final", "target", "ground_truth", "solution", "output"),
    "id": ("id", "problem_id", "uuid", "key", "index", "number"),
}
"""What data sets call these columns, the likeliest first: what an error suggests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns that hold a problem; dots lead into nested values (`prompt.0.content`).

    Args:
        statement: the column of the statement, a string.
        answer: the column of the gold answer, a string or a finite number.
        id: the column of the id, a string or a whole number. None numbers the rows from 0, and so
            does the default `"id"` where the first row has no such column.

    Raises:
        UserError: a column that is no string.
    """

    statement: str = "problem"
    answer: str = "answer"
    id: str | None = "id"

    def __post_init__(self) -> None:
        for name in _FIELDS:
            column = getattr(self, name)
            if not (isinstance(column, str) or (name == "id" and column is None)):
                raise UserError(f"the column of the {name} must be a string, not {column!r}")


_FIELDS = tuple(field.name for field in fields(Columns))
_DEFAULT = Columns()

ColumnNames = Columns | Mapping[str, str | None]
"""All columns, or a mapping of those that differ from the default."""


class MissingColumnError(UserError):
    """A data set without the columns that hold a problem; the message says how to name others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A named source: its location, its columns, and how its text is cleaned."""

    name: str
    location: str
    columns: Columns = Columns()
    split: str = "test"
    clean_statement: Callable[[str], str] = str.strip
    clean_answer: Callable[[str], str] = str.strip
    repeats: bool = False


def _without_instructions(prompt: str) -> str:
    """Return the statement inside a DAPO prompt."""
    return prompt.strip().removeprefix(_DAPO_PREFIX).removesuffix(_DAPO_SUFFIX).strip()


def _boxed_answer(solution: str) -> str:
    """Return the answer a solution commits to, or the solution itself when it is a bare answer."""
    return extract_answer(solution) or solution.strip()


_DAPO_PREFIX = (
    "Solve the following math problem step by step. The last line of your response should be of"
    " the form Answer: $Answer (without quotes) where $Answer is the answer to the problem."
)
_DAPO_SUFFIX = 'Remember to put your answer on its own line after "Answer:".'
_NAMED = (
    _Source(
        name="dapo-math-17k",
        location="BytedTsinghua-SIA/DAPO-Math-17k",
        columns=Columns(
            statement="prompt.0.content", answer="reward_model.ground_truth", id="extra_info.index"
        ),
        split="train",
        clean_statement=_without_instructions,
        repeats=True,
    ),
    _Source(
        name="aime-2024",
        location="math-ai/aime24",
        columns=Columns(answer="solution"),
        clean_answer=_boxed_answer,
    ),
    _Source(name="aime-2025", location="math-ai/aime25"),
    _Source(name="aimo-2025", location=""),
    _Source(name="sample", location=str(Path(__file__).parent / "data" / "sample.jsonl")),
)
_SOURCES = {source.name: source for source in _NAMED}
SOURCES = (*_SOURCES, "synthetic")
"""The named sources of `load_problems`."""


def load_problems(
    source: str | PathLike[str],
    *,
    path: str | PathLike[str] | None = None,
    columns: ColumnNames | None = None,
    split: str | None = None,
    subset: str | None = None,
    limit: int | None = None,
    answers: AnswerKind = "math",
) -> tuple[Problem, ...]:
    """Return the problems of a named source, a file, a folder or a hub data set, in row order.

    - a name of `SOURCES`: `"dapo-math-17k"`, `"aime-2024"` and `"aime-2025"` come from the hub,
      `"aimo-2025"` is Kaggle's `reference.csv` and needs `path`, `"sample"` and `"synthetic"`
      come with the package (paper 3.1 trains on the first and evaluates on the next three);
    - a `.jsonl`, `.csv` or `.parquet` file, or a folder laid out like a hub data set;
    - a hub data set, `"owner/name"`, where there is no folder `owner`.

    The hub file of DAPO-Math-17k repeats each problem about a hundred times, and a few statements
    come with two answers: each statement is kept once, and one with two answers not at all,
    because nothing says which is right.

    Args:
        source: a name, a file, a folder, or a hub id.
        path: a local copy of a named source: a file or folder in the same layout.
        columns: which columns hold the problems; by default those of the named source, else
            `Columns()`. A mapping, as `{"statement": "question"}`, changes those it names.
        split: the split of a hub data set or folder; by default that of the named source, else
            `"train"`.
        subset: the configuration of a hub data set or folder that has several.
        limit: keep the first `limit` problems; None keeps all.
        answers: "math" refuses a gold answer that `Verifier` cannot check, "words" takes any, for
            another grader (`F1Grader`).

    Raises:
        UserError: an unknown source (naming a known one that is alike); a data set, split or subset
            that cannot be loaded, or a split or subset of a single file; an unknown key of
            `columns`, or a column that the data lack (`MissingColumnError`); a malformed row, an
            empty or repeated id, or a gold answer that cannot be verified (naming file, line and
            column); no problem at all; `datasets` is needed and not installed.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit must be at least 1, not {limit}")
    if source == "synthetic" and path is None:
        _refuse("the procedural problems have", columns=columns, split=split, subset=subset)
        from eapo_env.synthetic import synthetic_problems

        return tuple(synthetic_problems())[:limit]
    layout = _layout(source, path)
    if Path(layout.location).is_file():
        _refuse(f"{layout.location} is one file: it has", split=split, subset=subset)
    chosen = layout.columns if columns is None else _columns(columns, layout.columns)
    rows = read_rows(layout.location, split or layout.split, subset)
    found = _parse(rows, layout, chosen)
    checked = _checked(_unrepeated(found) if layout.repeats else found, chosen, answers)
    problems = tuple(itertools.islice(checked, limit))
    if not problems:
        raise UserError(f"{layout.location} holds no problems")
    return problems


def _refuse(where: str, **given: object) -> None:
    """Raise a `UserError` that names an argument which the source has no use for."""
    for name, value in given.items():
        if value is not None:
            raise UserError(f"{where} no {name}, and {value!r} was asked for")


def _columns(given: ColumnNames, default: Columns) -> Columns:
    """Return the columns; a mapping changes those of the default that it names."""
    if isinstance(given, Columns):
        return given
    if not isinstance(given, Mapping):
        raise UserError(f"columns must be a mapping or Columns, not {given!r}")
    changes: dict[str, Any] = dict(given)
    for name in changes:
        if name not in _FIELDS:
            near = difflib.get_close_matches(str(name), _FIELDS, n=1)
            guess = f": did you mean {near[0]!r}?" if near else "."
            raise UserError(
                f"unknown key {name!r} in columns{guess} There are {', '.join(_FIELDS)}"
            )
    return replace(default, **changes)


def _layout(source: str | PathLike[str], path: str | PathLike[str] | None) -> _Source:
    """Return the layout of a source, with its location."""
    named = _SOURCES.get(source) if isinstance(source, str) else None
    if named is None:
        if path is not None:
            raise UserError(f"path is for a named source of the hub or Kaggle, not {source!r}")
        return _Source(name=Path(source).stem, location=_existing(source), split="train")
    if path is not None:
        return replace(named, location=_existing(Path(path)))
    if not named.location:
        raise UserError(
            f"{source!r} is not on the hub: download reference.csv of Kaggle's AI Mathematical"
            " Olympiad - Progress Prize 2 and pass path='reference.csv'"
        )
    return named


def _existing(source: str | PathLike[str]) -> str:
    """Return the location of an unnamed source: a file, a folder or a hub id.

    Raises:
        UserError: it is neither.
    """
    path = Path(source)
    if source and path.exists():
        return str(path)
    if not isinstance(source, str) or path.suffix in (".jsonl", ".csv", ".parquet"):
        raise UserError(f"no such file: {str(path)!r}")
    if is_hub_id(source):
        return source
    near = difflib.get_close_matches(source.lower(), SOURCES, n=1)
    guess = f": did you mean {near[0]!r}?" if near else "."
    raise UserError(
        f"unknown problem source {source!r}{guess} There are {', '.join(SOURCES)};"
        " a file, a folder or a hub id 'owner/name' will do too"
    )


def _parse(rows: Iterable[PlacedRow], layout: _Source, columns: Columns) -> Iterator[_Found]:
    """Yield the problem of every row, with its place."""
    for number, (where, row) in enumerate(rows):
        if number == 0:
            columns = _present(where, row, columns)
        text = {
            "statement": layout.clean_statement(cell(where, row, columns.statement)),
            "answer": layout.clean_answer(cell(where, row, columns.answer)),
            "id": f"{layout.name}-{number}" if columns.id is None else cell(where, row, columns.id),
        }
        for field, value in text.items():
            if not value.strip():
                raise UserError(f"{where}, column {getattr(columns, field)!r}: empty")
        yield (
            where,
            Problem(
                id=text["id"],
                statement=text["statement"],
                answer=text["answer"],
                source=layout.name,
            ),
        )


def _present(where: str, row: Mapping[str, object], columns: Columns) -> Columns:
    """Return the columns, without the default one of the id if the row lacks it.

    Raises:
        MissingColumnError: the row lacks another.
    """
    named = {name: getattr(columns, name) for name in _FIELDS}
    id_column = named["id"]
    if id_column in (None, _DEFAULT.id):
        del named["id"]
    missing = [name for name, column in named.items() if not has_column(row, column)]
    if not missing:
        numbered = id_column == _DEFAULT.id and not has_column(row, id_column)
        return replace(columns, id=None) if numbered else columns
    free = [
        column
        for column, value in row.items()
        if isinstance(value, str | int | float) and column not in named.values()
    ]
    for name in missing:
        named[name] = next((word for word in _USUAL_NAMES[name] if word in free), "...")
    raise MissingColumnError(
        f"{where}, column {getattr(columns, missing[0])!r}: missing (columns: {', '.join(row)});"
        f" name them: columns={json.dumps(named, ensure_ascii=False)}"
    )


def _unrepeated(found: Iterable[_Found]) -> Iterator[_Found]:
    """Yield each statement's first problem; drop statements that have two answers."""
    first: dict[str, _Found] = {}
    contradicted: set[str] = set()
    for where, problem in found:
        kept = first.setdefault(problem.statement, (where, problem))[1]
        if kept.answer != problem.answer:
            contradicted.add(problem.statement)
    yield from (pair for statement, pair in first.items() if statement not in contradicted)


def _checked(found: Iterable[_Found], columns: Columns, answers: AnswerKind) -> Iterator[Problem]:
    """Yield the problems; check that ids are unique and gold answers verifiable."""
    places: dict[str, str] = {}
    for where, problem in found:
        if problem.id in places:
            raise UserError(
                f"{where}, column {columns.id!r}: id {problem.id!r} stands also in"
                f" {places[problem.id]}"
            )
        places[problem.id] = where
        try:
            if answers == "math":
                check_gold(problem.answer)
        except ValueError as error:
            raise UserError(f"{where}, column {columns.answer!r}: {error}") from None
        yield problem
