"""The examples run, and show what their docstrings say."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import EAPO, ENVIRONMENT, as_options, eapo_forked
from skrl import config
from stub_server import StubServer
from tiny_llama import saved, tiny_llama

from eapo_agents.methods.decisions import (
    DecisionVectorEnv,
    DemonstratorWriter,
    ScheduledRules,
    Score,
    always,
    play,
)
from eapo_agents.training.run_folder import Run
from eapo_env.demonstrator import NoisyDemonstrator
from eapo_env.reward import RewardRule
from eapo_env.synthetic import synthetic_problems
from eapo_env.testing import check_expert_pool
from eapo_env.types import NO_ANSWER, Query, Reply, Rules, Unavailable
from eapo_env.verifier import Verifier

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def example(name: str) -> Any:
    """Return a file of `examples/` as a module."""
    spec = spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)  # where a run finds its parts by name
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


def test_a_loop_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    example("gym_loop").main(["--episodes", "3"])
    _, guessing, asking = capsys.readouterr().out.splitlines()
    assert re.findall(r"\((.*?)\)", guessing) == ["0.0"] * 3
    assert re.findall(r"\((.*?)\)", asking) == ["1.0"] * 3
    assert asking.split()[:2] == ["ask", "0.80"], "a right answer less the price of a question"


def test_each_of_a_list_of_problems_once_and_several_at_a_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = example("gym_vector_loop")
    for num_envs in (1, 5, 100):  # more environments than problems, too
        played = module.play(num_envs, seed=1)
        assert {episode.problem for episode, _ in played} == set(module.PROBLEMS)
        for episode, correct in played:  # what was read decides: a guess is never right
            assert correct == (episode.num_accepted == 1)
    module.main(["--num-envs", "3"])
    assert capsys.readouterr().out.startswith("64 episodes, ")


def test_a_pool_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    module = example("own_experts")
    module.main()
    shown = capsys.readouterr().out
    assert 'expert="calculator">\n10\n' in shown
    assert 'expert="colleague">\nWork the brackets' in shown
    for text in ("1+", "__import__('os')", "9**9**9", "1.5", "(" * 500, "True", "-", "1//0"):
        assert module.calculated(text) is None, text


def test_a_function_and_a_served_model_in_one_pool() -> None:
    module = example("own_experts")
    with StubServer("echo") as server:
        pool = module.with_a_model(base_url=server.url, model="echo")
        texts = ("(47+38)*6", "How?", "Why?", "And then?", "a:((32+8)*3)")
        queries = [Query(text=text, slot=slot) for slot, text in enumerate(texts)]
        replies = asyncio.run(pool.ask(queries))
        asyncio.run(check_expert_pool(pool))
    assert replies == [
        Reply("calculator", "10"),
        Reply("echo", "echo: How?"),
        Unavailable(NO_ANSWER, "calculator"),
        Reply("echo", "echo: And then?"),
        Reply("calculator", "a=20"),  # as the embedded model asks
    ]


SHORT = (
    *("steps=1", "rollout.group_size=2", "rollout.limits.max_response_tokens=32"),
    *("rollout.sampling.groups_per_step=1", "rollout.sampling.problems_per_round=1"),
    *("evaluation.samples_per_problem=1", "evaluation.problems.limit=2"),
)


def test_the_pool_in_a_training(tmp_path: Path) -> None:
    """As its docstring says, in the folder of the examples."""
    told = example("own_experts").__doc__
    assert told is not None
    [command] = re.findall(r"eapo train embedded (.*latency.*?)\n\n", told, re.DOTALL)
    words: list[str] = shlex.split(command.replace("\\\n", " "))
    done = eapo_forked(
        *("train", "embedded", *words, *as_options(SHORT), "--runs", str(tmp_path)),
        cwd=ROOT / "examples",
    )
    assert done.returncode == 0, done.stderr
    assert Run.open(tmp_path / "embedded-1").config.experts.factory == "own_experts:pool"


def test_an_algorithm_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = example("own_algorithm")
    module.main(["--steps", "1", "--runs", str(tmp_path), *as_options(SHORT[1:])])
    shown = capsys.readouterr().out
    assert "successes  accuracy in training: 0." in shown
    assert "dapo       accuracy in training: 0." in shown
    assert module.Successes().advantages(np.array([1.0, 0.0, 0.0, 0.1])).tolist() == [0.75, 0, 0, 0]


def test_a_training_in_the_open(capsys: pytest.CaptureFixture[str]) -> None:
    module = example("train_in_60_lines")
    module.main(["--steps", "1", "--groups", "1"])
    assert capsys.readouterr().out.startswith("step   1  accuracy 0.")
    code = (ROOT / "examples" / "train_in_60_lines.py").read_text(encoding="utf-8")
    lines = code[code.index("async def play") :].splitlines()
    assert len([line for line in lines if line.strip()]) <= 60


def ran_script(name: str, folder: Path, **variables: str) -> str:
    """Run a shell script of the examples with this tree's command; return what it prints."""
    commands = folder / "bin"
    commands.mkdir()
    script = f'#!/bin/sh\nexec {shlex.join([*EAPO])} "$@"\n'
    (commands / "eapo").write_text(script, encoding="utf-8")
    (commands / "eapo").chmod(0o755)
    environment = ENVIRONMENT | variables | {"FOLDER": str(folder / "runs")}
    environment["PATH"] = f"{commands}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", ROOT / "examples" / name],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_real_model_from_training_to_comparison(tmp_path: Path) -> None:
    """With the embedded model, whose experts answer in process, in the place of the real ones."""
    variables = {"PRESET": "embedded", "EXPERT": "", "SETTINGS": " ".join(SHORT)}
    shown = ran_script("real_model.sh", tmp_path, **variables)
    for name in ("eapo-1", "self-exploratory-1"):
        assert f"/{name}/checkpoints/step-000001, alone" in shown
    assert "points of mean@k" in shown
    assert (tmp_path / "runs" / "report" / "report.html").is_file()


