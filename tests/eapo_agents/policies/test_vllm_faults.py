"""A policy's server that is killed during a training: one sentence, and the run goes on later."""

from __future__ import annotations

import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("vllm")

from command import as_options, eapo, started
from tiny_llama import saved, tiny_llama

from eapo_agents.serving.policy_server import PolicyServers
from eapo_agents.serving.process import free_port

PATIENCE_S = 240.0


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A model that guesses: it knows nothing of the format, and every answer is cut short."""
    return saved(tiny_llama(), tmp_path / "llama")


def wait_until(come: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not come():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoints/step-*"))


def test_a_server_killed_in_a_step_is_one_sentence_and_the_run_goes_on(
    llama: Path, settings_without_model: list[str], tmp_path: Path
) -> None:
    server = PolicyServers(model=str(llama), port=free_port(), dtype="float32", max_num_seqs=32)
    settings = [
        *settings_without_model,
        f"model.path={llama}",
        "steps=100000",
        "annealing.steps=100000",
        "checkpoint_every=1",
    ]
    folder = tmp_path / "runs" / "tiny-1"
    with server.run() as [running]:
        options = [
            *as_options(settings),
            *shlex.split(server.setting),
            "--runs",
            str(folder.parent),
        ]
        with started("train", "embedded", *options) as process:
            wait_until(lambda: len(checkpoints(folder)) == 2, process)
            running.kill()
            _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert "Traceback" not in told
    [sentence] = [line for line in told.splitlines() if line.startswith("eapo: ")]
    assert f"the policy server {server.base_urls[0]} " in sentence
    newest = checkpoints(folder)[-1]
    step = int(newest.removeprefix("step-"))
    assert f"This was training step {step + 1}; {folder} can be resumed from {newest}" in sentence

    with server.run(), started("train", "--resume", folder) as process:
        wait_until(lambda: checkpoints(folder)[-1] > newest, process)
        process.send_signal(signal.SIGINT)
        said, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, told
    assert "interrupted; resume with" in said


def test_without_its_server_a_run_does_not_go_on(
    llama: Path, settings_without_model: list[str], tmp_path: Path
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    settings = [
        *settings_without_model,
        *(f"model.path={llama}", "engine=vllm-server", f'engine.base_urls=["{nobody}"]'),
    ]
    done = eapo("train", "embedded", *as_options(settings), "--runs", tmp_path / "runs")
    assert done.returncode == 2
    assert f"eapo: the policy server {nobody} does not answer" in done.stderr
