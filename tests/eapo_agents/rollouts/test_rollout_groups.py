"""Many episodes at once: who waits for whom, what an error ends, and where luck comes from."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from written_rollout import CONSULT, PROBLEM, TOKENIZER, Recording, play, rollout

from eapo_agents.policies.policy import Completion, Sampling
from eapo_agents.rollouts.rollout import derive_seed, gather
from eapo_agents.rollouts.trajectory import Group, Trajectory
from eapo_agents.testing import ScriptedPolicy
from eapo_env.types import ExpertReply, Query, Reply, Rules
from eapo_env.validation import UserError


def within(coroutine: Awaitable[Any]) -> Any:
    """Run a coroutine that never ends where something waits that should not."""

    async def limited() -> Any:
        return await asyncio.wait_for(coroutine, timeout=60)

    return asyncio.run(limited())


@dataclass
class Meeting:
    """Experts that answer once this many calls are waiting together."""

    size: int

    def __post_init__(self) -> None:
        self._barrier = asyncio.Barrier(self.size)

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        await self._barrier.wait()
        return [Reply("expert", "7")] * len(queries)


def consult_first(prompt: str, rng: np.random.Generator) -> str:
    return "\\boxed{7}" if "<reply>" in prompt else CONSULT


def test_the_expert_calls_of_all_episodes_overlap() -> None:
    player = rollout(ScriptedPolicy(TOKENIZER, consult_first), experts=Meeting(32))
    groups = within(gather(player.play_group(PROBLEM, [Rules()] * 8, seed=n) for n in range(4)))
    assert all(group.correct_G.all() for group in groups)


class OneSlot(Recording):
    """A policy that completes one prompt at a time."""

    async def complete(
        self, prompt_ids: Sequence[int], sampling: Sampling, seed: int
    ) -> Completion:
        async with self.slot:
            return await super().complete(prompt_ids, sampling, seed)

    slot = asyncio.Semaphore(1)


def test_an_episode_that_waits_for_an_expert_leaves_the_policy_to_the_others() -> None:
    others_done = asyncio.Event()

    class Slow:
        cooperative = True

        async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
            await others_done.wait()
            return [Reply("expert", "7")] * len(queries)

    async def both() -> tuple[Trajectory, Trajectory]:
        player = rollout(OneSlot([CONSULT]), experts=Slow())
        waiting = asyncio.create_task(player.play(PROBLEM, Rules(), seed=0))
        await asyncio.sleep(0)  # it comes first, and so is the one that consults
        other = await player.play(PROBLEM, Rules(), seed=1)
        assert not waiting.done()
        others_done.set()
        return await waiting, other

    waited, other = within(both())
    assert [waited.episode.turn, other.episode.turn] == [2, 1]


def test_an_error_ends_the_others_and_comes_as_itself() -> None:
    """A pool's own error costs its replies; one that the user can put right ends the rollout."""
    asked: list[int] = []
    cancelled: list[int] = []
    all_asked = asyncio.Event()

    class Broken:
        cooperative = True

        async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
            asked.append(queries[0].seed)
            if len(asked) == 6:
                all_asked.set()
            if queries[0].seed != first:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    cancelled.append(queries[0].seed)
                    raise
            await all_asked.wait()
            raise UserError("there is no recording") from KeyError("its cause")

    first = derive_seed(derive_seed(5), 0)
    player = rollout(ScriptedPolicy(TOKENIZER, consult_first), experts=Broken())
    groups = [player.play_group(PROBLEM, [Rules()] * 3, seed=derive_seed(n)) for n in (5, 6)]
    with pytest.raises(UserError, match="there is no recording") as caught:
        within(gather(groups))
    assert isinstance(caught.value.__cause__, KeyError)
    assert len(cancelled) == 5


def test_a_pool_that_loses_replies_costs_them() -> None:
    class Forgetful:
        async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
            return [Reply("expert", "7")]

    episode = play([CONSULT], experts=Forgetful()).episode
    assert (episode.num_queries, episode.num_accepted) == (3, 0)


