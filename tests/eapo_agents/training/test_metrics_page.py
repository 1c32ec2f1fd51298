"""The page of metrics names all that a run can record, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from tiny_llama import tiny_llama
from transformers import PreTrainedTokenizerFast

from eapo_agents.learning.algorithms import AlgorithmSettings, PythonAlgorithm
from eapo_agents.learning.learner import Learner
from eapo_agents.learning.losses import LossInputs
from eapo_agents.learning.settings import LearnerSettings
from eapo_agents.rollouts.trajectory import Demonstration
from eapo_agents.testing import Script, ScriptedPolicy
from eapo_agents.training.config import TrainConfig, with_settings
from eapo_agents.training.run_folder import Run
from eapo_agents.training.trainer import Trainer
from eapo_env.actions import Consult, render_consult
from eapo_env.spending import Budget
from eapo_env.types import ExpertReply, Query, Reply, Usage

PAGE = (Path(__file__).parents[3] / "docs/metrics.md").read_text(encoding="utf-8")


def documented(*sections: str) -> list[str]:
    """Return the names in the first columns of the tables, by default of all; "*" is any text."""
    parts = [part for part in PAGE.split("\n## ")[1:] if part.splitlines()[0] in sections]
    rows = re.findall(r"^\| (`.+?) \|", "\n".join(parts) if sections else PAGE, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


@dataclass(frozen=True)
class HostedExperts:
    """A pool whose replies tell all that a reply can; of one the tokens are unknown."""

    budget: Budget = field(default_factory=lambda: Budget(cost_limit=100.0))

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        usages = [Usage(), *[Usage(10, 5, 0.01)] * len(queries)]
        return [Reply("one", "7", hedged=True, usage=usages[query.slot]) for query in queries]


def guess(_prompt: str, rng: np.random.Generator) -> str:
    return f"\\boxed{{{rng.integers(3, 5)}}}"


def ask_or_guess(prompt: str, rng: np.random.Generator) -> str:
    """Ask up to three experts at once, at most twice, where there are any; then guess."""
    queries = ("one", "two", "three")[: rng.integers(4)]
    if queries and "ask" in prompt and prompt.count("<consult>") < 2:
        return render_consult(Consult(queries))
    return guess(prompt, rng)


def knows(_prompt: str, _rng: np.random.Generator) -> str:
    return "\\boxed{3}"


@dataclass(frozen=True)
class Training:
    """Trains the tiny model on what a script plays, under another's weights."""

    config: TrainConfig
    tokenizer: PreTrainedTokenizerFast
    folder: Path

    def names(self, script: Script, *settings: str) -> set[str]:
        """Return the names of all metrics that a run has recorded."""
        config = with_settings(self.config, ["steps=2", "sync.tolerance=100", *settings])
        policy, run = ScriptedPolicy(self.tokenizer, script), Run.create(config, self.folder)
        assert Trainer.from_config(config, policy=policy, experts=HostedExperts()).train(run)
        return {name for row in run.metrics for name in row}


@pytest.fixture
def training(
    tiny_config: TrainConfig, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> Training:
    return Training(tiny_config, tokenizer, tmp_path)


def of_losses() -> set[str]:
    """Return the names of what the losses of all algorithms measure."""
    zeros_BT, ones_B = torch.zeros(1, 2), torch.ones(1)
    inputs = LossInputs(
        logp_BT=zeros_BT,
        logp_old_BT=zeros_BT,
        logp_sampler_BT=zeros_BT,
        advantage_B=ones_B,
        mask_BT=torch.tensor([[False, True]]),
        num_group_tokens_B=ones_B,
        num_tokens=1.0,
        num_sequences=1.0,
        num_groups=1.0,
    )
    algorithms = [one() for one in get_args(AlgorithmSettings) if one is not PythonAlgorithm]
    outputs = [algorithm.loss(inputs) for algorithm in algorithms]
    sums = {name for output in outputs for name in output.sums}
    return sums | {f"max_{name}" for output in outputs for name in output.maxima}


def of_imitation() -> set[str]:
    """Return the names of what an update by imitation measures."""
    lesson = Demonstration(token_ids=np.array([1, 2]), mask=np.array([False, True]))
    return set(Learner(tiny_llama(), settings=LearnerSettings(device="cpu")).sft_update([lesson]))


@pytest.mark.slow
def test_the_page_names_every_metric_once_and_no_other(training: Training) -> None:
    """The first step has help, up to six replies an episode; the second has none."""
    help_in_step_1 = ["annealing.steps=1", "annealing.turn_budget=4"]
    found = training.names(ask_or_guess, *help_in_step_1) | of_losses() | of_imitation()
    named = documented()
    lines = {name: [one for one in named if fnmatchcase(name, one)] for name in found}
    assert {name: where for name, where in lines.items() if len(where) != 1} == {}
    assert set(named) - {where for [where] in lines.values()} == set()


@pytest.mark.slow
def test_what_did_not_happen_is_not_there(training: Training) -> None:
    """All groups are right, and nobody asks: nothing is learned, and nothing is spent."""
    found = training.names(knows)
    absent = {"Experts", "Learning"}
    assert not found & set(documented(*absent))
    assert not found & set(documented("What has a condition")) - {"expert_budget_used"}
    assert found & set(documented("Agreement of sampler and learner")) == {"sync_gap"}
    assert set(documented("Groups and signal", "Consulting")) <= found


def test_an_update_by_imitation_measures_what_is_learned() -> None:
    clipping = {"clip_low_rate", "clip_high_rate", "dual_clip_rate"}
    assert of_imitation() == set(documented("Learning")) - clipping


def test_the_five_to_look_at_first_are_in_the_tables() -> None:
    first = re.findall(r"^\d\. `(.+?)`", PAGE, re.MULTILINE)
    assert len(first) == 5
    assert set(first) <= set(documented())
