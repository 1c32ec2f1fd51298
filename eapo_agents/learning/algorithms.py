"""Policy-optimisation algorithms: an advantage function and a loss, with their settings.

Each is a frozen dataclass of its settings: `DAPO(clip_high=0.2)` is a variant. A trainer takes any
`Algorithm`; `CustomAlgorithm` makes one from two functions. To add one here: its loss in
`losses.py`, its class here and in `AlgorithmSettings`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, runtime_checkable

from eapo_agents.factories import Factory
from eapo_agents.learning.advantages import (
    Advantages,
    Rewards,
    centred_advantages,
    group_advantages,
    leave_one_out_advantages,
    max_rl_advantages,
)
from eapo_env.validation import UserError, positive

if TYPE_CHECKING:
    from eapo_agents.learning.losses import Loss, LossInputs, LossOutput, Normalisation


class Algorithm(Protocol):
    """Computes advantages from rewards, and a loss from advantages; `check_algorithm` tests one.

    It may have more methods, each by itself:

    - `keeps(group: Group) -> bool`: whether to train on a group, in the place of
      `rollout.sampling.keep`.
    - `state_dict() -> dict` and `load_state_dict(state)` (`StatefulAlgorithm`): what it remembers
      from update to update, such as a running baseline, as numbers, strings, tensors, lists and
      dicts of them. A checkpoint keeps it. Each of several processes calls `advantages` for all
      groups.
    """

    @property
    def name(self) -> str:
        """The name in records and reports."""

    def advantages(self, rewards_G: Rewards) -> Rewards:
        """Return the advantage of each trajectory of a group, from the group's rewards."""

    def loss(self, inputs: LossInputs) -> LossOutput:
        """Return a micro-batch's share of the loss of its optimiser step."""


