"""A policy on several servers: one server an episode, weights to all, failures by name.

The servers speak the protocol of `eapo serve-policy` and sample with transformers, one completion
at a time: what they sample does not depend on what else they do.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from policy_routes import PolicyRoutes, served
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from written_rollout import PROBLEM, TOKENIZER, rollout

from eapo_agents.learning.learner import Learner
from eapo_agents.learning.settings import LearnerSettings
from eapo_agents.learning.sync_probe import SyncProbe
from eapo_agents.policies.huggingface import HFPolicy
from eapo_agents.policies.policy import PolicyError, Sampling, replica_of, replicas
from eapo_agents.policies.vllm_server import VLLMServerEngine, VLLMServerPolicy
from eapo_agents.rollouts.trajectory import Group, Trajectory
from eapo_agents.serving.process import ServerError, free_port
from eapo_agents.serving.weight_transfer import Control, Controls
from eapo_agents.testing import ScriptedPolicy, check_policy
from eapo_env.types import Rules

GROUP, SEEDS = [Rules(turn_budget=3)] * 6, (5, 6)


class Servers:
    """Servers of a model, each with weights of its own, and the policy on all of them."""

    def __init__(self, model: Path, tokenizer: PreTrainedTokenizerFast, number: int) -> None:
        self.model = model
        self.models = [load(model) for _ in range(number)]
        self.routes = [PolicyRoutes(HFPolicy(one, tokenizer, max_batch=1)) for one in self.models]

    @contextmanager
    def policy(self, *more: str) -> Iterator[VLLMServerPolicy]:
        with ExitStack() as stack:
            roots = [stack.enter_context(served(one)) for one in self.routes]
            engine = VLLMServerEngine(base_urls=(*roots, *more))
            yield stack.enter_context(closing(VLLMServerPolicy(str(self.model), engine)))

    def prompts(self) -> list[list[tuple[int, ...]]]:
        """The prompts that each server was asked to complete."""
        asked = [routes.asked.get("/v1/completions", []) for routes in self.routes]
        return [[tuple(body["prompt"]) for body in bodies] for bodies in asked]


def load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder)


def played(policy: VLLMServerPolicy, seeds: Sequence[int]) -> list[Trajectory]:
    """The episodes of a group for each seed."""

    async def play() -> list[Group]:
        groups = (rollout(policy).play_group(PROBLEM, GROUP, seed=seed) for seed in seeds)
        return list(await asyncio.gather(*groups))

    return [episode for group in asyncio.run(play()) for episode in group.trajectories]


def prompts_in(episode: Trajectory) -> list[tuple[int, ...]]:
    """What the policy was asked to complete in an episode: all before each of its turns."""
    starts = np.flatnonzero(episode.mask[1:] & ~episode.mask[:-1]) + 1
    return [tuple(episode.token_ids[:start].tolist()) for start in starts]


def test_an_episode_keeps_to_one_server_and_is_the_same_on_any(
    tiny_model: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    one, three = (Servers(tiny_model, tokenizer, number) for number in (1, 3))
    with one.policy() as alone, three.policy() as shared:
        expected, found = (played(policy, SEEDS) for policy in (alone, shared))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours.token_ids, theirs.token_ids)
        np.testing.assert_array_equal(ours.logprobs, theirs.logprobs)
    assert any(len(prompts_in(episode)) > 1 for episode in found)
    numbers = [seed + member for seed in SEEDS for member in range(len(GROUP))]
    for server, prompts in enumerate(three.prompts()):
        own = [each for n, each in zip(numbers, found, strict=True) if n % 3 == server]
        assert len(own) == len(SEEDS) * 2, "a third of each group"
        assert Counter(prompts) == Counter(one for each in own for one in prompts_in(each))


def test_new_weights_reach_every_server_and_the_probe_asks_each(
    tiny_model: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    servers, trained = Servers(tiny_model, tokenizer, 2), load(tiny_model)
    trained.model.norm.weight.data.mul_(1.5)
    learner, probe = Learner(trained, settings=LearnerSettings(device="cpu")), SyncProbe()
    with servers.policy() as policy:
        with pytest.raises(PolicyError, match=r"replica [12] of 2 of the policy does not sample"):
            asyncio.run(probe.check(policy, learner))
        policy.load_weights(trained.state_dict())
        assert asyncio.run(probe.check(policy, learner)) < 1e-4
        servers.models[1].model.norm.weight.data.mul_(1.5)
        with pytest.raises(PolicyError, match="replica 2 of 2 of the policy does not sample"):
            asyncio.run(probe.check(policy, learner))
    resets = [len(routes.asked["/reset_prefix_cache"]) for routes in servers.routes]
    assert resets == [1, 1]


def test_the_policy_keeps_the_protocol(
    tiny_model: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    with Servers(tiny_model, tokenizer, 2).policy() as policy:
        asyncio.run(check_policy(policy, tokenizer.encode("What is 2+2?")))


def test_a_server_of_another_model_is_refused(
    tiny_model: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    servers = Servers(tiny_model, tokenizer, 1)
    other = PolicyRoutes(servers.routes[0].policy, name="another")
    with (
        served(other) as root,
        pytest.raises(
            ServerError, match=rf"serves 'policy' .*, and the .* {root} serves 'another'"
        ),
        servers.policy(root),
    ):
        pass


def test_a_server_that_is_not_there_is_named(
    tiny_model: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with (
        pytest.raises(ServerError, match=f"the policy server {nobody} does not answer"),
        Servers(tiny_model, tokenizer, 1).policy(nobody),
    ):
        pass


def test_a_server_that_dies_is_named_and_the_others_go_on(
    tiny_model: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    servers, prompt = Servers(tiny_model, tokenizer, 1), tokenizer.encode("2+2")
    with ExitStack() as life:
        dying = life.enter_context(served(Servers(tiny_model, tokenizer, 1).routes[0]))
        with servers.policy(dying) as policy:
            life.close()
            asyncio.run(policy.complete(prompt, Sampling(max_tokens=2), 0))
            with pytest.raises(PolicyError, match=f"^the policy server {dying} failed: Cannot"):
                asyncio.run(policy.complete(prompt, Sampling(max_tokens=2), 1))
            with pytest.raises(
                PolicyError, match=f"^the new weights .*: the policy server {dying} "
            ):
                policy.load_weights(servers.models[0].state_dict())
    asked = servers.routes[0].asked
    assert len(asked["/finish_weight_update"]) == len(asked["/start_weight_update"]) == 1


@given(st.integers(0, 2**63), st.integers(1, 9), st.integers(1, 40))
def test_consecutive_numbers_come_to_the_replicas_in_turn(first: int, size: int, num: int) -> None:
    policy = ScriptedPolicy(TOKENIZER, [])
    policy.replicas = [ScriptedPolicy(TOKENIZER, []) for _ in range(size)]  # type: ignore[attr-defined]
    found = [replica_of(policy, first + i) for i in range(num)]
    counts = [found.count(replica) for replica in replicas(policy)]
    assert sum(counts) == num
    assert max(counts) - min(counts) <= 1
    assert found == [replica_of(policy, first + i) for i in range(num)]


def test_a_policy_in_one_place_is_its_only_replica() -> None:
    policy = ScriptedPolicy(TOKENIZER, [])
    assert list(replicas(policy)) == [policy]


def test_the_workers_of_all_servers_have_ranks_of_their_own(
    tiny_model: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    """As vLLM's NCCL engine of the trainer asks for: it is rank 0, the first worker rank 1."""
    policy = HFPolicy(load(tiny_model), tokenizer)
    routes = [PolicyRoutes(policy, workers=number) for number in (2, 1, 4)]
    with ExitStack() as stack:
        control = Controls([Control(stack.enter_context(served(one))) for one in routes])
        assert control.world_size() == 7
        control.init_weight_transfer_engine({"rank_offset": 1, "world_size": 8})
    told = [one.asked["/init_weight_transfer_engine"][0]["init_info"] for one in routes]
    assert [info["rank_offset"] for info in told] == [1, 3, 4]
    assert {info["world_size"] for info in told} == {8}


@pytest.mark.parametrize(
    "urls", [(), "http://a", ("http://a", "ftp://b"), ("http://a", "http://a/")]
)
def test_addresses_that_make_no_sense_are_refused(urls: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="base_urls must"):
        VLLMServerEngine(base_urls=urls)
