"""Verdicts: graded cases, hostile answers, and real worker processes that hang, die and fork."""

from __future__ import annotations

import asyncio
import copy
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eapo_env.verifier import Status, Verdict, Verifier, check_gold

CASES = Path(__file__).parent / "data" / "verifier_cases.jsonl"
SLOW = ("\\boxed{\\frac{\\sqrt{2}}{2}}", "\\frac{1}{\\sqrt{2}}")
BOMB = ("\\boxed{\\Gamma(10^{9})}", "x")
MIXED = [
    SLOW,
    ("\\boxed{5}", "5"),
    ("\\boxed{x+1}", "x-1"),
    ("no answer here", "5"),
    ("\\boxed{9^{9^{9}}}", "1"),
    ("\\boxed{2x+3}", "3+2x"),
    ("Answer: 6", "5"),
]
MIXED_STATUSES = [
    Status.CORRECT,
    Status.CORRECT,
    Status.WRONG,
    Status.NO_ANSWER,
    Status.TOO_COMPLEX,
    Status.CORRECT,
    Status.WRONG,
]


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


def test_graded_cases(verifier: Verifier) -> None:
    cases = [json.loads(line) for line in CASES.read_text().splitlines()]
    bare = [c for c in cases if c["kind"] == "bare"]
    whole = [c for c in cases if c["kind"] == "response"]
    boxed = verifier.verify([(f"So \\boxed{{{c['answer']}}}.", c["gold"]) for c in bare])
    some = bare[::5]
    assert verifier.equivalent([(c["answer"], c["gold"]) for c in some]) == boxed[::5]
    wrong = [c for c, v in zip(bare, boxed, strict=True) if v.correct != c["expected"]]
    verdicts = verifier.verify([(c["answer"], c["gold"]) for c in whole])
    wrong += [c for c, v in zip(whole, verdicts, strict=True) if v.correct != c["expected"]]
    assert wrong == []


def test_no_answer_is_executed(verifier: Verifier, tmp_path: Path) -> None:
    target = tmp_path / "written"
    for text in (
        f"__import__('os').system('touch {target}')",
        f"open('{target}', 'w')",
        f"exec(\"open('{target}','w')\")",
        f"\\immediate\\write18{{touch {target}}}",
        f'sympify(\'open("{target}", "w")\')',
        f"x + open({target}, w)",
    ):
        for response in (f"\\boxed{{{text}}}", f"Answer: {text}", text):
            assert not verifier.verify([(response, "0")])[0].correct
    assert not target.exists()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.text(st.characters(), max_size=60), gold=st.text(st.characters(), max_size=20))
def test_no_text_raises(verifier: Verifier, text: str, gold: str) -> None:
    for response in (text, f"\\boxed{{{text}}}", f"Answer: {text}"):
        assert isinstance(verifier.verify([(response, gold)])[0], Verdict)


numbers = st.one_of(
    st.integers(-999, 999).map(str),
    st.fractions(max_denominator=99).map(lambda f: f"\\frac{{{f.numerator}}}{{{f.denominator}}}"),
)
expressions = st.recursive(
    st.one_of(numbers.map(lambda n: f"({n})"), st.sampled_from(["x", "y", "\\pi", "\\sqrt{2}"])),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "\\cdot "]), inner).map(
            lambda t: f"({t[0]}{t[1]}{t[2]})"
        ),
        inner.map(lambda e: f"{e}^{{2}}"),
        inner.map(lambda e: f"\\sin({e})"),
    ),
    max_leaves=5,
)


@settings(max_examples=15, deadline=None)
@given(expression=expressions)
def test_an_expression_equals_itself_rewritten(verifier: Verifier, expression: str) -> None:
    pairs = [
        (f"\\boxed{{{expression}}}", expression),
        (f"\\boxed{{0+{expression}}}", expression),
        (f"\\boxed{{{expression}+1}}", expression),
    ]
    verdicts = verifier.verify(pairs)
    assert verdicts[0].correct
    assert [v.correct for v in verdicts[1:]] in ([True, False], [False, False])


def test_statuses_and_order(verifier: Verifier) -> None:
    assert statuses(verifier.verify(MIXED)) == MIXED_STATUSES
    assert [v.correct for v in verifier.verify(MIXED)] == [s == "correct" for s in MIXED_STATUSES]


def test_an_unevaluated_closed_form_is_wrong_for_an_integer(verifier: Verifier) -> None:
    forms = ["2^{10}", "\\sum_{k=1}^{1024} 1", "\\binom{1024}{1}", "2^{10}+0"]
    verdicts = verifier.equivalent([(form, "1024") for form in forms])
    assert statuses(verdicts) == [Status.WRONG] * 4
    assert verifier.equivalent([("1024", "2^{10}")])[0].correct


def test_a_check_beyond_its_time_is_a_timeout_and_delays_nothing_after_it() -> None:
    with Verifier(time_limit_s=0.3, num_workers=1) as verifier:
        verdicts = verifier.verify([BOMB, SLOW, BOMB, SLOW])
        assert statuses(verdicts) == [Status.TIMEOUT, Status.CORRECT] * 2


