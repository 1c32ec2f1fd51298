"""Each invariant of the soak holds of a run folder of training, and not of a doctored one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.soak.faults import Fault, plan
from tests.soak.invariants import Row, Session, Trained, read_rows, violations

START = datetime(2026, 1, 1, tzinfo=UTC)
GROUP, PROBLEMS, STEPS = 2, 3, 4
KILL = Fault(target="trainer", kind="kill", at_step=3, delay_s=0.0, lasts_s=0.0)
FULL = Fault(target="disk", kind="nothing fits", at_step=3, delay_s=0.0, lasts_s=1.0)

Doctor = Callable[[Trained], Trained | None]


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def row(step: int, **changes: Any) -> Row:
    waited = {"expert_failure_rate": 0.0, "expert_errors": 0.0, "seconds/expert_p95": 0.1}
    return {"step": step, "loss": step / 7, "problems_used": 1.0, **waited, **changes}


def write_rows(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    """A training of four steps that was killed after the third, and resumed from the second."""
    run, temporary = tmp_path / "run", tmp_path / "tmp"
    temporary.mkdir()
    config = {"steps": STEPS, "rollout": {"group_size": GROUP}, "experts": {"batch_timeout_s": 2.0}}
    write_json(run / "config.json", config)
    rows = [row(step) for step in range(1, STEPS + 1)]
    write_rows(run / "metrics.jsonl", rows)
    write_rows(run / "superseded" / "metrics.jsonl", [row(3)])
    for step in range(1, STEPS + 1):
        name = f"p{(step - 1) % PROBLEMS}"
        episodes = [{"problem_id": name, "member": member} for member in range(GROUP)]
        write_rows(run / "transcripts" / f"step-{step:06d}.jsonl", episodes)
    for step in (2, 4):
        write_json(
            run / "checkpoints" / f"step-{step:06d}" / "state.json", {"step": step, "cursor": step}
        )
    events = [
        {"time": at(1).isoformat(), "event": "started", "step": 0},
        {"time": at(11).isoformat(), "event": "changed", "step": 3, "settings": {}},
        {"time": at(12).isoformat(), "event": "resumed", "step": 2, "superseded": 1},
        {"time": at(19).isoformat(), "event": "finished", "step": STEPS},
    ]
    write_rows(run / "events.jsonl", events)
    sessions = (
        Session(began=at(0), ended=at(9), faults=(KILL,), status=-9, steps_taken=3),
        Session(began=at(10), ended=at(20), steps_taken=2, changed=True),
    )
    return Trained(run=run, temporary=temporary, sessions=sessions, reference=tuple(rows))


def test_what_training_leaves_violates_nothing(trained: Trained) -> None:
    assert violations(trained) == []


def last_session(trained: Trained, **changes: Any) -> Trained:
    *before, last = trained.sessions
    return replace(trained, sessions=(*before, replace(last, **changes)))


def with_metrics(trained: Trained, number: int, **changes: Any) -> None:
    rows = trained.metrics
    rows[number] |= changes
    write_rows(trained.run / "metrics.jsonl", rows)


def without_event(trained: Trained, name: str) -> None:
    kept = [event for event in trained.events if event["event"] != name]
    write_rows(trained.run / "events.jsonl", kept)


def without_a_step(trained: Trained) -> None:
    write_rows(trained.run / "metrics.jsonl", trained.metrics[:2] + trained.metrics[3:])


def with_a_step_twice(trained: Trained) -> None:
    write_rows(trained.run / "metrics.jsonl", trained.metrics[:3] + trained.metrics[2:])


def with_superseded(trained: Trained, *rows: Row) -> None:
    write_rows(trained.run / "superseded" / "metrics.jsonl", list(rows))


def with_another_cursor(trained: Trained) -> None:
    path = trained.run / "checkpoints" / "step-000004" / "state.json"
    write_json(path, {"step": 4, "cursor": 5})


def with_episodes(trained: Trained, step: int, *episodes: tuple[str, int]) -> None:
    rows = [{"problem_id": name, "member": member} for name, member in episodes]
    write_rows(trained.run / "transcripts" / f"step-{step:06d}.jsonl", rows)


def with_a_file(path: Path) -> None:
    path.write_text("half")


DOCTORS: list[tuple[str, Doctor]] = [
    ("ended_as_allowed", lambda t: last_session(t, status=1)),
    ("ended_as_allowed", lambda t: last_session(t, status=2)),
    ("ended_as_allowed", lambda t: last_session(t, status=None)),
    ("ended_as_allowed", lambda t: last_session(t, faults=(FULL,), status=2)),
    ("failures_are_one_line", lambda t: last_session(t, stderr="Traceback (most recent call")),
    ("failures_are_one_line", lambda t: last_session(t, stderr="Exception ignored in: <x>")),
    ("failures_are_one_line", lambda t: last_session(t, status=2, faults=(FULL,))),
    ("steps_are_whole", without_a_step),
    ("steps_are_whole", with_a_step_twice),
    ("numbers_are_the_reference", lambda t: with_metrics(t, 3, loss=0.5)),
    ("numbers_are_the_reference", lambda t: with_metrics(t, 3, another=0.5)),
    ("numbers_are_the_reference", lambda t: with_superseded(t, row(3, loss=0.5))),
    ("episodes_are_counted_once", with_another_cursor),
    ("episodes_are_counted_once", lambda t: with_metrics(t, 1, problems_used=2.0)),
    ("episodes_are_counted_once", lambda t: with_episodes(t, 2, ("p1", 0))),
    ("episodes_are_counted_once", lambda t: with_episodes(t, 2, ("p1", 0), ("p1", 0))),
    ("episodes_are_counted_once", lambda t: with_episodes(t, 2, ("p0", 0), ("p0", 1))),
    ("resumptions_are_events", lambda t: without_event(t, "resumed")),
    ("resumptions_are_events", lambda t: without_event(t, "changed")),
    ("resumptions_are_events", lambda t: without_event(t, "finished")),
    ("resumptions_are_events", lambda t: last_session(t, began=at(13))),
    ("steps_taken_back_are_kept", with_superseded),
    ("steps_taken_back_are_kept", lambda t: with_superseded(t, row(3), row(3))),
    ("steps_taken_back_are_kept", lambda t: last_session(t, steps_taken=-1)),
    ("waits_are_bounded", lambda t: with_metrics(t, 2, **{"seconds/expert_p95": 19.5})),
    ("waits_are_bounded", lambda t: last_session(t, stop_s=21.0)),
    ("nothing_is_left", lambda t: last_session(t, orphans=("python worker",))),
    ("nothing_is_left", lambda t: with_a_file(t.run / ".unfinished-config.json")),
    ("nothing_is_left", lambda t: with_a_file(t.temporary / "tmpabc")),
    ("the run folder cannot be read", lambda t: with_a_file(t.run / "metrics.jsonl")),
]


@pytest.mark.parametrize(
    ("name", "doctor"), DOCTORS, ids=[f"{n}-{name}" for n, (name, _) in enumerate(DOCTORS)]
)
def test_each_invariant_fails_on_a_doctored_run(
    trained: Trained, name: str, doctor: Doctor
) -> None:
    doctored = doctor(trained) or trained
    assert name in {one.partition(":")[0] for one in violations(doctored)}


def test_a_failed_reply_explains_what_differs_from_there_on(trained: Trained) -> None:
    with_metrics(trained, 2, expert_failure_rate=0.25, loss=0.5)
    with_metrics(trained, 3, loss=0.5)
    assert violations(trained) == []


def test_a_session_killed_between_moving_steps_and_its_event_is_forgiven(trained: Trained) -> None:
    """It leaves steps in `superseded` without an event, and takes none."""
    with_superseded(trained, row(3), row(3))
    first, last = trained.sessions
    killed = replace(first, began=at(9.1), ended=at(9.9), steps_taken=0)
    assert violations(replace(trained, sessions=(first, killed, last))) == []


def test_a_plan_follows_from_its_seed() -> None:
    assert plan(1, 0, 0, "hf") == plan(1, 0, 0, "hf") != plan(2, 0, 0, "hf")
    calm = [fault for n in range(0, 20, 2) for fault in plan(1, 1, n, "vllm-server")]
    assert {fault.kind for fault in calm if fault.target == "experts"} == {"slow"}
    assert {fault.target for fault in plan(1, 0, 1, "hf")} <= {"trainer", "disk", "experts"}


def test_a_cut_line_is_no_row(tmp_path: Path) -> None:
    with_a_file(tmp_path / "rows.jsonl")
    with pytest.raises(ValueError, match="Expecting value"):
        read_rows(tmp_path / "rows.jsonl")
