"""The metrics of an optimiser step, added up over its micro-batches, and their means over steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import torch
from torch import Tensor

from eapo_agents.losses import LossOutput


def add(report: dict[str, Tensor], outputs: Sequence[LossOutput], num_tokens: float) -> None:
    """Add a micro-batch to the report: shares of losses, sums a token, `max_` of maxima."""
    for output in outputs:
        report["loss"] = report.get("loss", 0.0) + output.loss.detach()
        for name, value in output.sums.items():
            report[name] = report.get(name, 0.0) + value.detach() / num_tokens
        for name, value in output.maxima.items():
            report[f"max_{name}"] = torch.maximum(report.get(f"max_{name}", value), value.detach())


def mean_of_steps(reports: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each metric over the optimiser steps, or the largest of a maximum."""
    return {
        name: (max if name.startswith("max_") else fmean)([report[name] for report in reports])
        for name in reports[0]
    }
