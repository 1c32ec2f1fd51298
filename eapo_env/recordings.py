"""Expert replies in a JSON-lines file: recorded as they come, and replayed later.

One line per reply: what was asked (`text`, `statement`, `seed`, `turn`, `slot`), who answered
(`expert`), and `reply`, or `unavailable` with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from eapo_env.experts import ExpertPool, is_cooperative, query_rng
from eapo_env.json_lines import JsonLines
from eapo_env.types import ExpertReply, Query, Reply, Unavailable
from eapo_env.validation import UserError

_SOLUTION = {"problem", "sample", "text", "status"}
"""Columns of the other kind of recording."""

_Key = tuple[str, str]
_Recorded = tuple[Query, ExpertReply]


@dataclass(frozen=True, slots=True)
class RecordingExperts:
    """Experts whose replies are appended to a JSON-lines file before they are returned.

    Several pools, threads and processes may share a file: each batch is one write to its end.
    A later run appends to the same file.

    Raises:
        UserError: from `ask`, when the file cannot be written.
    """

    inner: ExpertPool
    path: str | Path

    @property
    def cooperative(self) -> bool:
        """Whether the inner pool is cooperative."""
        return is_cooperative(self.inner)

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        """Return the inner pool's replies, once they are in the file."""
        replies = await self.inner.ask(queries)
        rows = [_row(query, reply) for query, reply in zip(queries, replies, strict=True)]
        JsonLines(Path(self.path)).append(*rows)
        return replies


@dataclass(frozen=True)
class ReplayExperts:
    """Experts that repeat a recording, which is read at the first use.

    A query is looked up by its text and statement. Where several replies are recorded, the one
    given to the same seed, turn and slot is repeated, else one chosen by the query alone; so the
    order of the lines never matters. A query that was never asked is unavailable.

    Raises:
        UserError: from `ask`, for a file that cannot be read, or an invalid line (file and line
            are named).
    """

    path: str | Path
    cooperative: ClassVar[bool] = True

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        """Return the recorded replies, in query order."""
        recording = self._recording
        return [_replayed(query, recording.get(_key(query), ())) for query in queries]

    @cached_property
    def _recording(self) -> Mapping[_Key, Sequence[_Recorded]]:
        return _read(Path(self.path))

    def __reduce__(self) -> tuple[type[ReplayExperts], tuple[str | Path]]:
        return ReplayExperts, (self.path,)


def _key(query: Query) -> _Key:
    return query.text, query.statement


def _identity(query: Query) -> tuple[int, int, int]:
    return query.seed, query.turn, query.slot


def _replayed(query: Query, recorded: Sequence[_Recorded]) -> ExpertReply:
    if not recorded:
        return Unavailable("not in the recording")
    same = [reply for asked, reply in recorded if _identity(asked) == _identity(query)]
    candidates = same or [reply for _, reply in recorded]
    return candidates[int(query_rng(query, 0).integers(len(candidates)))]


def _row(query: Query, reply: ExpertReply) -> dict[str, Any]:
    match reply:
        case Reply():
            answer = {"expert": reply.expert, "reply": reply.text}
        case Unavailable():
            answer = {"expert": reply.expert, "unavailable": reply.reason}
    return {**asdict(query), **answer}


def _read(path: Path) -> dict[_Key, list[_Recorded]]:
    if not path.exists():
        raise UserError(f"there is no recording {path}")
    recording: dict[_Key, list[_Recorded]] = {}
    for place, row in JsonLines(path).read_with_places():
        try:
            query, reply = _parse(row)
        except (KeyError, TypeError) as error:
            if isinstance(row, dict) and row.keys() >= _SOLUTION:
                raise UserError(
                    f"{path} holds solutions of whole problems, as eapo record-experts writes them,"
                    " not replies to queries: give it to eapo distill --recording or eapo workflow"
                    " --recording"
                ) from None
            raise UserError(f"{place}: not a recorded reply ({error!r}): {row!r:.200}") from None
        recording.setdefault(_key(query), []).append((query, reply))
    for recorded in recording.values():
        recorded.sort(key=lambda pair: (_identity(pair[0]), repr(pair[1])))
    return recording


def _parse(row: dict[str, object]) -> _Recorded:
    def text(column: str) -> str:
        value = row[column]
        if not isinstance(value, str):
            raise TypeError(f"{column} must be a string, not {value!r}")
        return value

    def number(column: str) -> int:
        value = row[column]
        if not isinstance(value, int):
            raise TypeError(f"{column} must be a whole number, not {value!r}")
        return value

    query = Query(
        text=text("text"),
        statement=text("statement"),
        seed=number("seed"),
        turn=number("turn"),
        slot=number("slot"),
    )
    if "unavailable" in row:
        return query, Unavailable(text("unavailable"), text("expert"))
    return query, Reply(text("expert"), text("reply"))