def test_a_group_shares_its_problem_and_nothing_else() -> None:
    player = rollout(ScriptedPolicy(TOKENIZER, consult_first))
    rules = [Rules(acceptance_rate=0.5)] * 32
    group = asyncio.run(player.play_group(PROBLEM, rules, seed=3))
    accepted = [t.episode.consultations[0].accepted for t in group.trajectories]
    assert {t.episode.problem for t in group.trajectories} == {PROBLEM}
    assert len({t.episode.seed for t in group.trajectories}) == 32
    assert set(map(len, accepted)) == {3}
    assert len(set(accepted)) == 8, "every outcome of three draws occurs"
    assert 30 <= sum(map(sum, accepted)) <= 66  # 48 expected, 4 standard deviations of 4.9


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 1.0])
def test_with_common_gate_draws_equal_actions_have_equal_slots_accepted(rate: float) -> None:
    """Groups differ, members do not, and each slot is accepted with the same probability."""
    player = rollout(ScriptedPolicy(TOKENIZER, consult_first))
    rules = [Rules(acceptance_rate=rate)] * 4

    async def groups() -> list[Group]:
        return await gather(
            player.play_group(PROBLEM, rules, seed=seed, gate_draws="group") for seed in range(64)
        )

    accepted = [
        [t.episode.consultations[0].accepted for t in group.trajectories]
        for group in asyncio.run(groups())
    ]
    assert all(len(set(of_members)) == 1 for of_members in accepted)
    slots = [slot for of_members in accepted for slot in of_members[0]]
    assert len(slots) == 192
    assert abs(sum(slots) - 192 * rate) <= 4 * (192 * rate * (1 - rate)) ** 0.5


@given(st.integers(0, 2**62), st.floats(0, 1))
def test_the_law_of_one_episode_is_that_of_draws_of_its_own(seed: int, rate: float) -> None:
    """An episode of a group with common draws is one that has their seed for itself."""
    player = rollout(ScriptedPolicy(TOKENIZER, consult_first))
    rules = Rules(acceptance_rate=rate)
    common = asyncio.run(player.play_group(PROBLEM, [rules] * 2, seed=seed, gate_draws="group"))
    for member, trajectory in enumerate(common.trajectories):
        alone = asyncio.run(
            player.play(
                PROBLEM,
                rules,
                seed=derive_seed(seed, member),
                gate_seed=derive_seed(seed, 2, 1),
            )
        )
        assert trajectory == alone


def test_each_member_plays_by_its_own_rules() -> None:
    rules = (Rules.alone(), Rules(turn_budget=2), Rules(turn_budget=3))
    group = asyncio.run(rollout(Recording([])).play_group(PROBLEM, rules, seed=0))
    assert tuple(t.episode.rules for t in group.trajectories) == rules


def test_the_result_does_not_depend_on_who_is_fast() -> None:
    class Dawdling:
        def __init__(self, luck: int) -> None:
            self.luck = np.random.default_rng(luck)

        async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
            await asyncio.sleep(float(self.luck.random()) * 0.02)
            return [Reply("expert", str(query.slot)) for query in queries]

    def write(prompt: str, rng: np.random.Generator) -> str:
        return CONSULT if rng.random() < 0.6 else f"\\boxed{{{rng.integers(6, 8)}}}"

    def group(luck: int) -> Group:
        player = rollout(ScriptedPolicy(TOKENIZER, write), experts=Dawdling(luck))
        return asyncio.run(player.play_group(PROBLEM, [Rules(acceptance_rate=0.5)] * 12, seed=9))

    first, *others = [group(luck) for luck in range(3)]
    assert first.has_signal
    assert any(t.episode.consultations for t in first.trajectories)
    assert all(first == other for other in others)


def test_seeds_are_a_function_of_their_key() -> None:
    keys = [(a, b) for a in range(40) for b in range(40)]
    seeds = {derive_seed(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, 2) == derive_seed(1, 2)
