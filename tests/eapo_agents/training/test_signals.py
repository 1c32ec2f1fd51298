"""Signals: what is under way ends in order, and the exit status of a command says which came."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

import pytest
from command import ROOT, as_options, started_forked

from eapo_agents.training.run_folder import Run
from eapo_agents.training.signals import interruption, termination

PATIENCE_S = 240.0
BOTH = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0)  # where a handler runs at the latest


@pytest.mark.parametrize(("number", "expected"), BOTH)
def test_a_signal_interrupts_and_gives_its_status(number: int, expected: int) -> None:
    before = signal.getsignal(number)
    with termination() as status:
        with pytest.raises(KeyboardInterrupt):
            send(number)
        assert status() == expected
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(("second", "expected"), BOTH)
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_of_either_kind_acts_at_once(
    first: int, second: int, expected: int
) -> None:
    with termination() as status:
        with interruption() as came:
            assert not came()
            send(first)
            assert came()
            with pytest.raises(KeyboardInterrupt):
                send(second)
        assert status() == (143 if first == signal.SIGTERM else expected)


@pytest.mark.parametrize(("number", "expected"), BOTH)
def test_work_that_ends_in_order_gives_the_same_status(number: int, expected: int) -> None:
    with termination() as status:
        with interruption() as came:
            send(number)
            assert came()
        assert status() == expected


def test_where_ctrl_c_is_ignored_sigterm_is_not() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does behind "&"
    try:
        with termination() as status:
            with pytest.raises(KeyboardInterrupt):
                send(signal.SIGTERM)
            assert status() == 143
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("number", "expected"), BOTH)
def test_an_interruption_that_python_ignores_comes_again(number: int, expected: int) -> None:
    class Ending:
        def __del__(self) -> None:
            send(number)

    def work() -> None:
        Ending()  # deleted at once, where Python ignores what is raised
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            time.sleep(0.001)

    before = sys.unraisablehook
    with termination() as status:
        with pytest.raises(KeyboardInterrupt):
            work()
        assert status() == expected
    assert sys.unraisablehook == before


def test_in_another_thread_nothing_is_installed() -> None:
    seen: list[bool] = []

    def work() -> None:
        with termination(), interruption() as came:
            seen.append(came())

    before = signal.getsignal(signal.SIGTERM)
    thread = Thread(target=work)
    thread.start()
    thread.join(PATIENCE_S)
    assert (seen, signal.getsignal(signal.SIGTERM)) == ([False], before)


# --- commands in processes of their own


def interrupted(
    arguments: Sequence[str], settings: Sequence[str], number: int, begun: Path
) -> tuple[int, str, str]:
    """Send a signal to a command once a file has two lines; return its status and its output."""
    with started_forked(*arguments, *as_options(settings)) as child:
        until = time.monotonic() + PATIENCE_S
        while not begun.exists() or begun.read_text("utf-8").count("\n") < 2:
            assert child.poll() is None, child.communicate()
            assert time.monotonic() < until
            time.sleep(0.01)
        child.send_signal(number)
        output, errors = child.communicate(timeout=PATIENCE_S)
        return child.wait(), output, errors


@pytest.mark.slow
def test_training_ends_with_a_checkpoint(tiny_settings: list[str], tmp_path: Path) -> None:
    settings = [*tiny_settings, "steps=5000", "checkpoint_every=5000"]
    begun = tmp_path / "tiny-1" / "metrics.jsonl"
    status, output, errors = interrupted(
        ["train", "--runs", str(tmp_path)], settings, signal.SIGTERM, begun
    )
    run = Run.open(tmp_path / "tiny-1")
    assert status == 143
    assert errors.strip().startswith("finishing this step")
    assert errors.count("step") == 1
    assert f"interrupted; resume with: eapo train --resume {run.folder}" in output
    assert [one.name for one in run.checkpoints] == [f"step-{len(run.metrics):06d}"]


def test_ctrl_c_while_python_ends_prints_no_traceback() -> None:
    code = (
        "import atexit, time; from eapo_agents.cli import main;"
        "atexit.register(lambda: (print('ending', flush=True), time.sleep(3600)));"
        "main(['settings'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as child:
        assert child.stdout is not None
        assert "ending\n" in iter(child.stdout.readline, "")
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=PATIENCE_S)
    assert (child.returncode, errors) == (-signal.SIGINT, "")


@pytest.mark.slow
def test_an_evaluation_keeps_what_is_finished(tiny_settings: list[str], tmp_path: Path) -> None:
    problems = tmp_path / "many.jsonl"
    rows = [json.dumps({"id": f"{n}", "problem": f"p{n % 24}", "answer": "3"}) for n in range(800)]
    problems.write_text("\n".join(rows), encoding="utf-8")
    [model] = [s.removeprefix("model.path=") for s in tiny_settings if s.startswith("model.path")]
    file = tmp_path / "report.json"
    status, output, errors = interrupted(
        ["evaluate", model, "--problems", str(problems), "--json", str(file)],
        ["evaluation.samples_per_problem=2", "engine.max_batch=1"],
        signal.SIGINT,
        begun=tmp_path / "report.json.partial",
    )
    assert (status, errors) == (130, "")
    assert "interrupted; the same command resumes" in output
    assert not file.exists()
