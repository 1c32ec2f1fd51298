"""Two workers share the model: for real, as two processes of one CPU each."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shlex
import signal
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import pytest

pytest.importorskip("vllm")

from tiny_llama import saved, tiny_llama

from eapo_agents.learning.learner import Learner
from eapo_agents.learning.settings import LearnerSettings
from eapo_agents.learning.sync_probe import SyncProbe
from eapo_agents.policies.policy import PolicyError, Sampling
from eapo_agents.policies.vllm import VLLMEngine, VLLMPolicy
from eapo_agents.policies.vllm_server import VLLMServerEngine, VLLMServerPolicy
from eapo_agents.serving.policy_server import PolicyServers
from eapo_agents.serving.process import free_port
from eapo_agents.testing import check_policy
from eapo_agents.training.config import TrainConfig, with_settings

PROMPT = [5 + number % 90 for number in range(100)]
PROBE = SyncProbe(tolerance=1e-4)


llama = partial(tiny_llama, num_key_value_heads=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(saved(llama(), tmp_path_factory.mktemp("llama")))


def learner_of(seed: int) -> Learner:
    return Learner(llama(seed), settings=LearnerSettings(device="cpu"))


def check_hand_over(policy: VLLMPolicy | VLLMServerPolicy) -> None:
    """The policy takes two sets of weights, and agrees with the learner of each and no other."""
    for seed in (0, 1):
        policy.load_weights(llama(seed).state_dict())
        assert asyncio.run(PROBE.check(policy, learner_of(seed))) < 1e-4
    with pytest.raises(PolicyError, match="does not sample from the learner's weights"):
        asyncio.run(PROBE.check(policy, learner_of(0)))


async def until_it_fails(policy: VLLMPolicy) -> None:
    async with asyncio.timeout(120):
        while True:
            asked = (policy.complete(PROMPT, Sampling(max_tokens=100), n) for n in range(16))
            await asyncio.gather(*asked)


def test_an_engine_of_two_workers(folder: str) -> None:
    """It samples and takes weights as one worker does, outlives Ctrl-C, and fails as a whole."""
    settings = VLLMEngine(
        dtype="float32", max_batch=16, cache_bytes=32 << 20, tensor_parallel_size=2
    )
    before = set(multiprocessing.active_children())
    with closing(VLLMPolicy(folder, settings)) as policy:
        workers = [one for one in multiprocessing.active_children() if one not in before]
        assert len(workers) == 2
        check_hand_over(policy)
        asyncio.run(check_policy(policy, PROMPT))
        for worker in workers:
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGINT)  # as a terminal does
        done = asyncio.run(policy.complete(PROMPT, Sampling(max_tokens=20), 0))
        assert len(done.token_ids) == len(done.logprobs) >= 1

        workers[1].kill()
        with pytest.raises(PolicyError, match="the vLLM engine in this process failed"):
            asyncio.run(until_it_fails(policy))
        with pytest.raises(PolicyError, match="the vLLM engine in this process failed"):
            policy.load_weights(llama(0).state_dict())
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()


@pytest.fixture
def served(folder: str) -> Iterator[VLLMServerPolicy]:
    server = PolicyServers(
        model=folder, port=free_port(), dtype="float32", max_num_seqs=16, tensor_parallel_size=2
    )
    with server.run():
        engine = with_settings(TrainConfig(), shlex.split(server.setting)[1::2]).engine
        assert isinstance(engine, VLLMServerEngine)
        with closing(VLLMServerPolicy(folder, engine)) as policy:
            yield policy


def test_a_server_of_two_workers(served: VLLMServerPolicy) -> None:
    check_hand_over(served)
    asyncio.run(check_policy(served, PROMPT))
