"""Real helper processes: confined, killed, hung, forked, copied, and gone when their owner is."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from programs import run_program, start_program

from eapo_env.verifier import Status, Verdict, Verifier

pytestmark = pytest.mark.slow

SLOW = ("\\boxed{\\frac{\\sqrt{2}}{2}}", "\\frac{1}{\\sqrt{2}}")
BATCH = [
    SLOW,
    ("\\boxed{5}", "5"),
    ("\\boxed{x+1}", "x-1"),
    ("none", "5"),
    ("\\boxed{2x+3}", "3+2x"),
]
EXPECTED = [Status.CORRECT, Status.CORRECT, Status.WRONG, Status.WRONG, Status.CORRECT]


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier() as opened:
        yield opened


def statuses(verdicts: list[Verdict]) -> list[Status]:
    return [verdict.status for verdict in verdicts]


def helpers_of(parent: int) -> list[int]:
    """Return the pids of the helper processes of a process, from /proc."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
            parent_of = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if b"verifier_worker.py" in command and parent_of == parent:
            found.append(int(entry.name))
    return found


def wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.05)
    return False


def test_a_check_beyond_its_time_is_a_timeout_and_delays_nothing_after_it() -> None:
    with Verifier(time_limit_s=1e-4, num_workers=1) as verifier:
        verdicts = verifier.verify([SLOW, ("\\boxed{5}", "5"), ("\\boxed{2x+3}", "3+2x")])
        assert statuses(verdicts) == [Status.TIMEOUT, Status.CORRECT, Status.TIMEOUT]


def test_a_verdict_is_remembered_and_given_to_equal_pairs() -> None:
    with Verifier(num_workers=1) as verifier:
        assert statuses(verifier.verify([SLOW, BATCH[2], SLOW])) == [
            Status.CORRECT,
            Status.WRONG,
            Status.CORRECT,
        ]
        (helper,) = helpers_of(os.getpid())[-1:]
        os.kill(helper, signal.SIGSTOP)
        try:
            assert statuses(verifier.verify([SLOW, BATCH[2]])) == [Status.CORRECT, Status.WRONG]
        finally:
            os.kill(helper, signal.SIGCONT)


def test_a_worker_goes_on_after_a_check_that_ended_its_child() -> None:
    """Checks share a child until one of them ends it; the next one gets a new child."""
    requests = [("a", "a"), ("spin", ""), ("a", "b"), ("crash", ""), *[("a", "a")] * 250]
    expected = ["correct", "timeout", "wrong", "too_complex", *["correct"] * 250]
    assert answered(requests, wall_s=60) == expected


def answered(requests: Sequence[tuple[str, str]], *, wall_s: float) -> list[str]:
    """Return the statuses of a worker whose checks misbehave as their answers say."""
    found = []
    with start_program("confined_checks.py", str(wall_s), stdin=subprocess.PIPE) as service:
        assert service.stdin is not None
        assert service.stdout is not None
        assert service.stdout.readline() == "ready\n"
        for request in requests:
            service.stdin.write(json.dumps(request) + "\n")
            service.stdin.flush()
            assert service.stdout.readline() == "ack\n"
            found.append(service.stdout.readline().strip())
        service.stdin.close()
        assert service.wait() == 0
    return found


def test_a_check_is_confined(tmp_path: Path) -> None:
    """What a check may not do ends that check alone, with its own status."""
    target = str(tmp_path / "written")
    expected = {
        ("memory", ""): "memory",
        ("spin", ""): "timeout",
        ("write", target): "wrong",
        ("crash", ""): "too_complex",
        ("recurse", ""): "too_complex",
        ("a", "a"): "correct",
        ("a", "b"): "wrong",
    }
    assert answered([*expected], wall_s=60) == [*expected.values()]
    assert not Path(target).exists()


def test_a_check_that_only_waits_is_ended_by_the_clock_on_the_wall() -> None:
    assert answered([("sleep", ""), ("a", "a")], wall_s=0.5) == ["timeout", "correct"]


@pytest.mark.parametrize("stroke", [signal.SIGKILL, signal.SIGSTOP])
def test_a_killed_or_hung_worker_changes_no_verdict(stroke: signal.Signals) -> None:
    others = set(helpers_of(os.getpid()))
    with Verifier(num_workers=1) as verifier:
        assert verifier.verify([SLOW])[0].correct
        (helper,) = set(helpers_of(os.getpid())) - others
        os.kill(helper, stroke)
        assert statuses(verifier.verify(BATCH)) == EXPECTED
        assert wait_until_gone(helper)


def test_a_copy_is_equal_and_unstarted(verifier: Verifier) -> None:
    assert verifier.verify([SLOW])[0].correct
    before = set(helpers_of(os.getpid()))
    for twin in (pickle.loads(pickle.dumps(verifier)), copy.deepcopy(verifier)):
        assert twin == verifier
        assert hash(twin) == hash(verifier)
    assert set(helpers_of(os.getpid())) == before
    with twin:
        assert twin.verify([SLOW])[0].correct
        assert set(helpers_of(os.getpid())) > before
    assert set(helpers_of(os.getpid())) == before


def test_a_closed_verifier_can_be_used_again() -> None:
    verifier = Verifier(num_workers=1)
    for _ in range(2):
        assert verifier.verify([SLOW])[0].correct
        verifier.close()


def in_fork(verifier: Verifier, connection: Connection) -> None:
    verdicts = statuses(verifier.verify(BATCH))
    connection.send((verdicts, len(helpers_of(os.getpid())) > 0))
    verifier.close()


def test_a_started_verifier_survives_a_fork() -> None:
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    with Verifier(num_workers=1) as verifier, here, there:
        assert verifier.verify([SLOW])[0].correct
        child = context.Process(target=in_fork, args=(verifier, there))
        child.start()
        assert here.poll(60)
        assert here.recv() == (EXPECTED, True)
        child.join()
        child.close()
        assert statuses(verifier.verify(BATCH)) == EXPECTED


@pytest.mark.parametrize("end", ["exit", "die"])
def test_no_process_outlives_its_parent(end: str, tmp_path: Path) -> None:
    done = run_program("verifier_left_open.py", end, cwd=tmp_path, stdin=subprocess.DEVNULL)
    assert done.returncode == (0 if end == "exit" else -signal.SIGKILL)
    assert done.stderr == ""
    assert wait_until_gone(int(done.stdout))


def test_no_descriptor_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Verifier() as verifier:
        assert verifier.verify([SLOW, SLOW])[0].correct
        assert len(os.listdir("/proc/self/fd")) > before
    assert len(os.listdir("/proc/self/fd")) == before
