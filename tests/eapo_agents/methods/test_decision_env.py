"""Decisions as a vector environment: the same episodes as their texts would make, every time."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Discrete
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from hypothesis import given, settings, strategies as st

from eapo_agents.methods.decisions import (
    FEATURES,
    DecisionVectorEnv,
    DemonstratorWriter,
    ModelWriter,
    ScheduledRules,
    always,
    play,
)
from eapo_agents.policies.characters import char_tokenizer
from eapo_agents.policies.chat_model import PolicyChat
from eapo_agents.policies.policy import Sampling
from eapo_agents.testing import ScriptedPolicy
from eapo_env.annealing import Annealing
from eapo_env.demonstrator import NoisyDemonstrator
from eapo_env.env import EAPOMathEnv
from eapo_env.event_loop import run
from eapo_env.experts import MeaninglessExperts
from eapo_env.prompts import Prompts
from eapo_env.reward import RewardRule
from eapo_env.synthetic import synthetic_experts, synthetic_problems
from eapo_env.types import Problem, Rules
from eapo_env.verifier import Verifier

HALF = Rules(acceptance_rate=0.5, turn_budget=3)


@pytest.fixture(scope="module")
def envs(verifier: Verifier) -> DecisionVectorEnv:
    return make(verifier)


def make(verifier: Verifier, num_envs: int = 3, **changes: Any) -> DecisionVectorEnv:
    chosen = {"problems": synthetic_problems(8), "rules": HALF, "verifier": verifier}
    return DecisionVectorEnv(num_envs, writer=DemonstratorWriter(), **(chosen | changes))


def played(env: Any, seed: int, steps: Sequence[Sequence[int]]) -> list[Any]:
    return [env.reset(seed=seed), *(env.step(np.array(decisions)) for decisions in steps)]


DECISIONS = st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=8)


@given(st.integers(0, 99), DECISIONS)
@settings(max_examples=30)
def test_a_seed_decides_all_and_every_value_lies_in_its_space(
    envs: DecisionVectorEnv, seed: int, steps: list[tuple[int, ...]]
) -> None:
    first, again = played(envs, seed, steps), played(envs, seed, steps)
    assert data_equivalence(first, again, exact=True)
    for observations, *_ in first:
        assert observations in envs.observation_space
    for _, _, over, truncated, infos in first[1:]:
        assert not truncated.any()
        for index in np.flatnonzero(over):
            assert infos["final_obs"][index] in envs.single_observation_space
            assert infos["turn"][index] == 0
            assert infos["final_info"]["stop_reason"][index] in ("answered", "turn_budget")


@given(st.integers(0, 99), DECISIONS)
@settings(max_examples=20)
def test_the_episodes_are_those_of_the_text_environment(
    envs: DecisionVectorEnv, seed: int, steps: list[tuple[int, ...]]
) -> None:
    """The texts that decisions became, given to `EAPOMathEnv`, earn what the decisions earned."""
    envs.reset(seed=seed)
    alone = EAPOMathEnv(
        problems=envs.texts.envs[0].problems, rules=HALF, verifier=envs.texts.envs[0].verifier
    )
    alone.reset(seed=seed)
    for decisions in steps:
        text = run(envs._write(envs.episodes[0], decisions[0]))
        _, reward, terminated, *_ = alone.step(text)
        _, rewards, over, _, _ = envs.step(np.array(decisions))
        assert (rewards[0], over[0]) == (reward, terminated)
        if terminated:
            alone.reset()
        assert envs.episodes[0] == alone.episode


def test_the_student_asks_about_what_it_misses_and_uses_what_it_is_told(verifier: Verifier) -> None:
    flawed = DemonstratorWriter(demonstrator=NoisyDemonstrator(step_error_rate=1.0))
    rules = Rules(turn_budget=3)
    env = DecisionVectorEnv(
        2, writer=flawed, problems=synthetic_problems(2), rules=rules, verifier=verifier
    )
    env.reset(seed=0, options={"problem_ids": ["synthetic-3x2-0-0", "synthetic-3x2-0-1"]})
    env.step(np.array([2, 3]))
    first, second = env.episodes
    parts = first.problem.statement.split(" ")
    assert [query.text for query in first.consultations[0].queries] == parts[:2]
    assert len(second.consultations[0].queries) == 3
    env.step(np.array([3, 3]))
    first, second = env.episodes
    assert [query.text for query in first.consultations[1].queries] == parts[2:3]
    # Nothing is left to ask about: the whole problem is asked.
    assert [q.text for q in second.consultations[1].queries] == [second.problem.statement] * 3
    _, rewards, over, _, infos = env.step(np.array([0, 3]))  # a last turn answers, whatever
    assert rewards.tolist() == [1.0, 1.0]
    assert over.all()
    assert infos["final_info"]["queries"].tolist() == [3, 6]


def test_more_experts_than_the_rules_allow_are_not_asked(verifier: Verifier) -> None:
    env = make(verifier, rules=Rules(queries_per_turn=3))
    assert isinstance(env.single_action_space, Discrete)
    assert env.single_action_space.n == 4
    env.rules = [Rules(queries_per_turn=n) for n in (1, 2, 3)]
    env.reset(seed=0)
    _, _, _, _, infos = env.step(np.array([3, 3, 3]))
    assert infos["queries"].tolist() == [1, 2, 3]


def test_experts_who_say_nothing_of_use_do_not_stop_the_student(verifier: Verifier) -> None:
    env = make(verifier, experts=MeaninglessExperts(), rules=Rules(turn_budget=2))
    _, (_, _, over, *_), (_, _, answered, _, infos) = played(env, 0, [(1, 2, 3), (0, 0, 0)])
    assert not over.any()
    assert answered.all()
    assert set(infos["final_info"]["verdict"]) <= {"correct", "wrong"}


def test_other_problems_are_none_of_the_students(verifier: Verifier) -> None:
    problems = [Problem(id="sheep", statement="How many sheep?", answer="9")]
    env = make(verifier, problems=problems)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="procedural problems only: 'How many sheep"):
        env.step(np.array([0, 0, 0]))


@pytest.mark.parametrize("actions", [[0, 1], [0, 1, 4], [0, 1, -1], [0.5, 1.0, 1.0], "abc", 2])
def test_bad_decisions_are_refused_and_change_nothing(
    envs: DecisionVectorEnv, actions: Any
) -> None:
    envs.reset(seed=0)
    before = envs.episodes
    with pytest.raises(ValueError, match="decisions must be in MultiDiscrete"):
        envs.step(actions)
    assert envs.episodes == before


def test_a_step_needs_a_reset(verifier: Verifier) -> None:
    with pytest.raises(ResetNeeded):
        make(verifier).step(np.array([0, 0, 0]))


def test_a_language_model_answers_under_the_prompt_of_evaluation(verifier: Verifier) -> None:
    """It repeats what it was told, or reads the problem."""

    def repeat(prompt: str, rng: np.random.Generator) -> str:
        assert "ask 3" not in prompt  # which the training prompt says
        told = prompt.rpartition("<reply>")[2][:2] if "<reply>" in prompt else "nothing"
        return rf"<consult><query>me?</query></consult> \boxed{{{told}}}"

    model = PolicyChat(ScriptedPolicy(char_tokenizer(), repeat))
    writer = ModelWriter(model=model, sampling=Sampling(max_tokens=99))
    env = DecisionVectorEnv(
        2,
        writer=writer,
        problems=synthetic_problems(4),
        experts=synthetic_experts(),
        prompts=Prompts.terse(),
        verifier=verifier,
    )
    env.reset(seed=0)
    _, rewards, over, _, infos = env.step(np.array([0, 2]))
    assert over.tolist() == [True, False]
    assert infos["final_info"]["verdict"][0] == "wrong"
    assert [q.text for q in env.episodes[1].consultations[0].queries] == [
        env.episodes[1].problem.statement
    ] * 2
    _, rewards, over, _, _ = env.step(np.array([1, 0]))
    assert (rewards[1], over[1]) == (1.0, True)


def test_rules_follow_a_schedule_and_budgets_are_shared_out(verifier: Verifier) -> None:
    annealing = Annealing(steps=4, schedule="ours_linear", turn_budget=2)
    env = ScheduledRules(make(verifier, 4), annealing.rules_at)
    budgets = []
    for _ in range(5):
        budgets.append(sorted(rules.turn_budget for rules in env.env.rules))
        assert {rules.acceptance_rate for rules in env.env.rules} == {1 - env.num_steps / 4}
        env.reset(seed=0)
        env.step(np.zeros(4, dtype=np.int64))
    assert budgets == [[2, 2, 2, 2], [1, 2, 2, 2], [1, 1, 2, 2], [1, 1, 1, 2], [1, 1, 1, 1]]


def test_every_sub_environment_gets_every_draw(verifier: Verifier) -> None:
    env = ScheduledRules(make(verifier, 2), lambda _, draw: Rules(acceptance_rate=draw))
    seen = []
    for begin in (
        lambda: env.reset(seed=0),
        lambda: env.step(np.array([0, 0])),
        lambda: env.step(np.array([1, 0])),  # the first consults: its episode goes on
        lambda: env.reset(options={"reset_mask": np.array([True, False])}),
    ):
        begin()
        seen.append([episode.rules.acceptance_rate for episode in env.env.episodes])
    assert seen == [[0.25, 0.75], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]]


def test_long_episodes_have_no_smaller_share_of_a_fractional_budget(verifier: Verifier) -> None:
    """Half way from 2 turns to 1, half of each sub-environment's episodes have 2."""
    halfway = Annealing(steps=2, schedule="ours_linear", turn_budget=2)
    env = ScheduledRules(make(verifier, 4), lambda _, draw: halfway.rules_at(2, draw))
    env.reset(seed=0)
    budgets: list[list[int]] = [[] for _ in range(4)]
    while min(map(len, budgets)) < 8:
        begun = env.env.episodes
        _, _, over, _, _ = env.step(np.array([1, 1, 1, 1]))
        for index in np.flatnonzero(over):
            budgets[index].append(begun[index].rules.turn_budget)
    assert [sorted(some[:8]) for some in budgets] == [[1] * 4 + [2] * 4] * 4


