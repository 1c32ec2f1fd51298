from __future__ import annotations

import json
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import pytest

pytest.importorskip("vllm")

from tiny_llama import saved, teach, tiny_llama

from eapo_agents.methods.distillation import distill
from eapo_agents.methods.solutions import Solution
from eapo_agents.training.config import TrainConfig, with_settings
from eapo_agents.training.imitation_settings import DistillationSettings
from eapo_agents.training.run_folder import Run
from eapo_agents.training.trainer import Trainer

ON_VLLM = [
    "engine=vllm",
    "engine.dtype=float32",
    "engine.max_batch=64",
    f"engine.cache_bytes={32 << 20}",
    "sync.tolerance=1e-4",
]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model of the other tests, with heads of a size that vLLM's CPU kernels have."""
    model = tiny_llama()
    teach(model, updates=80)
    return saved(model, tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def config(tiny_config: TrainConfig, llama: Path) -> TrainConfig:
    settings = [
        f"model.path={llama}",
        "steps=6",
        "annealing.steps=6",
        "learner.learning_rate=0.003",
    ]
    return with_settings(tiny_config, settings)


def train(trainer: Trainer, folder: Path) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    run = Run.create(trainer.config, folder)
    with closing(trainer):
        assert trainer.train(run, lambda step, metrics: rows.append(dict(metrics)))
    return rows


def test_a_run_on_vllm_is_like_one_on_transformers(config: TrainConfig, tmp_path: Path) -> None:
    theirs = train(Trainer.from_config(config), tmp_path / "transformers")
    ours = train(Trainer.from_config(with_settings(config, ON_VLLM)), tmp_path / "vllm")
    # Whether an expert was asked in a step, and what was read, is a matter of luck.
    lucky = ("expert_failure_rate", "expert_errors", "seconds/expert", "accuracy/")
    names = [
        [{name for name in row if not name.startswith(lucky)} - {"sync_gap"} for row in rows]
        for rows in (ours, theirs)
    ]
    assert names[0] == names[1]
    assert all(row["sync_gap"] < 1e-4 for row in ours)
    for rows in (ours, theirs):
        assert len(rows) == 6
        assert all(abs(row["mismatch_kl"]) < 1e-6 for row in rows)
        assert all(row["max_mismatch_ratio"] < 1 + 1e-4 for row in rows)
        assert rows[-1]["accuracy"] > rows[0]["accuracy"] + 0.2
    for name, within in (("accuracy", 0.25), ("call_rate", 0.25), ("response_tokens", 3.0)):
        assert ours[0][name] == pytest.approx(theirs[0][name], abs=within), name


def test_a_run_on_vllm_goes_on_from_its_checkpoint(config: TrainConfig, tmp_path: Path) -> None:
    """The engine of the second process starts from the old weights, and must be given the new."""
    config = with_settings(config, [*ON_VLLM, "steps=4", "checkpoint_every=2"])
    whole = train(Trainer.from_config(config), tmp_path / "whole")
    half = Run.create(config, tmp_path / "half")
    with closing(Trainer.from_config(replace(config, steps=2))) as trainer:
        assert trainer.train(half)
    with closing(Trainer.from_config(config)) as trainer:
        assert trainer.train(half)
    for ours, theirs in zip(half.metrics, whole, strict=True):
        assert ours["accuracy"] == pytest.approx(theirs["accuracy"], abs=0.3)
    assert half.metrics[2]["sync_gap"] < 1e-4


def test_a_hand_over_that_fails_ends_the_run(config: TrainConfig, tmp_path: Path) -> None:
    trainer = Trainer.from_config(with_settings(config, [*ON_VLLM, "sync.tolerance=1e-12"]))
    with closing(trainer), pytest.raises(ValueError, match="does not sample from the learner"):
        trainer.train(Run.create(config, tmp_path))


def test_a_distilled_policy_on_vllm_samples_from_merged_adapters(
    config: TrainConfig, tmp_path: Path
) -> None:
    """The solutions stand in the run folder already: no expert is asked."""
    config = replace(
        with_settings(config, [*ON_VLLM, "steps=20", "model.lora.rank=8"]),
        distillation=DistillationSettings(samples_per_problem=1, learning_rate=1e-2),
    )
    run = Run.create(config, tmp_path)
    lines = [
        asdict(
            Solution(problem=problem.id, sample=0, expert="", text="\\boxed{3}", status="correct")
        )
        for problem in config.problems.load()
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run.folder / "solutions.jsonl").write_text(text, encoding="utf-8")
    assert distill(run)
    assert run.metrics[-1]["sync_gap"] < 1e-4
    assert run.metrics[-1]["loss"] < 0.5 * run.metrics[0]["loss"]
    assert run.metrics[-1]["alone/mean_at_k"] >= 0.25  # 0.1 before
