"""Stock agents of skrl learn when to consult: real trainings, decided by their seeds."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from skrl import config

from eapo_agents.methods.decisions import (
    DecisionVectorEnv,
    DemonstratorWriter,
    ScheduledRules,
    Score,
    always,
    play,
)
from eapo_agents.methods.skrl import MakeAgent, dqn, greedy, ppo, train
from eapo_env.demonstrator import NoisyDemonstrator
from eapo_env.reward import RewardRule
from eapo_env.synthetic import synthetic_problems
from eapo_env.types import Rules
from eapo_env.verifier import Verifier

ROOT = Path(__file__).parents[3]
RULES = (Rules(acceptance_rate=1.0), Rules(acceptance_rate=0.0))


def make(verifier: Verifier, num_envs: int = 16) -> DecisionVectorEnv:
    return DecisionVectorEnv(
        num_envs,
        writer=DemonstratorWriter(student=NoisyDemonstrator(slip=0.3)),
        problems=synthetic_problems(64),
        reward=RewardRule(consultation_penalty=0.1),
        verifier=verifier,
    )


def any_rate(step: int, draw: float) -> Rules:
    return Rules(acceptance_rate=round(draw))


@cache
def baselines(verifier: Verifier) -> list[list[float]]:
    """The rewards of always consulting 3 and of never consulting, under each of the rules."""
    env = make(verifier)
    return [[play(env, always(k), rules).reward for rules in RULES] for k in (3, 0)]


def trained(make_agent: MakeAgent, verifier: Verifier, *, steps: int, seed: int) -> list[Score]:
    env = make(verifier)
    agent = train(make_agent, ScheduledRules(env, any_rate), steps=steps, seed=seed)
    return [play(env, greedy(agent), rules) for rules in RULES]


@pytest.mark.parametrize("make_agent", [ppo, dqn])
def test_an_agent_consults_experts_who_are_there_and_no_others(
    verifier: Verifier, make_agent: MakeAgent
) -> None:
    there, withdrawn = trained(make_agent, verifier, steps=250, seed=0)
    consulting, answering = baselines(verifier)
    # The baselines are each right about one of the rules and wrong about the other.
    assert consulting[0] > answering[0] + 0.3
    assert answering[1] > consulting[1] + 0.1
    reward = (there.reward + withdrawn.reward) / 2
    assert reward > max(sum(consulting), sum(answering)) / 2
    assert there.call_rate > 0.9
    assert withdrawn.call_rate < 0.1


def test_a_seed_decides_a_training_and_nothing_outside_it_changes(verifier: Verifier) -> None:
    torch.manual_seed(5)
    before, key = torch.get_rng_state(), config.torch.key
    weights = []
    for seed in (1, 1, 2):
        agent = train(ppo, make(verifier, 4), steps=32, seed=seed)
        weights.append(torch.cat([p.flatten() for p in agent.models["policy"].parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.get_rng_state(), before)
    assert config.torch.key == key


def test_greedy_decisions_are_whole_numbers_of_the_space(verifier: Verifier) -> None:
    env = make(verifier, 4)
    decide = greedy(train(dqn, env, steps=12))
    observations, _ = env.reset(seed=0)
    decisions = decide(observations)
    assert decisions in env.action_space
    assert np.array_equal(decisions, decide(observations))


def test_nothing_else_loads_skrl() -> None:
    code = (
        "import sys, eapo_env, eapo_agents.cli, eapo_agents.methods.decisions;"
        "print('skrl' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == "False"