def test_a_score_counts_the_same_episodes_of_every_sub_environment(verifier: Verifier) -> None:
    env = DecisionVectorEnv(
        4,
        writer=DemonstratorWriter(demonstrator=NoisyDemonstrator(step_error_rate=1.0)),
        problems=synthetic_problems(8),
        reward=RewardRule(consultation_penalty=0.1),
        verifier=verifier,
    )
    score = play(env, always(3), Rules(acceptance_rate=1.0), rounds=5)
    assert (score.accuracy, score.queries, score.call_rate) == (1.0, 3.0, 1.0)
    assert score.reward == pytest.approx(0.7)
    assert play(env, always(0), Rules(acceptance_rate=1.0), rounds=5).call_rate == 0.0
    mixed = play(env, lambda seen: np.array([0, 0, 3, 3]) * (seen[:, 2] == 0), Rules(), rounds=5)
    assert (mixed.queries, mixed.call_rate) == (1.5, 0.5)
    assert env.rules == (Rules(),) * 4


def test_the_rules_are_put_back_when_the_decisions_raise(envs: DecisionVectorEnv) -> None:
    def decide(_: object) -> Any:
        raise RuntimeError("no idea")

    before = envs.rules
    with pytest.raises(RuntimeError, match="no idea"):
        play(envs, decide, Rules(acceptance_rate=0.25))
    assert envs.rules == before
    with pytest.raises(ValueError, match="rounds must be at least 1, not 0"):
        play(envs, always(0), Rules(), rounds=0)


def test_it_is_a_vector_environment_as_gymnasium_wants_it(verifier: Verifier) -> None:
    env = make(verifier, render_mode="ansi")
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    recorded = RecordEpisodeStatistics(env)
    recorded.reset(seed=0)
    *_, infos = recorded.step(np.array([0, 0, 1]))
    assert infos["episode"]["l"].tolist() == [1, 1, 0]
    assert "</consult>" in env.render()[2]
    assert pickle.loads(pickle.dumps(env.writer)) == env.writer
    assert env.single_observation_space.shape == (len(FEATURES),)
    env.close()
