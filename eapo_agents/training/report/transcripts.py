"""The recorded episodes of a run, as values: what `training/summary.py` writes, read back.

Fields with a default are missing in the folders of earlier versions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from eapo_agents.files import validated
from eapo_agents.training.run_folder import Run
from eapo_env.json_lines import JsonLines
from eapo_env.validation import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptMessage:
    """A message of a transcript.

    Args:
        tokens: its length; None if it was not recorded.
        action: what it did, if it is the policy's.
        reason: why it is malformed.
    """

    role: str
    content: str
    tokens: int | None = None
    action: Literal["consult", "answer", "malformed"] | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One query: the gate's decision on it, and what came of it.

    Args:
        reply: what the expert wrote; None if there is none.
        unavailable: the reason why there is none.
        latency_s: how long that took, in seconds; None if it was never sent.
    """

    query: str
    accepted: bool
    expert: str = ""
    reply: str | None = None
    unavailable: str | None = None
    latency_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """A recorded episode.

    Args:
        member: its number in its group.
        use: what became of it: learned from, carried into the next step, or dropped; or that it is
            an evaluation's.
        advantage: the one it was learned with.
    """

    problem_id: str
    answer: str
    given: str | None = None
    status: str
    reward: float
    stop_reason: str = ""
    turn_budget: int
    queries_per_turn: int | None = None
    acceptance_rate: float
    policy_tokens: int | None = None
    environment_tokens: int | None = None
    paradigm: str = ""
    messages: tuple[TranscriptMessage, ...]
    consultations: tuple[tuple[Asked, ...], ...]
    member: int = 0
    use: Literal["learned", "carried", "dropped", "evaluated"] | None = None
    advantage: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Latencies:
    latencies_s: tuple[tuple[float | None, ...], ...]


_TRANSCRIPT = TypeAdapter(Transcript)


def transcripts_of(run: Run, step: int) -> list[Transcript]:
    """Return the episodes that a run recorded at a step, with the latencies of their replies.

    Latencies are None where there is no line for them, as after a crash between the two files.

    Raises:
        UserError: one of the two files is invalid.
    """
    path = run.transcripts[step]
    found = [transcript(row, path) for row in transcript_rows_in(path)]
    latencies = list(_latencies_in(run.latencies[step])) if step in run.latencies else []
    if len(latencies) != len(found):
        return found
    return [_timed(one, seconds) for one, seconds in zip(found, latencies, strict=True)]


def evaluated_in(run: Run, step: int) -> list[Transcript]:
    """Return the episodes of an evaluation that a run recorded at a step.

    Raises:
        UserError: the file is invalid.
    """
    path = run.evaluated[step]
    return [transcript(row, path) for row in transcript_rows_in(path)]


def transcript_rows_in(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a file of transcripts.

    Raises:
        UserError: a line that is no JSON object.
    """
    for place, row in JsonLines(path).read_with_places():
        if not isinstance(row, dict):
            raise UserError(f"{place} is no episode: {row!r:.80}")
        yield row


def transcript(row: Mapping[str, Any], path: Path) -> Transcript:
    """Return the transcript of a row.

    Raises:
        UserError: it is none.
    """
    try:
        return _TRANSCRIPT.validate_python(row)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path} holds no transcript: {where}: {first['msg']}") from None


def as_row(one: Transcript) -> dict[str, Any]:
    """Return a transcript as JSON-ready values."""
    row: dict[str, Any] = _TRANSCRIPT.dump_python(one)
    return row


def _latencies_in(path: Path) -> Iterator[tuple[tuple[float | None, ...], ...]]:
    for place, row in JsonLines(path).read_with_places():
        found: _Latencies = validated(row, _Latencies, place)
        yield found.latencies_s


def _timed(one: Transcript, seconds: tuple[tuple[float | None, ...], ...]) -> Transcript:
    if [len(asked) for asked in one.consultations] != [len(part) for part in seconds]:
        return one
    timed = tuple(
        tuple(replace(query, latency_s=s) for query, s in zip(asked, part, strict=True))
        for asked, part in zip(one.consultations, seconds, strict=True)
    )
    return replace(one, consultations=timed)
