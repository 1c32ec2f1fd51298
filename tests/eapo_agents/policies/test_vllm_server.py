"""The policy on two real vLLM servers, started as users start them."""

from __future__ import annotations

import asyncio
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

pytest.importorskip("vllm")

from command import settings_printed, started
from tiny_llama import saved, tiny_llama
from transformers import PreTrainedModel

from eapo_agents.learning.learner import Learner
from eapo_agents.learning.settings import LearnerSettings
from eapo_agents.learning.sync_probe import SyncProbe
from eapo_agents.policies.policy import Completion, PolicyError, Sampling
from eapo_agents.policies.vllm_server import VLLMServerEngine, VLLMServerPolicy
from eapo_agents.serving.process import ServerError, free_port
from eapo_agents.serving.weight_transfer import NCCLTransfer, nccl_source
from eapo_agents.testing import check_policy
from eapo_agents.training.build import policy_of
from eapo_agents.training.config import TrainConfig, with_settings
from eapo_agents.training.run_folder import Run
from eapo_agents.training.trainer import Trainer

PROMPT = [5 + number % 90 for number in range(100)]
LONG = 4000


llama = partial(tiny_llama, max_position_embeddings=LONG + 200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(saved(llama(), tmp_path_factory.mktemp("policy")))


@pytest.fixture(scope="module")
def settings(folder: str) -> Iterator[list[str]]:
    """The settings that `eapo serve-policy` prints."""
    options = ["--port", str(free_port()), "--dtype", "float32", "--max-num-seqs", "32"]
    options += ["--replicas", "2"]
    with started("serve-policy", folder, *options, stderr=None) as process:
        yield settings_printed(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0


@pytest.fixture(scope="module")
def server(settings: list[str]) -> VLLMServerEngine:
    engine = with_settings(TrainConfig(), settings).engine
    assert isinstance(engine, VLLMServerEngine)
    return engine


@pytest.fixture
def policy(folder: str, server: VLLMServerEngine) -> Iterator[VLLMServerPolicy]:
    """The server with the weights it was made from."""
    with closing(VLLMServerPolicy(folder, server)) as one:
        one.load_weights(llama().state_dict())
        yield one


def learner_of(model: PreTrainedModel) -> Learner:
    return Learner(model, settings=LearnerSettings(device="cpu"))


def test_the_policy_keeps_the_protocol(policy: VLLMServerPolicy) -> None:
    asyncio.run(check_policy(policy, PROMPT))


def test_sampler_and_learner_agree_before_and_after_new_weights(policy: VLLMServerPolicy) -> None:
    probe, old, new = SyncProbe(tolerance=1e-4), learner_of(llama()), learner_of(llama(1))
    assert asyncio.run(probe.check(policy, old)) < 1e-4
    before = asyncio.run(policy.complete(PROMPT, Sampling(max_tokens=16), 3))
    policy.load_weights(new.model.state_dict())
    assert asyncio.run(probe.check(policy, new)) < 1e-4
    with pytest.raises(PolicyError, match="does not sample from the learner's weights"):
        asyncio.run(probe.check(policy, old))
    after = asyncio.run(policy.complete(PROMPT, Sampling(max_tokens=16), 3))
    assert before.token_ids != after.token_ids


def test_tied_weights_may_be_named_once_and_others_must_fit(policy: VLLMServerPolicy) -> None:
    weights = dict(llama(2).named_parameters())
    assert "lm_head.weight" not in weights
    policy.load_weights(weights)
    assert asyncio.run(SyncProbe(tolerance=1e-4).check(policy, learner_of(llama(2)))) < 1e-4
    with pytest.raises(ValueError, match=r"missing \['model.norm.weight'"):
        policy.load_weights({k: v for k, v in weights.items() if k != "model.norm.weight"})


def test_a_seed_samples_the_same_ids_on_either_server(policy: VLLMServerPolicy) -> None:
    async def on_each(seed: int) -> list[Completion]:
        sampling = Sampling(max_tokens=24)
        one, other = policy.replicas
        return [await server.complete(PROMPT, sampling, seed) for server in (one, other)]

    for seed in range(4):
        one, other = asyncio.run(on_each(seed))
        assert one.token_ids == other.token_ids
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-6)


def running_requests(server: VLLMServerEngine) -> float:
    running = 0.0
    for url in server.base_urls:
        with urllib.request.urlopen(f"{url}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        [line] = [line for line in lines if line.startswith("vllm:num_requests_running")]
        running += float(line.split()[-1])
    return running


async def until(server: VLLMServerEngine, wanted: float) -> None:
    while await asyncio.to_thread(running_requests, server) != wanted:
        await asyncio.sleep(0.05)


def test_cancelling_frees_the_server(policy: VLLMServerPolicy, server: VLLMServerEngine) -> None:
    """Eight completions of thousands of ids are cancelled: the server has none left.

    The likeliest ids of a random model go round in a circle and never end by themselves.
    """

    async def run() -> None:
        long = Sampling(max_tokens=LONG, temperature=0.0)
        tasks = [asyncio.ensure_future(policy.complete([5 + n], long, n)) for n in range(8)]
        async with asyncio.timeout(120):
            while await asyncio.to_thread(running_requests, server) == 0:
                assert not all(task.done() for task in tasks)
        with pytest.raises(ValueError, match=r"cannot load weights: \d completions? in progress"):
            policy.load_weights(llama().state_dict())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(120):
            await until(server, 0.0)
        await policy.complete(PROMPT, Sampling(max_tokens=4), 0)

    asyncio.run(run())


def test_a_server_that_is_not_there_is_an_error(folder: str) -> None:
    nobody = VLLMServerEngine(base_urls=(f"http://127.0.0.1:{free_port()}",))
    with pytest.raises(ServerError, match="does not answer"):
        VLLMServerPolicy(folder, nobody)


def test_a_server_that_went_away_takes_no_weights(folder: str) -> None:
    class Models(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"data": [{"id": "policy", "max_model_len": 99}]}')

    with HTTPServer(("127.0.0.1", 0), Models) as http:
        root = f"http://127.0.0.1:{http.server_port}"
        answering = Thread(target=http.handle_request)
        answering.start()
        policy = VLLMServerPolicy(folder, VLLMServerEngine(base_urls=(root,)))
        answering.join()
    with pytest.raises(PolicyError, match=f"not accepted: the policy server {root} "):
        policy.load_weights(llama().state_dict())


@pytest.mark.parametrize("wrong", [{"base_urls": ("127.0.0.1:8100",)}, {"call_timeout_s": 0.0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must"):
        VLLMServerEngine(**wrong)  # type: ignore[arg-type]


def test_training_on_the_server_hands_over_and_evaluation_puts_its_own_weights_in(
    tiny_config: TrainConfig, folder: str, settings: list[str], tmp_path: Path
) -> None:
    config = with_settings(
        tiny_config,
        [*settings, f"model.path={folder}", "steps=2", "sync.tolerance=1e-4", "checkpoint_every=2"],
    )
    run = Run.create(config, tmp_path)
    with closing(Trainer.from_config(config)) as trainer:
        assert trainer.train(run)
    assert all(row["sync_gap"] < 1e-4 for row in run.metrics)
    with closing(policy_of(config)) as policy:  # the start's weights, not those of the run's end
        assert asyncio.run(SyncProbe(tolerance=1e-4).check(policy, learner_of(llama()))) < 1e-4


def test_a_step_is_played_on_the_server_while_the_one_before_is_learned(
    tiny_config: TrainConfig, folder: str, settings: list[str], tmp_path: Path
) -> None:
    more = ["steps=3", "sync.tolerance=1e-4", "rollout.steps_ahead=1", "rollout.sampling.keep=all"]
    config = with_settings(tiny_config, [*settings, f"model.path={folder}", *more])
    run = Run.create(config, tmp_path)
    with closing(Trainer.from_config(config)) as trainer:
        assert trainer.train(run)
    assert all(row["sync_gap"] < 1e-4 for row in run.metrics)
    assert [row["staleness"] for row in run.metrics] == [0, 1, 1]


def test_the_nccl_source_says_what_it_will_send(server: VLLMServerEngine) -> None:
    """What can be seen of it without GPUs: names, types and shapes, and the number of workers."""
    source, weights = nccl_source(), llama().state_dict()
    source.weights = weights
    said = [(meta.name, meta.dtype, meta.shape) for meta in source.metadata()]
    assert said == [(name, one.dtype, tuple(one.shape)) for name, one in source]
    transfer = VLLMServerEngine(base_urls=server.base_urls, transfer="nccl").weight_transfer
    assert isinstance(transfer, NCCLTransfer)
    assert transfer.control.world_size() == 2
