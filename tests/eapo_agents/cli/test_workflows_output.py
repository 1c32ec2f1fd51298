"""Workflows that resume: finished conditions are not played again."""

from __future__ import annotations

import asyncio
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from transformers import PreTrainedTokenizerFast

from eapo_agents.cli.evaluate import EvaluationFiles, problem_sets
from eapo_agents.cli.workflows import _evaluations, _method
from eapo_agents.methods.solutions import Solution
from eapo_agents.methods.workflows import Workflow
from eapo_agents.policies.chat_model import PolicyChat
from eapo_agents.testing import ScriptedPolicy
from eapo_agents.training.config import TrainConfig


def test_a_condition_that_is_finished_is_not_played_again(
    tokenizer: PreTrainedTokenizerFast, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    """The model dies in the second condition; the same evaluations resume there."""
    prompts: list[str] = []

    def script(prompt: str, rng: np.random.Generator) -> str:
        prompts.append(prompt)
        if len(prompts) == dies_at:
            raise KeyError("the policy dies")
        return "\\boxed{3}"

    sets = problem_sets(tiny_config, [])
    model = PolicyChat(ScriptedPolicy(tokenizer, script))
    methods = [
        _method(tiny_config, Workflow(), model, condition, sets)
        for condition in ("alone", "meaningless")
    ]
    files = {one.name: EvaluationFiles(report=tmp_path / f"{one.name}.json") for one in methods}
    console, dies_at = Console(file=StringIO()), 8 + 3
    with pytest.raises(KeyError, match="the policy dies"):
        asyncio.run(_evaluations(console, tiny_config, methods, sets, files))
    assert (tmp_path / "alone.json").exists()
    dies_at = 0
    prompts.clear()
    asyncio.run(_evaluations(console, tiny_config, methods, sets, files))
    assert 0 < len(prompts) <= 8, "nothing but the second condition"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"alone.json", "meaningless.json"}


def test_an_evaluation_does_not_resume_with_another_recording(
    tokenizer: PreTrainedTokenizerFast, tiny_config: TrainConfig
) -> None:
    """The same experts and samples, and one other text."""
    sets = problem_sets(tiny_config, [])
    model = PolicyChat(ScriptedPolicy(tokenizer, lambda *_: "\\boxed{3}"))

    def recorded(text: str) -> dict[str, list[Solution]]:
        return {
            p.id: [
                Solution(problem=p.id, sample=n, expert="expert", text=t, status="correct")
                for n, t in enumerate(("\\boxed{3}", "\\boxed{3}", text))
            ]
            for p in sets[0].problems
        }

    one, same, another = (
        _method(tiny_config, Workflow(solutions=texts), model, "recorded", sets).subject
        for texts in (recorded("one"), recorded("one"), recorded("another"))
    )
    assert one == same
    assert one != another
