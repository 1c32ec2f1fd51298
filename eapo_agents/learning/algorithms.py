"""An algorithm as a value: how rewards become advantages, and advantages a loss.

A trainer takes any `Algorithm`; these are the ones at hand. A variant is a value too:

    replace(DAPO, name="dapo-symmetric", loss=partial(dapo_loss, clip_high=0.2))
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from eapo_agents.learning.advantages import (
    Advantages,
    centred_advantages,
    group_advantages,
    leave_one_out_advantages,
)
from eapo_agents.learning.losses import (
    Loss,
    Normalisation,
    batch_mean,
    cispo_loss,
    constant_mean,
    dapo_loss,
    dr_grpo_loss,
    group_mean,
    grpo_loss,
    gspo_loss,
    rloo_loss,
    sequence_mean,
)
from eapo_env.validation import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """A name for the records, an advantage function and a loss."""

    name: str
    advantages: Advantages
    loss: Loss


DAPO = Algorithm(name="dapo", advantages=group_advantages, loss=dapo_loss)
"""The algorithm of the paper (3.1, Table 5); its dynamic sampling is the rollout's part."""
GRPO = Algorithm(name="grpo", advantages=group_advantages, loss=grpo_loss)
DR_GRPO = Algorithm(name="dr_grpo", advantages=centred_advantages, loss=dr_grpo_loss)
GSPO = Algorithm(name="gspo", advantages=group_advantages, loss=gspo_loss)
CISPO = Algorithm(name="cispo", advantages=group_advantages, loss=cispo_loss)
RLOO = Algorithm(name="rloo", advantages=leave_one_out_advantages, loss=rloo_loss)

ALGORITHMS = (DAPO, GRPO, DR_GRPO, GSPO, CISPO, RLOO)
"""Those above, for a command line to choose from by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DapoSettings:
    """The knobs of DAPO's loss (`losses.dapo_loss`); clip values as in the paper's Table 5.

    Args:
        clip_low, clip_high: the ratio is clipped to [1 - clip_low, 1 + clip_high].
        dual_clip: with a negative advantage, the largest ratio that counts; None for no bound
            (inferred from the DAPO recipe: 10).
        importance_cap: the largest weight that corrects for the sampler's kernels; None corrects
            for nothing.
        normalisation: what a token's share is taken of: all tokens of the step ("batch", as in
            verl), those of its group ("group", as the paper writes), of its sequence ("sequence"),
            or `max_tokens` ("constant").
        max_tokens: of a sequence, for "constant" only.

    Raises:
        UserError: a value out of its range.
    """

    clip_low: float = 0.2
    clip_high: float = 0.28
    dual_clip: float | None = 10.0
    importance_cap: float | None = 2.0
    normalisation: Literal["batch", "group", "sequence", "constant"] = "batch"
    max_tokens: int = 20_480

    def __post_init__(self) -> None:
        if not 0 < self.clip_low < 1:
            raise UserError(f"clip_low must be between 0 and 1, not {self.clip_low}")
        if not 0 < self.clip_high < math.inf:
            raise UserError(f"clip_high must be positive and finite, not {self.clip_high}")
        if self.dual_clip is not None and not self.dual_clip > 1:
            raise UserError(f"dual_clip must be above 1, or null, not {self.dual_clip}")
        if self.importance_cap is not None and not self.importance_cap > 0:
            raise UserError(f"importance_cap must be positive, or null, not {self.importance_cap}")
        if self.max_tokens < 1:
            raise UserError(f"max_tokens must be at least 1, not {self.max_tokens}")

    @property
    def algorithm(self) -> Algorithm:
        """DAPO with these settings."""
        loss = partial(
            dapo_loss,
            clip_low=self.clip_low,
            clip_high=self.clip_high,
            dual_clip=self.dual_clip,
            importance_cap=self.importance_cap,
            normalisation=self._mean,
        )
        return replace(DAPO, loss=loss)

    @property
    def _mean(self) -> Normalisation:
        match self.normalisation:
            case "batch":
                return batch_mean
            case "group":
                return group_mean
            case "sequence":
                return sequence_mean
            case "constant":
                return partial(constant_mean, max_tokens=float(self.max_tokens))
