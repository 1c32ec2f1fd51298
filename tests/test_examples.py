"""The examples run, and show what their docstrings say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

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
from eapo_env.demonstrator import NoisyDemonstrator
from eapo_env.reward import RewardRule
from eapo_env.synthetic import synthetic_problems
from eapo_env.types import Rules
from eapo_env.verifier import Verifier

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def example(name: str) -> Any:
    """Return a file of `examples/` as a module."""
    spec = spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


skrl_ppo = example("skrl_ppo")
MakeAgent = Callable[[Any], Any]


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier() as one:
        yield one


RULES = (Rules(acceptance_rate=1.0), Rules(acceptance_rate=0.0))


def make(verifier: Verifier, num_envs: int = 16) -> DecisionVectorEnv:
    return DecisionVectorEnv(
        num_envs,
        writer=DemonstratorWriter(demonstrator=NoisyDemonstrator(step_error_rate=0.3)),
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
    agent = skrl_ppo.train(make_agent, ScheduledRules(env, any_rate), steps=steps, seed=seed)
    return [play(env, skrl_ppo.greedy(agent), rules) for rules in RULES]


@pytest.mark.parametrize("make_agent", [skrl_ppo.ppo, skrl_ppo.dqn])
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
        agent = skrl_ppo.train(skrl_ppo.ppo, make(verifier, 4), steps=32, seed=seed)
        weights.append(torch.cat([p.flatten() for p in agent.models["policy"].parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.get_rng_state(), before)
    assert config.torch.key == key


def test_greedy_decisions_are_whole_numbers_of_the_space(verifier: Verifier) -> None:
    env = make(verifier, 4)
    decide = skrl_ppo.greedy(skrl_ppo.train(skrl_ppo.dqn, env, steps=12))
    observations, _ = env.reset(seed=0)
    decisions = decide(observations)
    assert decisions in env.action_space
    assert np.array_equal(decisions, decide(observations))


def test_the_agents_of_skrl_as_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    skrl_ppo.main(["--agent", "dqn", "--steps", "12"])
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("mean reward (queries per episode)")
    assert [row[:24].strip() for row in rows] == [
        "never consult",
        "consult 3, then answer",
        "dqn, 12 steps",
    ]
    assert rows[0].count("(0.0)") == 3


def test_the_packages_do_without_skrl() -> None:
    for package in ("eapo_env", "eapo_agents"):
        for path in (ROOT / package).rglob("*.py"):
            assert "import skrl" not in path.read_text(encoding="utf-8"), path
            assert "from skrl" not in path.read_text(encoding="utf-8"), path
