"""The cold start: what is demonstrated, that it is learned, and where it can go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from command import as_options
from hypothesis import given, strategies as st
from tiny_llama import saved, tiny_llama

from eapo_agents.cli import main
from eapo_agents.methods.cold_start import (
    cold_start,
    cold_start_trainer,
    recorded_episode,
)
from eapo_agents.methods.solutions import Solution, add_solutions
from eapo_agents.policies.chat import Chat
from eapo_agents.rollouts.trajectory import Demonstration
from eapo_agents.training.checkpoint import Progress
from eapo_agents.training.config import TrainConfig, with_settings
from eapo_agents.training.presets import cold_started, distilled, embedded, local
from eapo_agents.training.run_folder import Run
from eapo_agents.training.trainer import Trainer
from eapo_env.actions import Answer, Consult
from eapo_env.prompts import Prompts
from eapo_env.types import Problem, Rules
from eapo_env.validation import UserError
from eapo_env.verifier import Status, Verifier

SHORT = [
    *("steps=3", "cold_start.batch_size=8", "evaluation.samples_per_problem=1"),
    *("evaluation.problems.num_problems=4", "learner.device=cpu"),
    *("problems.num_problems=64", "problems.brackets=1", "problems.operations=1"),
    *("evaluation.problems.brackets=1", "evaluation.problems.operations=1"),
]
PROBLEM = Problem(id="sum", statement="What is 3 + 4?", answer="7")
SOLUTION = "Three and four are seven. \\boxed{7}"


@pytest.fixture(scope="module")
def fresh_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tiny_llama(max_position_embeddings=2048)
    return saved(model, tmp_path_factory.mktemp("fresh"))


@pytest.fixture
def config(fresh_model: Path) -> TrainConfig:
    return with_settings(cold_started(embedded()), [*SHORT, f"model.path={fresh_model}"])


def lessons(config: TrainConfig, run: Run) -> tuple[Chat, Sequence[Demonstration]]:
    step = cold_start_trainer(config).step
    with asyncio.Runner() as runner:
        made = step.teacher.lessons(runner, run, Progress())  # type: ignore[attr-defined]
    return Chat(step.rollout.policy.tokenizer), made


@pytest.mark.parametrize("wording", ["terse", "full", "few-shot"])
def test_demonstrations_are_in_the_wording_of_the_run(
    config: TrainConfig, tmp_path: Path, wording: str
) -> None:
    """Some consult, some read a reply, some get none, some are alone; each ends in an answer."""
    config = with_settings(config, [f"rollout.wording={wording}", "steps=8"])
    chat, made = lessons(config, Run.create(config, tmp_path))
    assert len(made) == 64
    texts = [chat.tokenizer.decode(lesson.token_ids) for lesson in made]
    written = [chat.tokenizer.decode(one.token_ids[one.mask]) for one in made]
    consulting = [
        text
        for text in texts
        if "<query>" in text.partition("Problem: ")[2] or (wording == "terse" and "<query>" in text)
    ]
    assert 0.3 < len(consulting) / len(texts) < 0.9
    assert all("\\boxed{" in text for text in written)
    unavailable = {"terse": "<reply>-</reply>"}.get(wording, "No expert is available for this.")
    assert any(unavailable in text for text in consulting)
    assert any(unavailable not in text for text in consulting)
    opening = {"terse": "turns "}.get(wording, "Solve the problem below.")
    assert any(opening in text for text in texts)
    assert any("An example:" in text for text in texts) == (wording == "few-shot")


def test_held_out_problems_are_not_demonstrated(config: TrainConfig, tmp_path: Path) -> None:
    chat, made = lessons(config, Run.create(config, tmp_path))
    held_out = [problem.statement for problem in config.evaluation.problems.load()]
    texts = [chat.tokenizer.decode(lesson.token_ids) for lesson in made]
    assert not [one for one in held_out if any(one in text for text in texts)]


def test_a_cold_start_lowers_the_loss_and_resumes(config: TrainConfig, tmp_path: Path) -> None:
    config = with_settings(config, ["steps=6", "checkpoint_every=3", "learner.warmup_steps=1"])
    whole = Run.create(config, tmp_path)
    assert cold_start(whole)
    losses = [row["loss"] for row in whole.metrics]
    assert losses[-1] < 0.8 * losses[0]
    parted = Run.create(config, tmp_path)
    with pytest.raises(KeyError):
        cold_start(parted, on_step=_stop_at_4)
    assert cold_start(parted)
    assert [row["loss"] for row in parted.metrics] == losses
    assert whole.config.cold_start is not None
    assert whole.config.cold_start.learning_rate == 1e-3
    with pytest.raises(UserError, match="it is for eapo cold-start"):
        Trainer.from_config(config)


def _stop_at_4(step: int, metrics: object) -> None:
    if step == 4:
        raise KeyError


@given(st.integers(0, 10**6), st.booleans(), st.floats(0, 1))
def test_a_recorded_solution_is_said_with_and_without_a_reply(
    seed: int, alone: bool, rate: float
) -> None:
    rules = Rules.alone() if alone else Rules(turn_budget=2, acceptance_rate=rate)
    rng = np.random.default_rng(seed)
    episode = recorded_episode(PROBLEM, SOLUTION, rules, Prompts(), rng)
    assert [type(action) for action in episode.actions] == [Consult] * (not alone) + [Answer]
    assert (episode.response == SOLUTION) == (episode.num_accepted == 0)
    with Verifier(num_workers=1) as verifier:
        [verdict] = verifier.verify([(episode.response, PROBLEM.answer)])
    assert verdict.status == Status.CORRECT


def test_problems_need_recorded_solutions_or_are_procedural(
    config: TrainConfig, tmp_path: Path
) -> None:
    file = tmp_path / "sums.jsonl"
    rows = [{"id": f"s{n}", "problem": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(9)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = with_settings(config, [f"problems.source={file}"])
    run = Run.create(config, tmp_path)
    with pytest.raises(UserError, match="none of 9 problems is procedural or has a recorded right"):
        lessons(config, run)
    recording = tmp_path / "recording.jsonl"
    solution = Solution(
        problem="s4", sample=0, expert="ada", text="4 + 1 = 5 \\boxed{5}", status="correct"
    )
    wrong = replace(solution, problem="s5", text="\\boxed{0}", status="wrong")
    recording.write_text("".join(json.dumps(asdict(one)) + "\n" for one in (solution, wrong)))
    add_solutions(recording, run)
    chat, made = lessons(config, run)
    written = [chat.tokenizer.decode(one.token_ids[one.mask]) for one in made]
    assert all("4 + 1" in text or "\\boxed{5}" in text for text in written)
    other = replace(solution, statement="What is 9 + 9?", sample=1)
    recording.write_text(json.dumps(asdict(other)) + "\n")
    add_solutions(recording, run)
    with pytest.raises(UserError, match="are of another problem of this id"):
        lessons(config, run)


def test_the_preset_keeps_all_but_the_method() -> None:
    for config in (local(), distilled(embedded())):
        found = cold_started(config, lora_rank=4)
        assert found.model.lora.rank == 4
        assert found.distillation is None
        assert found.problems == config.problems
        assert found.rollout == config.rollout


def test_the_command_says_how_to_go_on(
    fresh_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(fresh_model), "--runs", str(tmp_path), "--lora", "2", *as_options(SHORT)]
    assert main(["cold-start", *given]) == 0
    said = capsys.readouterr().out
    [run] = [Run.open(folder) for folder in tmp_path.iterdir()]
    model = run.checkpoints[-1]
    assert f"eapo train local --set model.path={model}" in " ".join(said.split())
    assert (model / "config.json").exists()
    assert main(["cold-start"]) == 2
    assert "name a model" in capsys.readouterr().err
