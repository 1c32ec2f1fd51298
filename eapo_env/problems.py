"""Problems from named sources, files, folders and hub data sets.

Every gold answer is checked when it is loaded: one that the verifier could never confirm is an
error now, not a reward of 0 throughout training. Of a solution in prose the gold answer is its last
box, or what follows `####`. Rows are read by `rows.py`, whose errors name file, line and column;
all bad rows are listed at once, or skipped.
"""

from __future__ import annotations

import difflib
import itertools
import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from eapo_env.answers import solution_answer
from eapo_env.canonical import canonical
from eapo_env.hub import is_hub_id
from eapo_env.rows import PlacedRow, cell, has_column, read_rows, texts
from eapo_env.structure import equivalent, exact_scalar
from eapo_env.types import Problem
from eapo_env.validation import UserError, at_least, whole
from eapo_env.verifier import check_gold

AnswerKind = Literal["math", "words"]

_Found = tuple[str, Problem | UserError]  # its place, and the problem or what is wrong with it

_USUAL_NAMES = {
    "statement": ("problem", "question", "statement", "prompt", "query", "input", "text"),
    "answer": ("answer", "final_answer", "final", "target", "ground_truth", "solution", "output"),
    "id": ("id", "problem_id", "uuid", "key", "index", "number"),
}
"""What data sets call these columns, the likeliest first: what an error suggests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns that hold a problem; dots lead into nested values (`prompt.user.content`).

    Args:
        statement: the column of the statement, a string.
        answer: the column of the gold answer: a string, a finite number, or a list of them that are
            all asked for. Of a solution in prose it is the last box, or what follows `####`.
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


_MISSING = frozenset(("nan", "null", "none", "n/a"))
"""What programs write for a missing value."""
_SENTENCES = re.compile(r"[a-z\d)$}]{2}[.!?](?:\s|\Z)|\n\s*\n")
_WORDS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_MOST_WORDS = 25
_SHOWN = 20
_FIELDS = tuple(field.name for field in fields(Columns))
_DEFAULT = Columns()

ColumnNames = Columns | Mapping[str, str | None]
"""All columns, or a mapping of those that differ from the default."""


class MissingColumnError(UserError):
    """A data set without the columns that hold a problem; the message says how to name others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A named source: its location, the columns of its copies, and how its statements are cleaned.

    The first columns that a copy has are its columns.
    """

    name: str
    location: str
    layouts: tuple[Columns, ...] = (Columns(),)
    split: str = "test"
    clean_statement: Callable[[str], str] = str.strip
    repeats: bool = False


def _without_instructions(prompt: str) -> str:
    """Return the statement inside a DAPO prompt."""
    return prompt.strip().removeprefix(_DAPO_PREFIX).removesuffix(_DAPO_SUFFIX).strip()


_DAPO_PREFIX = (
    "Solve the following math problem step by step. The last line of your response should be of"
    " the form Answer: $Answer (without quotes) where $Answer is the answer to the problem."
)
_DAPO_SUFFIX = 'Remember to put your answer on its own line after "Answer:".'
_AIME = (
    Columns(),
    Columns(statement="Problem", answer="Answer", id="ID"),
    Columns(statement="question"),
)
"""The layouts of the AIME sets on the hub that have a column of answers."""
_NAMED = (
    _Source(
        name="dapo-math-17k",
        location="BytedTsinghua-SIA/DAPO-Math-17k",
        layouts=(
            Columns(
                statement="prompt.user.content",
                answer="reward_model.ground_truth",
                id="extra_info.index",
            ),
        ),
        split="train",
        clean_statement=_without_instructions,
        repeats=True,
    ),
    _Source(
        name="aime-2024",
        location="math-ai/aime24",
        layouts=(*_AIME, Columns(answer="solution")),
    ),
    _Source(name="aime-2025", location="math-ai/aime25", layouts=_AIME),
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
    skip_bad: bool = False,
) -> tuple[Problem, ...]:
    """Return the problems of a named source, a file, a folder or a hub data set, in row order.

    - a name of `SOURCES`: `"dapo-math-17k"`, `"aime-2024"` and `"aime-2025"` come from the hub,
      `"aimo-2025"` is Kaggle's `reference.csv` and needs `path`, `"sample"` and `"synthetic"`
      come with the package (paper 3.1 trains on the first and evaluates on the next three);
    - a `.jsonl`, `.csv` or `.parquet` file, or a folder laid out like a hub data set;
    - a hub data set, `"owner/name"`, where there is no folder `owner`.

    The hub file of DAPO-Math-17k repeats each problem about a hundred times, and a few statements
    come with two answers: each statement is kept once, and one with two unequal answers not at
    all, because nothing says which is right.

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
        skip_bad: leave out bad rows with a warning that counts them and shows the first ones.

    Raises:
        UserError: an unknown source (naming a known one that is alike); a data set, split or subset
            that cannot be loaded, or a split or subset of a single file; an unknown key of
            `columns`, or a column that the data lack (`MissingColumnError`); bad rows, all listed
            with file, line and column: malformed ones, an empty or repeated id, a gold answer that
            cannot be verified; no problem at all; `datasets` is needed and not installed.
    """
    if limit is not None:
        given = SimpleNamespace(limit=limit)
        whole(given, "limit")
        at_least(1, given, "limit")
    if source == "synthetic" and path is None:
        _refuse("the procedural problems have", columns=columns, split=split, subset=subset)
        from eapo_env.synthetic import synthetic_problems

        return tuple(synthetic_problems())[:limit]
    layout = _layout(source, path)
    if Path(layout.location).is_file():
        _refuse(f"{layout.location} is one file: it has", split=split, subset=subset)
    layouts = tuple(_columns(columns or {}, default) for default in layout.layouts)
    rows, chosen = _with_columns(read_rows(layout.location, split or layout.split, subset), layouts)
    found = _parse(rows, layout, chosen, answers)
    checked = _checked(_unrepeated(found) if layout.repeats else found, chosen, answers)
    problems, bad = _sorted(itertools.islice(checked, _most_rows(limit, skip_bad)), limit)
    if bad and not skip_bad:
        raise (
            bad[0]
            if len(bad) == 1
            else UserError(_listed(bad, "bad rows; skip_bad leaves them out"))
        )
    if bad:
        warnings.warn(_listed(bad, "bad rows were skipped"), stacklevel=2)
    if not problems:
        raise UserError(f"{layout.location} holds no problems")
    return problems


def _most_rows(limit: int | None, skip_bad: bool) -> int | None:
    """Return how many rows to read: a limit counts good ones if bad ones are skipped."""
    return None if skip_bad else limit


def _sorted(
    checked: Iterable[Problem | UserError], limit: int | None
) -> tuple[tuple[Problem, ...], list[UserError]]:
    """Return the first problems and the errors met on the way to them."""
    problems: list[Problem] = []
    bad: list[UserError] = []
    for item in checked:
        match item:
            case Problem():
                problems.append(item)
            case _:
                bad.append(item)
        if len(problems) == limit:
            break
    return tuple(problems), bad


def _listed(bad: Sequence[UserError], what: str) -> str:
    """Return a message with a line for each of the first bad rows."""
    lines = [f"{len(bad)} {what}:", *(f"  {error}" for error in bad[:_SHOWN])]
    return "\n".join([*lines, *(["  ..."] if len(bad) > _SHOWN else [])])


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


def _parse(
    rows: Iterable[PlacedRow], layout: _Source, columns: Columns, answers: AnswerKind
) -> Iterator[_Found]:
    """Yield the problem of every row, or what is wrong with it, with its place."""
    for number, (where, row) in enumerate(rows):
        if isinstance(row, UserError):
            yield where, row
            continue
        try:
            yield where, _problem(where, row, number, layout, columns, answers)
        except UserError as error:
            yield where, error


def _problem(
    where: str,
    row: Mapping[str, object],
    number: int,
    layout: _Source,
    columns: Columns,
    answers: AnswerKind,
) -> Problem:
    given = texts(where, row, columns.answer)
    try:
        gold = ", ".join(map(gold_of, given)) if answers == "math" else ", ".join(given)
    except UserError as error:
        raise UserError(f"{where}, column {columns.answer!r}: {error}") from None
    text = {
        "statement": layout.clean_statement(cell(where, row, columns.statement)),
        "answer": gold,
        "id": f"{layout.name}-{number}" if columns.id is None else cell(where, row, columns.id),
    }
    for field, value in text.items():
        if not value.strip():
            raise UserError(f"{where}, column {getattr(columns, field)!r}: empty")
    return Problem(
        id=text["id"], statement=text["statement"], answer=text["answer"], source=layout.name
    )


def gold_of(text: str) -> str:
    r"""Return the gold answer that a cell holds: the cell, or the final answer of a solution.

    Of a solution that is the last box (MATH, NuminaMath) or what follows `####` (GSM8K).

    Raises:
        UserError: `nan`, `null` or `None` as text, or prose that names no final answer so.
    """
    text = text.strip()
    if text.lower() in _MISSING:
        raise UserError(f"{text!r} stands for a missing answer")
    if "\\boxed" not in text and "\\fbox" not in text and "####" not in text:
        if len(_SENTENCES.findall(text)) > 1 or len(_WORDS.findall(text)) > _MOST_WORDS:
            raise UserError(
                f"a solution in prose, of which no box and no #### names the answer: {text[:200]!r}"
            )
        return text
    answer = solution_answer(text)
    if answer is None:
        raise UserError(f"the solution gives no final answer: {text[-200:]!r}")
    return answer


def _with_columns(
    rows: Iterator[PlacedRow], layouts: Sequence[Columns]
) -> tuple[Iterator[PlacedRow], Columns]:
    """Return the rows and the columns that the first readable one has."""
    read: list[PlacedRow] = []
    for where, row in rows:
        read.append((where, row))
        if not isinstance(row, UserError):
            return itertools.chain(read, rows), _present(where, row, layouts)
    return iter(read), layouts[0]


def _present(where: str, row: Mapping[str, object], layouts: Sequence[Columns]) -> Columns:
    """Return the first columns that a row has, without the default one of the id if it lacks that.

    Raises:
        MissingColumnError: the row lacks some of each; the message names those of the first.
    """
    for columns in layouts[1:]:
        if all(has_column(row, name) for name in (columns.statement, columns.answer)) and not all(
            has_column(row, name) for name in (layouts[0].statement, layouts[0].answer)
        ):
            return _numbered(row, columns)
    columns = layouts[0]
    named = {name: getattr(columns, name) for name in _FIELDS}
    id_column = named["id"]
    if id_column in (None, _DEFAULT.id):
        del named["id"]
    missing = [name for name, column in named.items() if not has_column(row, column)]
    if not missing:
        return _numbered(row, columns)
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


def _numbered(row: Mapping[str, object], columns: Columns) -> Columns:
    """Return the columns, without that of the id if it is the default and the row lacks it."""
    lacks_id = columns.id == _DEFAULT.id and not has_column(row, "id")
    return replace(columns, id=None) if lacks_id else columns


def _unrepeated(found: Iterable[_Found]) -> Iterator[_Found]:
    """Yield each statement's first problem; drop statements that have two unequal answers."""
    first: dict[str, tuple[str, Problem]] = {}
    contradicted: set[str] = set()
    for where, problem in found:
        if isinstance(problem, UserError):
            yield where, problem
            continue
        kept = first.setdefault(problem.statement, (where, problem))[1]
        if not _same_answer(kept.answer, problem.answer):
            contradicted.add(problem.statement)
    yield from (pair for statement, pair in first.items() if statement not in contradicted)


def _same_answer(one: str, other: str) -> bool:
    """Return whether two gold answers are the same in any spelling (`34`, `34.0`, `034`)."""
    return one == other or bool(equivalent(canonical(one), canonical(other), exact_scalar))


def _checked(
    found: Iterable[_Found], columns: Columns, answers: AnswerKind
) -> Iterator[Problem | UserError]:
    """Yield the problems, or errors: ids must be unique and gold answers verifiable."""
    places: dict[str, str] = {}
    for where, problem in found:
        if isinstance(problem, UserError):
            yield problem
            continue
        first = places.setdefault(problem.id, where)
        if first != where:
            yield UserError(
                f"{where}, column {columns.id!r}: id {problem.id!r} stands also in {first}"
            )
            continue
        try:
            if answers == "math":
                check_gold(problem.answer)
        except UserError as error:
            yield UserError(f"{where}, column {columns.answer!r}: {error}")
        else:
            yield problem
