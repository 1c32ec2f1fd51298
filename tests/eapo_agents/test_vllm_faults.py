"""A policy's server that is killed during a training: one sentence, and the run goes on later."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("vllm")

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from eapo_agents.char_tokenizer import char_tokenizer
from eapo_agents.serve_policy import ServedPolicy

ROOT = Path(__file__).parents[2]
PATIENCE_S = 240.0


@pytest.fixture
def llama(tmp_path: Path) -> str:
    """A model that guesses: it knows nothing of the format, and every answer is cut short."""
    torch.manual_seed(0)
    tokenizer = char_tokenizer()
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=160,
        initializer_range=0.1,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder = tmp_path / "llama"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def training(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "eapo_agents.cli", "train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def wait_until(come: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not come():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoints/step-*"))


@pytest.mark.timeout(900)  # two servers and two trainings start
def test_a_server_killed_in_a_step_is_one_sentence_and_the_run_goes_on(
    llama: str, tiny_settings: list[str], tmp_path: Path
) -> None:
    server = ServedPolicy(model=llama, port=free_port(), dtype="float32", max_num_seqs=32)
    settings = [
        *(one for one in tiny_settings if not one.startswith("model.path")),
        f"model.path={llama}",
        "steps=100000",
        "annealing.steps=100000",
        "checkpoint_every=1",
    ]
    given = [part for one in settings for part in ("--set", one)]
    folder = tmp_path / "runs" / "tiny-1"
    with server.run() as running:
        given += server.setting.split()
        with training("embedded", *given, "--runs", str(folder.parent)) as process:
            wait_until(lambda: len(checkpoints(folder)) == 2, process)
            running.kill()
            _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert "Traceback" not in told
    [sentence] = [line for line in told.splitlines() if line.startswith("eapo: ")]
    assert f"the policy server {server.base_url} " in sentence
    newest = checkpoints(folder)[-1]
    step = int(newest.removeprefix("step-"))
    assert f"This was training step {step + 1}; {folder} can go on from {newest}" in sentence

    with server.run(), training("--resume", str(folder)) as process:
        wait_until(lambda: checkpoints(folder)[-1] > newest, process)
        process.send_signal(signal.SIGINT)
        said, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, told
    assert "interrupted; go on with" in said


def test_without_its_server_a_run_does_not_go_on(
    llama: str, tiny_settings: list[str], tmp_path: Path
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    settings = [
        *(one for one in tiny_settings if not one.startswith("model.path")),
        *(f"model.path={llama}", "model.engine=vllm-server", f"policy_server.base_url={nobody}"),
    ]
    given = [part for one in settings for part in ("--set", one)]
    with training("embedded", *given, "--runs", str(tmp_path / "runs")) as process:
        _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert f"eapo: the policy server {nobody} does not answer" in told
