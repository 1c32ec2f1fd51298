"""Expert replies in a JSONL file: record them as they come, and replay them later.

One line per reply: what was asked (`text`, `statement`, `seed`, `turn`, `slot`), who answered
(`expert`), and `reply`, or `unavailable` with the reason. Lines are only ever appended; one that
a crash cut short is dropped.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from io import FileIO
from pathlib import Path

from eapo_env.experts import ExpertPool, query_rng
from eapo_env.types import ExpertReply, Query, Reply, Unavailable
from eapo_env.validation import UserError

_TAIL_BYTES = 1 << 16
_Key = tuple[str, str]
_Recorded = tuple[Query, ExpertReply]


@dataclass(frozen=True, slots=True)
class RecordingExperts:
    """Experts whose replies are appended to a JSONL file before they are handed on.

    Several pools, threads and processes may share a file: each batch is one write to its end.
    A later run goes on with the same file.

    Raises:
        OSError: from `ask`, when the file cannot be written.
    """

    inner: ExpertPool
    path: str | Path

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        """Return the inner pool's replies, once they are written down."""
        replies = await self.inner.ask(queries)
        lines = [_line(query, reply) for query, reply in zip(queries, replies, strict=True)]
        _append(Path(self.path), "".join(lines).encode())
        return replies


@dataclass(frozen=True)
class ReplayExperts:
    """Experts that repeat a recording, which is read at the first use.

    A query is looked up by its text and statement. Where several replies are recorded, the one
    given to the same seed, turn and slot is repeated, else one chosen by the query alone; so the
    order of the lines never matters. A query that was never asked is unavailable.

    Raises:
        OSError: from `ask`, when the file cannot be read.
        UserError: from `ask`, for a line that is no recorded reply; names the file and the line.
    """

    path: str | Path

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


def _line(query: Query, reply: ExpertReply) -> str:
    match reply:
        case Reply():
            answer = {"expert": reply.expert, "reply": reply.text}
        case Unavailable():
            answer = {"expert": reply.expert, "unavailable": reply.reason}
    return json.dumps({**asdict(query), **answer}) + "\n"


def _append(path: Path, lines: bytes) -> None:
    # One unbuffered write under a lock, so that no two writers mix, or mend the same end.
    with path.open("ab+", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        whole = _mended(file)
        if file.write(whole + lines) != len(whole + lines):
            raise OSError(f"{path}: the disk took only a part of a recording")


def _mended(file: FileIO) -> bytes:
    """Return what a new line needs before it; drop a last line that a crash cut short."""
    end = start = file.seek(0, os.SEEK_END)
    tail = b""
    while start and b"\n" not in tail:
        size = min(_TAIL_BYTES, start)
        start -= size
        file.seek(start)
        tail = file.read(size) + tail
    torn = tail.rpartition(b"\n")[2]
    if torn and _is_torn(torn):
        file.truncate(end - len(torn))
        return b""
    return b"\n" if torn else b""


def _read(path: Path) -> dict[_Key, list[_Recorded]]:
    recording: dict[_Key, list[_Recorded]] = {}
    *lines, torn = path.read_bytes().split(b"\n")  # a last line without its end was cut short
    for number, line in enumerate(lines if _is_torn(torn) else [*lines, torn], start=1):
        if not line.strip():
            continue
        try:
            query, reply = _parse(json.loads(line))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            shown = line[:200].decode("utf-8", "replace")
            raise UserError(
                f"{path}, line {number}: not a recorded reply ({error!r}): {shown}"
            ) from None
        recording.setdefault(_key(query), []).append((query, reply))
    for recorded in recording.values():
        recorded.sort(key=lambda pair: (_identity(pair[0]), repr(pair[1])))
    return recording


def _is_torn(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return True
    return False


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
