"""Whether two runs recorded, and learned, the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load_file

from eapo_agents.training.run_folder import Run


def numbers(run: Run) -> list[dict[str, float]]:
    """All metrics but those of the machine."""
    machine = ("seconds/", "memory/")
    return [{k: v for k, v in row.items() if not k.startswith(machine)} for row in run.metrics]


def transcripts(run: Run) -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in (run.folder / "transcripts").iterdir()}


def same(one: Any, other: Any) -> bool:
    """Whether nested values are equal, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def assert_same_training(one: Run, other: Run) -> None:
    assert numbers(one) == numbers(other)
    assert transcripts(one) == transcripts(other)
    assert one.last_evaluation == other.last_evaluation
    last, other_last = one.checkpoints[-1], other.checkpoints[-1]
    assert last.name == other_last.name
    assert same(load_file(last / "model.safetensors"), load_file(other_last / "model.safetensors"))
    states = [torch.load(folder / "learner.pt") for folder in (last, other_last)]
    assert same(*states)
