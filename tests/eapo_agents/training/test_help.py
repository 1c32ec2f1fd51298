"""Who gets help in training: common gate draws, help after a failure, help by success."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from eapo_agents.training.checkpoint import SuccessAlone
from eapo_agents.training.config import TrainConfig, with_settings
from eapo_agents.training.run_folder import Run
from eapo_agents.training.trainer import Trainer

VARIANTS = {
    "common gate draws": ["rollout.gate_draws=group", "annealing.initial_acceptance_rate=0.5"],
    "help after a failure": ["rollout.help_for=failed_alone"],
    "help by success": [
        "annealing.schedule=ours_by_success",
        "annealing.initial_acceptance_rate=0.6",
    ],
}


def test_success_alone_by_hand() -> None:
    after_one = SuccessAlone().after([True] * 10 + [False] * 30)
    assert after_one == SuccessAlone(right=10, episodes=40, best=0)  # too few to judge by
    after_two = after_one.after([True] * 30)
    assert (after_two.right, after_two.episodes) == (38.5, 64)
    assert after_two.best == 38.5 / 64
    assert after_two.after([False] * 64).best == after_two.best


@given(st.lists(st.lists(st.booleans(), max_size=80), max_size=8))
def test_the_best_success_never_falls(steps: list[list[bool]]) -> None:
    success = SuccessAlone()
    for alone in steps:
        later = success.after(alone)
        assert success.best <= later.best <= 1
        success = later


def transcripts(run: Run) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in run.transcripts.values()
        for line in path.read_text("utf-8").splitlines()
    ]


def numbers(run: Run) -> list[dict[str, float]]:
    machine = ("seconds/", "memory/")
    return [{k: v for k, v in row.items() if not k.startswith(machine)} for row in run.metrics]


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_resumes_as_if_nothing_had_happened(
    variant: str, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    settings = ["steps=3", "checkpoint_every=1", "transcripts_every=1", *VARIANTS[variant]]
    config = with_settings(tiny_config, settings)
    whole, halves = Run.create(config, tmp_path), Run.create(config, tmp_path)
    assert Trainer.from_config(config).train(whole)

    def stop(step: int, metrics: Mapping[str, float]) -> None:
        raise RuntimeError("enough")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="enough"):
            Trainer.from_config(config).train(halves, stop)
    assert Trainer.from_config(config).train(halves)
    assert numbers(halves) == numbers(whole)
    assert transcripts(halves) == transcripts(whole)


@pytest.mark.slow
def test_help_comes_after_a_whole_group_has_failed(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    settings = ["steps=2", "transcripts_every=1", "annealing.steps=60"]
    config = with_settings(tiny_config, [*settings, *VARIANTS["help after a failure"]])
    run = Run.create(config, tmp_path)
    assert Trainer.from_config(config).train(run)
    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for step, path in run.transcripts.items():
        for line in path.read_text("utf-8").splitlines():
            row = json.loads(line)
            groups.setdefault((step, row["problem_id"]), []).append(row)
    alone = [{row["turn_budget"] == 1 for row in rows} for rows in groups.values()]
    assert [True] in map(list, alone)
    assert [False] in map(list, alone)
    for rows, kinds in zip(groups.values(), alone, strict=True):
        assert len(kinds) == 1
        if kinds == {True}:
            assert any(row["status"] == "correct" for row in rows)
    for row in run.metrics:
        assert 0 < row["groups_helped"] < 1
        assert row["accuracy/alone"] > 0
