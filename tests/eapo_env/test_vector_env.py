"""The vector environment: the same values as its parts, one batch of waiting, every autoreset."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.wrappers import TransformAction, TransformObservation, TransformReward
from gymnasium.wrappers.vector import (
    DictInfoToList,
    RecordEpisodeStatistics,
    VectorizeTransformAction,
    VectorizeTransformObservation,
    VectorizeTransformReward,
)
from hypothesis import given, settings, strategies as st

from eapo_env.actions import Consult, render_consult
from eapo_env.env import EAPOMathEnv
from eapo_env.experts import ErroneousExperts, MeaninglessExperts, ScriptedExperts
from eapo_env.spaces import UnicodeText
from eapo_env.types import ExpertReply, Problem, Query, Reply, Rules
from eapo_env.validation import UserError
from eapo_env.vector_env import EAPOMathVectorEnv

PROBLEMS = tuple(Problem(id=f"p{n}", statement=f"√{n}²?", answer=str(n)) for n in range(3))
HALF = Rules(acceptance_rate=0.5, turn_budget=3)


def ask(*questions: str) -> str:
    return render_consult(Consult(questions))


def say(query: Query) -> str:
    return f"It is {len(query.text)}."


EXPERTS = ErroneousExperts(inner=ScriptedExperts(say), error_rate=0.5)
SETTINGS: dict[str, Any] = {"problems": PROBLEMS, "experts": EXPERTS, "rules": HALF}


def make(num_envs: int, **settings: Any) -> EAPOMathVectorEnv:
    envs = gym.make_vec("EAPO-Math-v0", num_envs=num_envs, **{**SETTINGS, **settings})
    assert isinstance(envs, EAPOMathVectorEnv)
    return envs


def make_sync(num_envs: int, mode: AutoresetMode, **settings: Any) -> gym.vector.VectorEnv:
    return gym.make_vec(
        "EAPO-Math-v0",
        num_envs=num_envs,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": mode},
        **{**SETTINGS, **settings},
    )


def same(left: Any, right: Any) -> bool:
    return data_equivalence(left, right, exact=True)


def steps(
    envs: gym.vector.VectorEnv, script: Sequence[Sequence[str]], seed: Any, reset_ended: bool
) -> Iterator[Any]:
    """Yield what every reset and step returns."""
    yield envs.reset(seed=seed)
    for actions in script:
        result = envs.step(tuple(actions))
        yield result
        ended = result[2] | result[3]
        if reset_ended and ended.any():
            yield envs.reset(options={"reset_mask": ended, "turn_budget": 2})


completions = st.one_of(
    st.lists(st.text(st.characters(), max_size=5), max_size=4).map(lambda texts: ask(*texts)),
    st.sampled_from([r"so \boxed{2}", r"\boxed{0}", "Answer: 1", "hm", ""]),
)


@st.composite
def scripts(draw: st.DrawFn) -> tuple[int, list[list[str]]]:
    num_envs = draw(st.integers(1, 4))
    actions = st.lists(completions, min_size=num_envs, max_size=num_envs)
    return num_envs, draw(st.lists(actions, max_size=8))


@pytest.mark.parametrize("mode", list(AutoresetMode))
@given(
    scripted=scripts(),
    seed=st.integers(0, 2**40) | st.just("list"),
    gate=st.sampled_from(["pre", "post"]),
    observation=st.sampled_from(["transcript", "delta"]),
    max_episode_steps=st.sampled_from([None, -1, 1, 2, 5]),
)
@settings(max_examples=60, deadline=None)
def test_vector_equals_sync(
    mode: AutoresetMode,
    scripted: tuple[int, list[list[str]]],
    seed: int | str,
    gate: str,
    observation: str,
    max_episode_steps: int | None,
) -> None:
    num_envs, script = scripted
    seeds = [7 * n for n in range(num_envs)] if seed == "list" else seed
    choices: dict[str, Any] = {
        "gate": gate,
        "observation": observation,
        "max_episode_steps": max_episode_steps,
    }
    vector = make(num_envs, autoreset_mode=mode, **choices)
    sync = make_sync(num_envs, mode, **choices)
    disabled = mode is AutoresetMode.DISABLED
    pairs = zip(
        steps(vector, script, seeds, disabled), steps(sync, script, seeds, disabled), strict=True
    )
    for ours, theirs in pairs:
        assert same(ours, theirs), (ours, theirs)


@given(scripted=scripts(), seed=st.integers(0, 2**40))
@settings(max_examples=40, deadline=None)
def test_vector_equals_single_environments(
    scripted: tuple[int, list[list[str]]], seed: int
) -> None:
    num_envs, script = scripted
    vector = make(num_envs, autoreset_mode=AutoresetMode.SAME_STEP)
    singles = [gym.make("EAPO-Math-v0", **SETTINGS) for _ in range(num_envs)]
    observations, _ = vector.reset(seed=seed)
    assert observations == tuple(env.reset(seed=seed + n)[0] for n, env in enumerate(singles))
    for actions in script:
        observations, rewards, terminations, truncations, infos = vector.step(actions)
        for n, (env, action) in enumerate(zip(singles, actions, strict=True)):
            observation, reward, terminated, truncated, info = env.step(action)
            outcome = (rewards[n], terminations[n], truncations[n])
            assert outcome == (reward, terminated, truncated)
            if terminated:
                assert infos["final_obs"][n] == observation
                final = infos["final_info"]
                assert {key: final[key][n] for key in info} == info
                observation, info = env.reset()
            assert observations[n] == observation
            assert {key: infos[key][n] for key in info} == info
            assert all(infos[f"_{key}"][n] for key in info)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_the_spaces_and_metadata_are_those_of_sync(mode: AutoresetMode) -> None:
    vector, sync = make(3, autoreset_mode=mode), make_sync(3, mode)
    for space in ("observation_space", "action_space"):
        assert getattr(vector, space) == getattr(sync, space)
        assert getattr(vector, f"single_{space}") == getattr(sync, f"single_{space}")
    assert vector.metadata == sync.metadata
    assert vector.reset(seed=0)[0] in vector.observation_space
    for spelt in (mode.name, mode.value):
        assert make(3, autoreset_mode=spelt).autoreset_mode is mode


# --- one batch ------------------------------------------------------------------------------------


@dataclass
class Noting:
    """An expert that notes every batch it is asked."""

    batches: list[list[Query]] = field(default_factory=list)

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        self.batches.append(list(queries))
        return [Reply("Ada", say(query)) for query in queries]


def test_a_step_asks_all_queries_of_all_in_one_batch_in_order() -> None:
    experts = Noting()
    envs = make(4, experts=experts, rules=Rules())
    envs.reset(seed=0)
    envs.step([ask("a", "b"), r"\boxed{1}", "hm", ask("c")])
    assert [[query.text for query in batch] for batch in experts.batches] == [["a", "b", "c"]]
    envs.step(["hm"] * 4)
    assert len(experts.batches) == 1


def test_a_refused_consultation_asks_nobody() -> None:
    experts = Noting()
    envs = make(2, experts=experts, rules=Rules(acceptance_rate=0.0))
    envs.reset(seed=0)
    _, _, _, _, infos = envs.step([ask("a", "b"), ask("c")])
    assert experts.batches == []
    assert infos["queries"].tolist() == [2, 1]


def test_one_gate_seed_gives_all_sub_environments_the_same_draws() -> None:
    envs = make(3, rules=Rules(acceptance_rate=0.5))
    seen = set()
    for gate_seed in range(8):
        envs.reset(seed=0, options={"gate_seed": gate_seed})
        envs.step([ask("a", "b", "c")] * 3)
        accepted = {episode.consultations[0].accepted for episode in envs.get_attr("episode")}
        assert len(accepted) == 1
        seen |= accepted
    assert len(seen) > 1


def test_gate_seeds_give_each_group_its_own_draws() -> None:
    envs = make(4, rules=Rules(acceptance_rate=0.5))

    def accepted(**options: Any) -> list[tuple[bool, ...]]:
        envs.reset(seed=3, options=options)
        envs.step([ask("a", "b", "c")] * 4)
        return [episode.consultations[0].accepted for episode in envs.get_attr("episode")]

    own = accepted()
    different = 0
    for gate_seed in range(8):
        first, same, other, none = accepted(gate_seeds=[gate_seed, gate_seed, gate_seed + 9, None])
        assert first == same
        assert none == own[3]  # the gate has the episode's seed
        different += first != other
    assert different > 4


# --- errors change nothing ------------------------------------------------------------------------


@dataclass(frozen=True)
class Miscounting:
    """A broken pool: one reply too few."""

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        return [Reply("Ada", "a")] * (len(queries) - 1)


@pytest.mark.parametrize(
    ("actions", "shown"),
    [
        (["a"], "2 actions"),
        ("ab", "2 actions"),
        (["a", None], "None"),
        ([ask("a"), 7], "7"),
    ],
)
def test_a_bad_step_changes_no_sub_environment(actions: Any, shown: str) -> None:
    envs = make(2, rules=Rules())
    envs.reset(seed=0)
    before = envs.get_attr("episode")
    gates = [env._gate_rng.bit_generator.state for env in envs.envs if env._gate_rng]
    with pytest.raises(ValueError, match=shown):
        envs.step(actions)
    assert all(now is then for now, then in zip(envs.get_attr("episode"), before, strict=True))
    assert gates == [env._gate_rng.bit_generator.state for env in envs.envs if env._gate_rng]


def test_a_pool_that_miscounts_costs_all_sub_environments_their_replies() -> None:
    envs = make(2, experts=Miscounting(), rules=Rules())
    envs.reset(seed=0)
    *_, infos = envs.step([ask("a"), ask("b")])
    assert (infos["queries"].tolist(), infos["accepted"].tolist()) == ([1, 1], [0, 0])


@pytest.mark.parametrize("mode", [AutoresetMode.DISABLED, AutoresetMode.SAME_STEP])
def test_stepping_an_episode_that_is_over_is_an_error(mode: AutoresetMode) -> None:
    envs = make(2, autoreset_mode=mode)
    with pytest.raises(ResetNeeded):
        envs.step(["hm", "hm"])
    envs.reset(seed=0)
    asyncio.run(envs.envs[1].step_async(r"\boxed{1}"))
    before = envs.get_attr("episode")
    with pytest.raises(ResetNeeded, match=r"\[1\]"):
        envs.step(["hm", "hm"])
    assert envs.get_attr("episode") == before


def test_stepping_a_truncated_episode_is_an_error_until_it_is_reset() -> None:
    envs = make(2, autoreset_mode="DISABLED", max_episode_steps=1)
    envs.reset(seed=0)
    _, _, terminations, truncations, infos = envs.step(["hm", r"\boxed{9}"])
    assert (terminations.tolist(), truncations.tolist()) == ([False, True], [True, True])
    assert infos["stop_reason"].tolist() == [None, "answered"]
    with pytest.raises(ResetNeeded, match=r"\[0, 1\]"):
        envs.step(["hm", "hm"])
    envs.reset()
    envs.step(["hm", "hm"])


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"num_envs": 0}, "0"),
        ({"num_envs": "2"}, "num_envs must be a whole number, not '2'"),
        ({"problems": 5}, "problems must be Problem values, a name or a path, not 5"),
        ({"autoreset_mode": "Sometimes"}, "one of NEXT_STEP, SAME_STEP, DISABLED, not 'Sometimes'"),
        ({"gate": "x"}, "x"),
        ({"max_episode_steps": 0}, "max_episode_steps must be a whole number from 1 on, not 0"),
        ({"max_episode_steps": "2"}, "not '2'"),
        ({"experts": MeaninglessExperts}, "not the class MeaninglessExperts"),
    ],
)
def test_a_bad_argument_is_refused_and_shown(settings: dict[str, Any], shown: str) -> None:
    with pytest.raises(ValueError, match=shown):
        EAPOMathVectorEnv(**{"num_envs": 2, **settings})


# --- resets ---------------------------------------------------------------------------------------


def test_problem_ids_one_each_or_one_for_all() -> None:
    envs = make(3)
    _, infos = envs.reset(seed=0, options={"problem_ids": ["p2", "p0", "p1"]})
    assert infos["problem_id"].tolist() == ["p2", "p0", "p1"]
    _, infos = envs.reset(options={"problem_id": "p1", "turn_budget": 2})
    assert infos["problem_id"].tolist() == ["p1"] * 3
    assert infos["turns_left"].tolist() == [2] * 3
    gates = {env.episode.seed for env in envs.envs}
    assert len(gates) == 3
    drawn = {
        envs.reset(options={"problem_ids": ["p0", None, "p0"]})[1]["problem_id"][1]
        for _ in range(40)
    }
    assert drawn == {"p0", "p1", "p2"}


def test_a_mask_resets_only_its_own() -> None:
    envs = make(3)
    envs.reset(seed=0)
    envs.step(["hm"] * 3)
    before = envs.get_attr("episode")
    options = {"reset_mask": np.array([False, True, False]), "problem_ids": [None, "p2", None]}
    given = copy.copy(options)
    observations, infos = envs.reset(options=options)
    after = envs.get_attr("episode")
    assert (after[0], after[2]) == (before[0], before[2])
    assert after[1].turn == 0
    assert infos["problem_id"].tolist() == [None, "p2", None]
    assert infos["_problem_id"].tolist() == [False, True, False]
    assert observations == tuple(episode.transcript() for episode in after)
    assert options.keys() == given.keys()


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"reset_mask": [True, False]}, "reset_mask"),
        ({"reset_mask": np.array([1, 0])}, "reset_mask"),
        ({"reset_mask": np.array([True])}, "reset_mask"),
        ({"reset_mask": np.array([False, False])}, "reset_mask"),
        ({"problem_ids": ["p0"]}, "problem_ids"),
        ({"problem_ids": "p0"}, "problem_ids"),
        ({"problem_ids": ["p0", "p9"]}, "p9"),
        ({"gate_seeds": [1]}, "gate_seeds"),
        ({"gate_seeds": 1}, "gate_seeds"),
        ({"gate_seeds": [1, -2]}, "-2"),
        ({"turn_bugdet": 2}, "turn_bugdet"),
        ([1], r"mapping.*\[1\]"),
    ],
)
def test_a_bad_reset_option_is_refused_and_shown(options: Any, shown: str) -> None:
    envs = make(2)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=shown):
        envs.reset(options=options)


def test_seeds_are_a_number_or_one_each() -> None:
    envs = make(3)
    by_number = envs.reset(seed=5), envs.get_attr("episode")
    seeds: list[Any] = [[5, 6, 7], (5, 6, 7), np.int64(5)]
    for seed in seeds:
        again = envs.reset(seed=seed), envs.get_attr("episode")
        assert same(again, by_number)
    with pytest.raises(ValueError, match="seed must hold 3 values"):
        envs.reset(seed=[1, 2])


def test_rules_can_be_set_for_all_or_one_each() -> None:
    envs = make(2, autoreset_mode="SameStep")
    envs.reset(seed=0)
    envs.rules = Rules(turn_budget=2)
    assert envs.rules == (Rules(turn_budget=2),) * 2
    infos = envs.step([r"\boxed{1}", "hm"])[-1]
    assert infos["turns_left"].tolist() == [2, 2]  # fresh with 2; used 1 of 3
    envs.set_attr("rules", [Rules(turn_budget=4), Rules.alone()])
    assert envs.reset()[1]["turns_left"].tolist() == [4, 1]
    with pytest.raises(ValueError, match="rules must hold 2 values"):
        envs.set_attr("rules", [Rules()])


def test_a_call_gives_what_it_gives_in_sync() -> None:
    vector, sync = make(2), make_sync(2, AutoresetMode.NEXT_STEP)
    for envs in (vector, sync):
        envs.reset(seed=0)
        envs.step(["hm", ask("a")])
    for name in ("observe", "inform", "rules", "episode"):
        assert vector.call(name) == sync.call(name)  # type: ignore[attr-defined]
    infos = [info for _, info in vector.call("reset", seed=3, options={"problem_id": "p1"})]
    assert [info["problem_id"] for info in infos] == ["p1", "p1"]


def test_rendering_gives_one_text_each() -> None:
    envs = make(2, render_mode="ansi")
    observations, _ = envs.reset(seed=0)
    assert envs.render() == observations


# --- one at a time --------------------------------------------------------------------------------


@dataclass
class Meeting:
    """Experts that answer nobody before `num_guests` batches wait: serial callers never finish."""

    num_guests: int
    waiting: int = 0
    full: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        self.waiting += 1
        if self.waiting == self.num_guests:
            self.full.set()
        await self.full.wait()
        return [Reply("Ada", say(query)) for query in queries]


def test_sub_environments_step_at_the_same_time_each_at_its_own_pace() -> None:
    experts = Meeting(num_guests=3)
    envs = make(4, experts=experts, rules=Rules())
    envs.reset(seed=0)

    async def episode(index: int, actions: Sequence[str]) -> list[Any]:
        return [await envs.envs[index].step_async(action) for action in actions]

    async def all_episodes() -> list[list[Any]]:
        scripts = [[ask("a")], ["hm", ask("b")], [ask("c"), "hm"], [r"\boxed{1}"]]
        tasks = [episode(index, actions) for index, actions in enumerate(scripts)]
        return await asyncio.wait_for(asyncio.gather(*tasks), 60)

    results = asyncio.run(all_episodes())
    assert [[result[-1]["turn"] for result in episode] for episode in results] == [
        [1],
        [1, 2],
        [1, 2],
        [1],
    ]
    assert envs.envs[3].reset(seed=9, options={"problem_id": "p2"})[1]["problem_id"] == "p2"


@given(script=st.lists(completions, min_size=1, max_size=6), seed=st.integers(0, 2**40))
@settings(max_examples=30, deadline=None)
def test_one_sub_environment_alone_gives_the_values_of_a_single_environment(
    script: list[str], seed: int
) -> None:
    envs, single = make(2), gym.make("EAPO-Math-v0", **SETTINGS)
    assert envs.envs[1].reset(seed=seed) == single.reset(seed=seed)

    async def play() -> None:
        for action in script:
            result = await envs.envs[1].step_async(action)
            assert result == single.step(action)
            if result[2]:
                assert envs.envs[1].reset() == single.reset()

    asyncio.run(play())


# --- make_vec and stock tools ---------------------------------------------------------------------


def test_make_vec_alone_works_and_its_spec_makes_it_again() -> None:
    envs = gym.make_vec("EAPO-Math-v0", num_envs=2)
    assert isinstance(envs, EAPOMathVectorEnv)
    assert envs.spec is not None
    expected = envs.reset(seed=1)
    for spec in (copy.deepcopy(envs.spec), pickle.loads(pickle.dumps(envs.spec))):
        assert same(gym.make_vec(spec).reset(seed=1), expected)
    envs.close()
    envs.close()


def test_make_vec_refuses_what_belongs_elsewhere() -> None:
    with pytest.raises(gym.error.Error, match="vector_kwargs"):
        gym.make_vec("EAPO-Math-v0", num_envs=2, vector_kwargs={"autoreset_mode": "SameStep"})
    with pytest.raises(gym.error.Error, match="wrappers"):
        gym.make_vec("EAPO-Math-v0", num_envs=2, wrappers=[gym.wrappers.RecordEpisodeStatistics])


def test_asynchronous_processes_with_shared_memory_are_refused_with_what_to_pass() -> None:
    with pytest.raises(UserError, match=r"pass shared_memory=False .*\{'shared_memory': False\}"):
        gym.make_vec("EAPO-Math-v0", num_envs=2, vectorization_mode="async")
    with pytest.raises(UserError, match="pass shared_memory=False"):
        AsyncVectorEnv([EAPOMathEnv] * 2)


def test_asynchronous_processes_without_shared_memory_give_the_same_values() -> None:
    choices: dict[str, Any] = {"problems": PROBLEMS, "experts": MeaninglessExperts(), "rules": HALF}
    processes = gym.make_vec(
        "EAPO-Math-v0",
        num_envs=2,
        vectorization_mode="async",
        vector_kwargs={"shared_memory": False, "context": "spawn"},
        **choices,
    )
    script = [[ask("a"), "hm"], [r"\boxed{1}", ask("√2?", "b")], ["hm", r"\boxed{\frac{4}{2}}"]]
    try:
        pairs = zip(
            steps(processes, script, 3, False),
            steps(make(2, **choices), script, 3, False),
            strict=True,
        )
        for theirs, ours in pairs:
            assert same(ours, theirs)
    finally:
        processes.close()


def test_stock_vector_wrappers_work() -> None:
    envs: Any = RecordEpisodeStatistics(make(2, autoreset_mode="NextStep"))
    envs.reset(seed=0, options={"problem_ids": ["p2", "p1"]})
    _, rewards, _, _, infos = envs.step([r"\boxed{2}", "hm"])
    assert rewards.tolist() == [1.0, 0.0]
    assert infos["episode"]["l"].tolist() == [1, 0]
    listed = DictInfoToList(make(2))
    _, infos = listed.reset(seed=0)
    assert [info["turn"] for info in infos] == [0, 0]


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_wrappers_of_one_environment_go_around_all_and_keep_the_one_batch(
    mode: AutoresetMode,
) -> None:
    experts = Noting()
    envs: Any = make(2, experts=experts, rules=Rules(), autoreset_mode=mode)
    envs = VectorizeTransformObservation(
        envs, TransformObservation, func=str.upper, observation_space=UnicodeText()
    )
    envs = VectorizeTransformReward(envs, TransformReward, func=lambda reward: 2 * reward)
    envs = VectorizeTransformAction(
        envs, TransformAction, func=lambda action: action + "}", action_space=UnicodeText()
    )
    observations, _ = envs.reset(seed=0, options={"problem_id": "p2"})
    assert observations == tuple(text.upper() for text in envs.unwrapped.call("observe"))
    envs.step((ask("a"), ask("b")))
    assert len(experts.batches) == 1
    observations, rewards, terminations, _, _ = envs.step((r"\boxed{2", r"\boxed{3"))
    assert terminations.all()
    assert rewards.tolist() == [2.0, 0.2]
    assert all(text == text.upper() for text in observations)