def test_smollm2_from_the_cold_start_to_comparison(tmp_path: Path) -> None:
    """With a tiny Llama in the place of the imported weights."""
    saved(tiny_llama(max_position_embeddings=512), tmp_path / "runs" / "model")
    shown = ran_script("smollm2.sh", tmp_path, SETTINGS=" ".join(SHORT), SEEDS="7")
    assert "points of mean@k" in shown
    for name, turns in (("eapo-1", 2), ("self-exploratory-1", 1)):
        config = Run.open(tmp_path / "runs" / "seed-7" / name).config
        assert (config.seed, config.annealing.turn_budget) == (7, turns)
        assert "smollm2-cold-start-1/checkpoints/step-000001" in config.model.path


def test_a_cold_start_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = example("two_experts")
    saved(tiny_llama(max_position_embeddings=4096), tmp_path / "model")
    longer = [f"rollout.limits.max_{part}_tokens=2048" for part in ("prompt", "response")]
    settings = as_options([*SHORT, *longer, "cold_start.batch_size=2"])
    module.main([str(tmp_path / "model"), str(tmp_path / "runs"), *settings])
    assert "/checkpoints/step-000001" in capsys.readouterr().out
    rows = (tmp_path / "runs" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    for problem, answer in (json.loads(row).values() for row in rows):
        parts = module.parts_of(problem)
        assert module.statement(parts) == problem
        assert str(sum(part.value for part in parts)) == answer


def test_the_packages_do_without_skrl() -> None:
    for package in ("eapo_env", "eapo_agents"):
        for path in (ROOT / package).rglob("*.py"):
            assert "import skrl" not in path.read_text(encoding="utf-8"), path
            assert "from skrl" not in path.read_text(encoding="utf-8"), path