@runtime_checkable
class StatefulAlgorithm(Protocol):
    """An algorithm with a state that checkpoints keep."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state: numbers, texts, tensors, and lists and dicts of these."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomAlgorithm:
    """A custom algorithm, from an advantage function and a loss.

    Args:
        name: the name in records and reports.
        advantages: rewards_G -> advantages_G; see `advantages.py`.
        loss: LossInputs -> LossOutput; see `losses.py`. With several processes, use functions of a
            module: lambdas cannot be pickled.
    """

    name: str
    advantages: Advantages
    loss: Loss


class _BuiltIn:
    """What the algorithms below have in common."""

    __slots__ = ()
    kind: str

    @property
    def name(self) -> str:
        """The name in records and reports."""
        return self.kind

    def build(self) -> Self:
        """Return the algorithm itself."""
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class DAPO(_BuiltIn):
    """DAPO (arXiv 2503.14476), the paper's algorithm (3.1), with the clip values of its Table 5.

    Dynamic sampling is in `rollout.sampling`.

    Args:
        clip_low: the ratio is clipped from below to 1 - clip_low.
        clip_high: the ratio is clipped from above to 1 + clip_high.
        dual_clip: upper bound of the ratio where the advantage is negative; None for no bound
            (inferred from the DAPO recipe: 10).
        importance_cap: cap of the importance weights between learner and sampler; None disables
            them.
        normalisation: the mean is over all tokens of the step ("batch", as in verl), per group
            ("group", as the paper writes) or per sequence ("sequence"), or each sequence's sum is
            divided by `max_tokens` ("constant").
        max_tokens: the divisor of "constant".

    Raises:
        UserError: a value out of its range.
    """

    kind: Literal["dapo"] = "dapo"
    clip_low: float = 0.2
    clip_high: float = 0.28
    dual_clip: float | None = 10.0
    importance_cap: float | None = 2.0
    normalisation: Literal["batch", "group", "sequence", "constant"] = "batch"
    max_tokens: int = 20_480

    def __post_init__(self) -> None:
        _check_clip_low(self.clip_low)
        _check_positive_and_finite("clip_high", self.clip_high)
        if self.dual_clip is not None and not self.dual_clip > 1:
            raise UserError(f"dual_clip must be above 1, or null, not {self.dual_clip}")
        _check_importance_cap(self.importance_cap)
        if self.max_tokens < 1:
            raise UserError(f"max_tokens must be at least 1, not {self.max_tokens}")

    def advantages(self, rewards_G: Rewards) -> Rewards:
        """See `group_advantages`."""
        return group_advantages(rewards_G)

    def loss(self, inputs: LossInputs) -> LossOutput:
        """See `dapo_loss`."""
        from eapo_agents.learning.losses import dapo_loss

        return dapo_loss(
            inputs,
            clip_low=self.clip_low,
            clip_high=self.clip_high,
            dual_clip=self.dual_clip,
            importance_cap=self.importance_cap,
            normalisation=self._normalisation,
        )

    @property
    def _normalisation(self) -> Normalisation:
        from eapo_agents.learning import losses

        match self.normalisation:
            case "batch":
                return losses.batch_mean
            case "group":
                return losses.group_mean
            case "sequence":
                return losses.sequence_mean
            case "constant":
                return partial(losses.constant_mean, max_tokens=float(self.max_tokens))


@dataclass(frozen=True, slots=True, kw_only=True)
class GRPO(_BuiltIn):
    """GRPO without a KL term (arXiv 2402.03300).

    Args:
        clip: the ratio is clipped to [1 - clip, 1 + clip].
        importance_cap: cap of the importance weights between learner and sampler; None disables
            them.

    Raises:
        UserError: a value out of its range.
    """

    kind: Literal["grpo"] = "grpo"
    clip: float = 0.2
    importance_cap: float | None = 2.0

    def __post_init__(self) -> None:
        _check_clip_low(self.clip, "clip")
        _check_importance_cap(self.importance_cap)

    def advantages(self, rewards_G: Rewards) -> Rewards:
        """See `group_advantages`."""
        return group_advantages(rewards_G)

    def loss(self, inputs: LossInputs) -> LossOutput:
        """See `grpo_loss`."""
        from eapo_agents.learning.losses import grpo_loss

        return grpo_loss(inputs, clip=self.clip, importance_cap=self.importance_cap)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrGRPO(_BuiltIn):
    """Dr. GRPO: no division by a group's deviation or a sequence's length (arXiv 2503.20783).

    Args:
        clip: the ratio is clipped to [1 - clip, 1 + clip].
        max_tokens: the constant that a sequence's sum is divided by (its generation budget: 3000).
        importance_cap: cap of the importance weights between learner and sampler; None disables
            them.

    Raises:
        UserError: a value out of its range.
    """

    kind: Literal["dr_grpo"] = "dr_grpo"
    clip: float = 0.2
    max_tokens: float = 3000.0
    importance_cap: float | None = 2.0

    def __post_init__(self) -> None:
        _check_clip_low(self.clip, "clip")
        positive(self, "max_tokens")
        _check_importance_cap(self.importance_cap)

    def advantages(self, rewards_G: Rewards) -> Rewards:
        """See `centred_advantages`."""
        return centred_advantages(rewards_G)

    def loss(self, inputs: LossInputs) -> LossOutput:
        """See `dr_grpo_loss`."""
        from eapo_agents.learning.losses import dr_grpo_loss

        return dr_grpo_loss(
            inputs, clip=self.clip, max_tokens=self.max_tokens, importance_cap=self.importance_cap
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GSPO(_BuiltIn):
    """GSPO: one length-normalised ratio per sequence (arXiv 2507.18071, clip values of its 5.1).

    Args:
        clip_low: the ratio is clipped from below to 1 - clip_low.
        clip_high: the ratio is clipped from above to 1 + clip_high.
        importance_cap: cap of the importance weights between learner and sampler; None disables
            them.

    Raises:
        UserError: a value out of its range.
    """

    kind: Literal["gspo"] = "gspo"
    clip_low: float = 3e-4
    clip_high: float = 4e-4
    importance_cap: float | None = 2.0

    def __post_init__(self) -> None:
        _check_clip_low(self.clip_low)
        _check_positive_and_finite("clip_high", self.clip_high)
        _check_importance_cap(self.importance_cap)

    def advantages(self, rewards_G: Rewards) -> Rewards:
        """See `group_advantages`."""
        return group_advantages(rewards_G)

    def loss(self, inputs: LossInputs) -> LossOutput:
        """See `gspo_loss`."""
        from eapo_agents.learning.losses import gspo_loss

        return gspo_loss(
            inputs,
            clip_low=self.clip_low,
            clip_high=self.clip_high,
            importance_cap=self.importance_cap,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CISPO(_BuiltIn):
    """CISPO: a truncated ratio as a constant weight, so that every token learns (arXiv 2506.13585).

    Args:
        max_ratio: where the ratio is truncated (ScaleRL, 2510.13786: 5).
        importance_cap: cap of the importance weights between learner and sampler; None disables
            them.

    Raises:
        UserError: a value out of its range.
    """

    kind: Literal["cispo"] = "cispo"
    max_ratio: float = 5.0
    importance_cap: float | None = 2.0

    def __post_init__(self) -> None:
        positive(self, "max_ratio")
        _check_importance_cap(self.importance_cap)

    def advantages(self, rewards_G: Rewards) -> Rewards:
        """See `group_advantages`."""
        return group_advantages(rewards_G)

    def loss(self, inputs: LossInputs) -> LossOutput:
        """See `cispo_loss`."""
        from eapo_agents.learning.losses import cispo_loss

        return cispo_loss(inputs, max_ratio=self.max_ratio, importance_cap=self.importance_cap)


@dataclass(frozen=True, slots=True, kw_only=True)
class RLOO(_BuiltIn):
    """RLOO: REINFORCE with a leave-one-out baseline (arXiv 2402.14740).

    Args:
        importance_cap: cap of the importance weights between learner and sampler; None disables
            them.

    Raises:
        UserError: a value out of its range.
    """

    kind: Literal["rloo"] = "rloo"
    importance_cap: float | None = 2.0

    def __post_init__(self) -> None:
        _check_importance_cap(self.importance_cap)

    def advantages(self, rewards_G: Rewards) -> Rewards:
        """See `leave_one_out_advantages`."""
        return leave_one_out_advantages(rewards_G)

    def loss(self, inputs: LossInputs) -> LossOutput:
        """See `rloo_loss`."""
        from eapo_agents.learning.losses import rloo_loss

        return rloo_loss(inputs, importance_cap=self.importance_cap)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxRL(_BuiltIn):
    """MaxRL: maximum-likelihood RL, which weighs hard problems most (arXiv 2602.02710).

    The advantages are MaxRL's, the loss is DAPO's. Meant for rewards of 0 and 1.

    Args:
        clip_low: the ratio is clipped from below to 1 - clip_low.
        clip_high: the ratio is clipped from above to 1 + clip_high.
        importance_cap: cap of the importance weights between learner and sampler; None disables
            them.

    Raises:
        UserError: a value out of its range.
    """

    kind: Literal["max_rl"] = "max_rl"
    clip_low: float = 0.2
    clip_high: float = 0.28
    importance_cap: float | None = 2.0

    def __post_init__(self) -> None:
        _check_clip_low(self.clip_low)
        _check_positive_and_finite("clip_high", self.clip_high)
        _check_importance_cap(self.importance_cap)

    def advantages(self, rewards_G: Rewards) -> Rewards:
        """See `max_rl_advantages`."""
        return max_rl_advantages(rewards_G)

    def loss(self, inputs: LossInputs) -> LossOutput:
        """See `dapo_loss`."""
        from eapo_agents.learning.losses import dapo_loss

        return dapo_loss(
            inputs,
            clip_low=self.clip_low,
            clip_high=self.clip_high,
            importance_cap=self.importance_cap,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonAlgorithm(Factory):
    """A custom algorithm: what `factory(**arguments)` returns."""

    kind: Literal["python"] = "python"
    factory: str

    def build(self) -> Algorithm:
        """Return the algorithm.

        Raises:
            UserError: nothing callable is found under the factory's name.
        """
        algorithm: Algorithm = self.make("eapo.algorithms")
        return algorithm


AlgorithmSettings = DAPO | GRPO | DrGRPO | GSPO | CISPO | RLOO | MaxRL | PythonAlgorithm
"""The section `algorithm` of a run's config, distinguished by `kind`."""


def _check_clip_low(value: float, name: str = "clip_low") -> None:
    if not 0 < value < 1:
        raise UserError(f"{name} must be between 0 and 1, not {value}")


def _check_positive_and_finite(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise UserError(f"{name} must be positive and finite, not {value}")


def _check_importance_cap(value: float | None) -> None:
    if value is not None and not value > 0:
        raise UserError(f"importance_cap must be positive, or null, not {value}")
