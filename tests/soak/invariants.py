"""What must hold of a training, whatever was done to it: read from its folder, and pure.

Each function returns what is wrong, a line each; `violations` returns all of it. Machines are
slow, so a deadline has a margin, `MARGIN_S`; what hangs would miss it by minutes.
"""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.soak.faults import Fault

Row = dict[str, Any]

GRACE_S = 2.0
"""A consultation may take this much longer than its deadline."""
STOP_S = 5.0
"""A second Ctrl-C ends a training within this time."""
MARGIN_S = 15.0
"""What a loaded machine may take to schedule a process, unload torch and be seen to have ended."""
_OF_THE_MACHINE = ("seconds/", "memory/")
_STARTS = ("started", "resumed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One process of a training, from its start to its end.

    Args:
        began: when it was started, and `ended` when it was gone.
        faults: what went wrong meanwhile.
        status: its exit status, negative after a signal; None if it had to be killed.
        stderr: what it wrote there.
        steps_taken: by how many the recorded steps, those taken back included, became more.
        changed: whether it changed the run's settings.
        stop_s: the time from a second Ctrl-C to its end; None without one.
        orphans: the processes that it left behind.
    """

    began: datetime
    ended: datetime
    faults: tuple[Fault, ...] = ()
    status: int | None = 0
    stderr: str = ""
    steps_taken: int = 0
    changed: bool = False
    stop_s: float | None = None
    orphans: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A training that is over.

    Args:
        run: its run folder.
        temporary: the folder of its temporary files.
        sessions: its processes, in order.
        reference: the metrics of the training that nothing was done to.
    """

    run: Path
    temporary: Path
    sessions: tuple[Session, ...]
    reference: tuple[Row, ...]

    @property
    def config(self) -> Row:
        """The run's settings."""
        config: Row = json.loads((self.run / "config.json").read_text(encoding="utf-8"))
        return config

    @property
    def metrics(self) -> list[Row]:
        """The rows of its steps."""
        return read_rows(self.run / "metrics.jsonl")

    @property
    def events(self) -> list[Row]:
        """Its events."""
        return read_rows(self.run / "events.jsonl")

    @property
    def superseded(self) -> list[Row]:
        """The rows of the steps that were taken back."""
        return read_rows(self.run / "superseded" / "metrics.jsonl")

    @property
    def taken_back(self) -> list[list[Row]]:
        """The same, a list per resumption: steps follow each other in it."""
        parts: list[list[Row]] = []
        for row in self.superseded:
            if parts and row["step"] == parts[-1][-1]["step"] + 1:
                parts[-1].append(row)
            else:
                parts.append([row])
        return parts


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a JSON-lines file, all of them whole; none without a file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def violations(trained: Trained) -> list[str]:
    """Return what does not hold of a training that is over."""
    try:
        return [f"{check.__name__}: {wrong}" for check in INVARIANTS for wrong in check(trained)]
    except (OSError, ValueError, LookupError, TypeError) as error:
        return [f"the run folder cannot be read: {error!r}"]


def ended_as_allowed(trained: Trained) -> Iterator[str]:
    """Yield the sessions with an exit status that what was done to them does not explain."""
    for number, session in enumerate(trained.sessions):
        allowed = {0}.union(*map(allowed_statuses, session.faults))
        if session.status not in allowed:
            told = session.stderr.strip()[-300:]
            yield f"session {number} ended with {session.status}, not {sorted(allowed)}: {told!r}"
    if trained.sessions[-1].status != 0:
        yield "the last session did not finish"


def allowed_statuses(fault: Fault) -> set[int]:
    """Return the exit statuses, beside 0, of a trainer that a fault may end.

    A signal that comes while Python ends is the kernel's, which shells call 130 and 143, too.
    """
    match fault.target, fault.kind:
        case "trainer", "kill":
            return {-signal.SIGKILL}
        case "trainer", "TERM":
            return {143, -signal.SIGTERM}
        case "trainer", _:
            return {130, -signal.SIGINT}
        case _, "slow":
            return set()
        case _:
            return {2}


def failures_are_one_line(trained: Trained) -> Iterator[str]:
    """Yield tracebacks, and failures that do not say in one line what the user can do."""
    for number, session in enumerate(trained.sessions):
        if "Traceback" in session.stderr or "Exception ignored" in session.stderr:
            yield f"session {number} printed a traceback: {session.stderr[-2000:]}"
        told = [line for line in session.stderr.splitlines() if line.startswith("eapo: ")]
        if session.status == 2 and len(told) != 1:
            yield f"session {number} failed and said {told}"


def steps_are_whole(trained: Trained) -> Iterator[str]:
    """Yield a gap or a repetition in the recorded steps."""
    steps, wanted = [row["step"] for row in trained.metrics], trained.config["steps"]
    if steps != list(range(1, wanted + 1)):
        yield f"the steps are {steps}, not 1 to {wanted}"


def numbers_are_the_reference(trained: Trained) -> Iterator[str]:
    """Yield the first number of each history that no failed reply explains.

    A history is the recorded steps, or those that were taken back after the steps before them.
    """
    final = trained.metrics
    histories = [final, *(final[: part[0]["step"] - 1] + part for part in trained.taken_back)]
    for history in histories:
        for row, wanted in zip(history, trained.reference, strict=False):
            if row.get("expert_failure_rate") or row.get("expert_errors"):
                break
            differing = _numbers(row) ^ _numbers(wanted)
            if differing:
                yield f"step {row['step']} differs in {sorted({name for name, _ in differing})}"
                break


def _numbers(row: Row) -> set[tuple[str, float]]:
    return {(name, x) for name, x in row.items() if not name.startswith(_OF_THE_MACHINE)}


def episodes_are_counted_once(trained: Trained) -> Iterator[str]:
    """Yield problems or episodes that were lost, or played twice."""
    metrics, group_size = trained.metrics, trained.config["rollout"]["group_size"]
    for folder in sorted((trained.run / "checkpoints").glob("step-*")):
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        used = sum(row["problems_used"] for row in metrics if row["step"] <= state["step"])
        if used != state["cursor"]:
            yield f"{folder.name} is at problem {state['cursor']}, and {used:g} were used"
    played: list[str] = []
    for row in metrics:
        path = trained.run / "transcripts" / f"step-{row['step']:06d}.jsonl"
        episodes = read_rows(path)
        if len(episodes) != row["problems_used"] * group_size:
            yield f"step {row['step']} has {len(episodes)} transcripts"
        played += [episode["problem_id"] for episode in episodes if episode["member"] == 0]
        members = Counter(episode["member"] for episode in episodes)
        if set(members.values()) - {row["problems_used"]}:
            yield f"step {row['step']} has {dict(members)} transcripts of the members of a group"
    yield from _repeated_in_an_epoch(played, len(set(played)))


def _repeated_in_an_epoch(played: Sequence[str], epoch: int) -> Iterator[str]:
    """Yield the epochs in which a problem comes twice: each is a permutation of all problems."""
    for first in range(0, len(played), max(epoch, 1)):
        part = played[first : first + epoch]
        if len(set(part)) < len(part):
            twice = [name for name, count in Counter(part).items() if count > 1]
            yield f"problems {twice} are played twice in the epoch from number {first}"


def resumptions_are_events(trained: Trained) -> Iterator[str]:
    """Yield sessions without the event of their start or change, and events of no session."""
    events, seen = trained.events, 0
    for number, session in enumerate(trained.sessions):
        own = [event["event"] for event in events if _is_in(event, session)]
        starts = [event for event in own if event in _STARTS]
        seen += len(starts)
        if len(starts) > 1 or (session.steps_taken and not starts):
            yield f"session {number} took {session.steps_taken} steps and has the events {own}"
        if session.changed and "resumed" in own and "changed" not in own:
            yield f"session {number} changed settings and has the events {own}"
    if seen != sum(event["event"] in _STARTS for event in events):
        yield "there are starts outside the sessions"
    last = [(event["event"], event["step"]) for event in events[-1:]]
    if last != [("finished", trained.config["steps"])]:
        yield f"the last event is {events[-1:]}, and the run is finished"


def _is_in(event: Row, session: Session) -> bool:
    return session.began <= datetime.fromisoformat(event["time"]) <= session.ended


def steps_taken_back_are_kept(trained: Trained) -> Iterator[str]:
    """Yield resumptions whose steps are not in `superseded`, and steps there of no resumption.

    A session that is killed between moving them and its event leaves steps without an event.
    """
    for number, session in enumerate(trained.sessions):
        if session.steps_taken < 0:
            yield f"session {number} lost {-session.steps_taken} recorded steps"
    wanted = [
        step
        for event in trained.events
        if event["event"] == "resumed"
        for step in range(event["step"] + 1, event["step"] + event["superseded"] + 1)
    ]
    kept = [int(row["step"]) for row in trained.superseded]
    rest = iter(kept)
    if not all(step in rest for step in wanted):
        yield f"the steps taken back are {wanted}, and superseded holds {kept}"
    every_start_is_known = all(
        any(event["event"] in _STARTS and _is_in(event, session) for event in trained.events)
        for session in trained.sessions
    )
    if every_start_is_known and kept != wanted:
        yield f"superseded holds {kept}, and {wanted} were taken back"


def waits_are_bounded(trained: Trained) -> Iterator[str]:
    """Yield waits for experts, or for a stop, that are longer than their deadline."""
    limit = trained.config["experts"]["batch_timeout_s"] + GRACE_S + MARGIN_S
    for row in trained.metrics + trained.superseded:
        if row.get("seconds/expert_p95", 0.0) > limit:
            yield f"in step {row['step']} experts took {row['seconds/expert_p95']:.1f} s"
    for number, session in enumerate(trained.sessions):
        if session.stop_s is not None and session.stop_s > STOP_S + MARGIN_S:
            yield f"session {number} ended {session.stop_s:.1f} s after a second Ctrl-C"


def nothing_is_left(trained: Trained) -> Iterator[str]:
    """Yield processes and unfinished or temporary files that are left."""
    for number, session in enumerate(trained.sessions):
        if session.orphans:
            yield f"session {number} left the processes {session.orphans}"
    left = [*trained.run.rglob(".unfinished-*"), *trained.temporary.rglob("*")]
    if left:
        yield f"the files {sorted(map(str, left))} are left"


INVARIANTS: tuple[Callable[[Trained], Iterator[str]], ...] = (
    ended_as_allowed,
    failures_are_one_line,
    steps_are_whole,
    numbers_are_the_reference,
    episodes_are_counted_once,
    resumptions_are_events,
    steps_taken_back_are_kept,
    waits_are_bounded,
    nothing_is_left,
)