SERVICE = """
import os, sys, time
from eapo_env.verifier_worker import serve
def check(answer, gold):
    match answer:
        case "memory": return bytearray(2**31) is None
        case "spin":
            while True: pass
        case "sleep": time.sleep(60)
        case "write": return open(gold, "w") is not None
        case "crash": os.kill(os.getpid(), 11)
        case "recurse": return check(answer, gold)
    return answer == gold
serve(check, cpu_s=0.4, memory_bytes=2**30, channel=1)
"""


def test_a_check_is_confined(tmp_path: Path) -> None:
    """What a check may not do ends that check alone, with its own status."""
    target = str(tmp_path / "written")
    expected = {
        ("memory", ""): "memory",
        ("spin", ""): "timeout",
        ("sleep", ""): "timeout",
        ("write", target): "wrong",
        ("crash", ""): "too_complex",
        ("recurse", ""): "too_complex",
        ("a", "a"): "correct",
        ("a", "b"): "wrong",
    }
    with subprocess.Popen(
        [sys.executable, "-c", SERVICE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as service:
        assert service.stdin is not None
        assert service.stdout is not None
        assert service.stdout.readline() == "ready\n"
        for request, status in expected.items():
            service.stdin.write(json.dumps(request) + "\n")
            service.stdin.flush()
            assert service.stdout.readline() == "ack\n"
            assert (request, service.stdout.readline()) == (request, status + "\n")
        service.stdin.close()
        assert service.wait() == 0
    assert not Path(target).exists()


@pytest.mark.parametrize("stroke", [signal.SIGKILL, signal.SIGSTOP])
def test_a_killed_or_hung_worker_changes_no_verdict(stroke: signal.Signals) -> None:
    others = set(helpers_of(os.getpid()))
    with Verifier(num_workers=1) as verifier:
        assert verifier.verify([SLOW])[0].correct
        (helper,) = set(helpers_of(os.getpid())) - others
        os.kill(helper, stroke)
        assert statuses(verifier.verify(MIXED)) == MIXED_STATUSES
        assert wait_until_gone(helper)


def test_threads_and_event_loop_agree_with_serial(verifier: Verifier) -> None:
    batches = [MIXED[i:] + MIXED[:i] for i in range(7)] + [MIXED]
    serial = [verifier.verify(batch) for batch in batches]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(verifier.verify, batches)) == serial

    async def gathered() -> list[list[Verdict]]:
        return await asyncio.gather(*map(verifier.averify, batches))

    assert asyncio.run(gathered()) == serial


def test_a_verifier_works_inside_a_running_loop(verifier: Verifier) -> None:
    async def inside() -> list[Verdict]:
        return verifier.verify(MIXED)

    assert statuses(asyncio.run(inside())) == MIXED_STATUSES


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


def in_fork(verifier: Verifier, connection: object) -> None:
    connection.send(statuses(verifier.verify(MIXED)))  # type: ignore[attr-defined]
    verifier.close()


def test_a_started_verifier_survives_a_fork(verifier: Verifier) -> None:
    assert verifier.verify([SLOW])[0].correct
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=in_fork, args=(verifier, there))
    child.start()
    assert here.poll(60)
    assert here.recv() == MIXED_STATUSES
    child.join()
    here.close()
    there.close()
    child.close()
    assert statuses(verifier.verify(MIXED)) == MIXED_STATUSES


PROGRAM = """
import os, sys
from eapo_env.verifier import Verifier
verifier = Verifier()
assert verifier.verify([(r"\\boxed{x+1}", "1+x")])[0].correct
print(verifier._pool._idle[0].process.pid, flush=True)
if sys.argv[1] == "die":
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("end", ["exit", "die"])
def test_no_process_outlives_its_parent(end: str, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, end],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (0 if end == "exit" else -signal.SIGKILL)
    assert done.stderr == ""
    assert wait_until_gone(int(done.stdout))


def test_no_descriptor_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Verifier() as verifier:
        assert verifier.verify([SLOW, SLOW])[0].correct
        assert len(os.listdir("/proc/self/fd")) > before
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "gold", ["204", "007", "\\frac{1}{2}", "x^2+1", "(1,2)", "\\text{Monday}", "B", "2^{2005}"]
)
def test_a_valid_gold_is_accepted_and_equals_itself(verifier: Verifier, gold: str) -> None:
    check_gold(gold)
    assert verifier.verify([(f"\\boxed{{{gold}}}", gold)])[0].correct


@pytest.mark.parametrize("gold", ["", "  ", "$", "\\,", "9^{9^{9}}", "\\frac{1}{2", "x" * 3000])
def test_an_unreadable_gold_is_an_error(gold: str) -> None:
    with pytest.raises(ValueError, match="answer"):
        check_gold(gold)


@pytest.mark.parametrize("name", ["time_limit_s", "memory_limit_bytes", "num_workers"])
def test_settings_must_be_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be positive, not 0"):
        Verifier(**{name: 0})
