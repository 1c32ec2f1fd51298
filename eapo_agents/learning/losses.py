"""Losses of policy optimisation and of imitation, each one equation in pure torch.

A loss takes the `LossInputs` of one micro-batch and returns its *share* of the loss of the whole
optimiser step: the normalising counts are those of the whole step, so shares and their gradients
add up, however the step is split. A custom function of the same signature plugs in; to change a
setting of one of these, `functools.partial(dapo_loss, clip_high=0.2)`.

Below, r_t = pi(y_t) / pi_old(y_t), A is the sequence's advantage, and w_t the truncated importance
weight between learner and sampler (`importance_weights`), a constant for the gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from eapo_env.validation import UserError

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to this, so that exp() stays finite (as in verl)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossInputs:
    """The inputs of a loss: one micro-batch, and the counts of its whole optimiser step.

    Column t holds the probability of token t given those before it. Off the mask all
    log-probabilities are 0.

    Args:
        logp_BT: log-probabilities (nats) under the learner; carries the gradient.
        logp_old_BT: the same before the step's first update; equal in value to `logp_BT` when
            there is one update a step.
        logp_sampler_BT: the same as the sampler reported them.
        advantage_B: one advantage per sequence.
        mask_BT: True on the policy's own tokens.
        num_group_tokens_B: policy tokens in the whole group of each sequence.
        num_tokens: policy tokens of the whole optimiser step, over all processes.
        num_sequences: sequences of the whole optimiser step.
        num_groups: groups of the whole optimiser step.
    """

    logp_BT: Tensor
    logp_old_BT: Tensor
    logp_sampler_BT: Tensor
    advantage_B: Tensor
    mask_BT: Tensor
    num_group_tokens_B: Tensor
    num_tokens: float
    num_sequences: float
    num_groups: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LossOutput:
    """A micro-batch's share of the loss, with diagnostics: scalar tensors.

    Args:
        loss: what is differentiated.
        sums: diagnostics summed over policy tokens; the learner adds them up over micro-batches
            and reports each divided by the step's `num_tokens`.
        maxima: diagnostics of which the learner reports the largest, as `max_<name>`.

    Raises:
        UserError: one of them is no tensor, or has a shape.
    """

    loss: Tensor
    sums: dict[str, Tensor] = field(default_factory=dict)
    maxima: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in {"loss": self.loss, **self.sums, **self.maxima}.items():
            if not isinstance(value, Tensor) or value.dim():
                shown = f"shape {list(value.shape)}" if isinstance(value, Tensor) else repr(value)
                raise UserError(
                    f"{name!r} of a LossOutput must be a tensor of one number, not {shown}: sum it"
                    " over the policy's tokens"
                )


Loss = Callable[[LossInputs], LossOutput]
Normalisation = Callable[[LossInputs], Tensor]
"""Returns weight_B, the weight of a token of each sequence in the step's loss."""


def batch_mean(inputs: LossInputs) -> Tensor:
    """Return 1 / N for each sequence, N the policy tokens of the whole step (verl's DAPO)."""
    return torch.full_like(inputs.advantage_B, 1.0 / inputs.num_tokens)


def group_mean(inputs: LossInputs) -> Tensor:
    """Return 1 / (groups x tokens of the group): the token mean per group, as DAPO's eq. 8."""
    return 1.0 / (inputs.num_groups * inputs.num_group_tokens_B.clamp(min=1.0))


def sequence_mean(inputs: LossInputs) -> Tensor:
    """Return 1 / (sequences x own tokens): each sequence counts the same, as GRPO's eq. 3."""
    return 1.0 / (inputs.num_sequences * _num_own_tokens_B(inputs))


def constant_mean(inputs: LossInputs, *, max_tokens: float) -> Tensor:
    """Return 1 / (sequences x max_tokens): a token counts the same at any sequence length."""
    return torch.full_like(inputs.advantage_B, 1.0 / (inputs.num_sequences * max_tokens))


def dapo_loss(
    inputs: LossInputs,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dual_clip: float | None = 10.0,
    importance_cap: float | None = 2.0,
    normalisation: Normalisation = batch_mean,
) -> LossOutput:
    """Return DAPO's loss: clip-higher and a token-level mean, without a KL term.

        l_t = max(-A r_t, -A clip(r_t, 1 - clip_low, 1 + clip_high))
        l_t = min(l_t, -A dual_clip)   where A < 0
        L   = sum_t w_t l_t / N

    Source: DAPO (arXiv 2503.14476, eq. 8); dual clip (1912.09729, eq. 5); N and the value 10 as in
    verl's DAPO recipe. `dual_clip=None` and `importance_cap=None` switch these terms off.
    """
    advantage_B1 = inputs.advantage_B[:, None]
    ratio_BT = _cut(_log_ratio_BT(inputs)).exp()
    clipped_BT = ratio_BT.clamp(1.0 - clip_low, 1.0 + clip_high)
    loss_BT = torch.maximum(-advantage_B1 * ratio_BT, -advantage_B1 * clipped_BT)
    hits_BT = {
        "clip_low_rate": (advantage_B1 < 0) & (ratio_BT < 1.0 - clip_low),
        "clip_high_rate": (advantage_B1 > 0) & (ratio_BT > 1.0 + clip_high),
    }
    if dual_clip is not None:
        bound_BT = torch.minimum(loss_BT, -advantage_B1 * dual_clip)
        loss_BT = torch.where(advantage_B1 < 0, bound_BT, loss_BT)
        hits_BT["dual_clip_rate"] = (advantage_B1 < 0) & (ratio_BT > dual_clip)
    loss_BT = loss_BT * importance_weights(inputs, cap=importance_cap)
    return LossOutput(
        loss=_total(loss_BT, inputs, normalisation),
        sums={name: (hit_BT & inputs.mask_BT).sum() for name, hit_BT in hits_BT.items()},
    )


def grpo_loss(
    inputs: LossInputs, *, clip: float = 0.2, importance_cap: float | None = 2.0
) -> LossOutput:
    """Return GRPO's loss: PPO's symmetric clip, the mean over each sequence, then over sequences.

        L = 1/S sum_i 1/|y_i| sum_t w_t max(-A r_t, -A clip(r_t, 1 - clip, 1 + clip))

    Source: GRPO (arXiv 2402.03300, eq. 3), with its KL coefficient at 0.
    """
    return dapo_loss(
        inputs,
        clip_low=clip,
        clip_high=clip,
        dual_clip=None,
        importance_cap=importance_cap,
        normalisation=sequence_mean,
    )


def dr_grpo_loss(
    inputs: LossInputs,
    *,
    clip: float = 0.2,
    max_tokens: float = 3000.0,
    importance_cap: float | None = 2.0,
) -> LossOutput:
    """Return Dr. GRPO's loss: as GRPO, divided by a constant instead of each sequence's length.

        L = 1/S sum_i 1/max_tokens sum_t w_t max(-A r_t, -A clip(r_t, 1 - clip, 1 + clip))

    Source: Dr. GRPO (arXiv 2503.20783, 3.2; 3000 is its generation budget).
    """
    return dapo_loss(
        inputs,
        clip_low=clip,
        clip_high=clip,
        dual_clip=None,
        importance_cap=importance_cap,
        normalisation=lambda some: constant_mean(some, max_tokens=max_tokens),
    )


def gspo_loss(
    inputs: LossInputs,
    *,
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
    importance_cap: float | None = 2.0,
) -> LossOutput:
    """Return GSPO's loss: one length-normalised ratio per sequence, clipped as a whole.

        s_i = exp(1/|y_i| sum_t log r_t)
        L   = 1/S sum_i w_i max(-A s_i, -A clip(s_i, 1 - clip_low, 1 + clip_high))

    w_i is the importance weight of the same geometric mean, truncated at the cap.
    Source: GSPO (arXiv 2507.18071, eq. 5 and 7; clip values of its section 5.1).
    """
    advantage_B, tokens_B = inputs.advantage_B, _num_own_tokens_B(inputs)
    ratio_B = _cut(_log_ratio_BT(inputs).sum(1) / tokens_B).exp()
    clipped_B = ratio_B.clamp(1.0 - clip_low, 1.0 + clip_high)
    loss_B = torch.maximum(-advantage_B * ratio_B, -advantage_B * clipped_B)
    if importance_cap is not None:
        log_weight_B = _log_mismatch_BT(inputs).sum(1) / tokens_B
        loss_B = loss_B * _cut(log_weight_B).exp().clamp(max=importance_cap)
    hits_B = {
        "clip_low_rate": (advantage_B < 0) & (ratio_B < 1.0 - clip_low),
        "clip_high_rate": (advantage_B > 0) & (ratio_B > 1.0 + clip_high),
    }
    loss_B = loss_B * inputs.mask_BT.any(1)  # without a token of the policy its ratio would be 1
    return LossOutput(
        loss=loss_B.sum() / inputs.num_sequences,
        sums={name: (hit_B[:, None] & inputs.mask_BT).sum() for name, hit_B in hits_B.items()},
    )


def cispo_loss(
    inputs: LossInputs, *, max_ratio: float = 5.0, importance_cap: float | None = 2.0
) -> LossOutput:
    """Return CISPO's loss: a truncated ratio as constant weight, so that every token learns.

        L = -sum_t w_t stop_gradient(min(r_t, max_ratio)) A log pi(y_t) / N

    Source: CISPO (MiniMax-M1, arXiv 2506.13585, eq. 4, no lower bound, as there); the cap of
    ScaleRL (2510.13786).
    """
    ratio_BT = _cut(_log_ratio_BT(inputs)).exp().detach()
    weight_BT = ratio_BT.clamp(max=max_ratio) * importance_weights(inputs, cap=importance_cap)
    loss_BT = -inputs.advantage_B[:, None] * weight_BT * inputs.logp_BT
    return LossOutput(
        loss=_total(loss_BT, inputs, batch_mean),
        sums={"clip_high_rate": ((ratio_BT > max_ratio) & inputs.mask_BT).sum()},
    )


def rloo_loss(inputs: LossInputs, *, importance_cap: float | None = 2.0) -> LossOutput:
    """Return REINFORCE's loss of whole sequences, for leave-one-out advantages.

        L = -1/S sum_i A_i sum_t w_t log pi(y_t)

    Meant for one update a step: nothing corrects for the policy's change since sampling.
    Source: RLOO (arXiv 2402.14740, 3.2).
    """
    weight_BT = importance_weights(inputs, cap=importance_cap)
    loss_BT = -inputs.advantage_B[:, None] * weight_BT * inputs.logp_BT
    return LossOutput(
        loss=_total(loss_BT, inputs, lambda some: constant_mean(some, max_tokens=1.0))
    )


def sft_loss(inputs: LossInputs) -> LossOutput:
    """Return the cross-entropy of the masked tokens, in nats per token.

    L = -sum_t log pi(y_t) / N
    """
    return LossOutput(loss=_total(-inputs.logp_BT, inputs, batch_mean))


def importance_weights(inputs: LossInputs, *, cap: float | None) -> Tensor:
    """Return w_t = min(pi_old / pi_sampler, cap) per token, without gradient; None gives ones.

    Sampler and learner compute the same policy with different kernels; this corrects for it.
    Source: truncated importance sampling (Ionides 2008; Yao et al. 2025, "Your efficient RL
    framework secretly brings you off-policy RL training"), token level, cap 2.
    """
    if cap is None:
        return torch.ones_like(inputs.logp_sampler_BT)
    return _cut(_log_mismatch_BT(inputs)).exp().clamp(max=cap)


@torch.no_grad()
def mismatch(inputs: LossInputs) -> LossOutput:
    """Return diagnostics of how far learner and sampler disagree, with a loss of 0.

    `mismatch_kl` sums d - log(d) - 1 with d = pi_old / pi_sampler, which estimates
    KL(sampler || learner) and is never negative; `mismatch_ratio` is the largest ratio, in
    either direction. Source: Schulman, "Approximating KL divergence" (2020), estimator k3.
    """
    log_BT = _cut(_log_mismatch_BT(inputs))
    return LossOutput(
        loss=log_BT.new_zeros(()),
        sums={"mismatch_kl": (log_BT.exp() - log_BT - 1.0).sum()},
        maxima={"mismatch_ratio": log_BT.abs().max().exp()},
    )


def _log_ratio_BT(inputs: LossInputs) -> Tensor:
    return (inputs.logp_BT - inputs.logp_old_BT).masked_fill(~inputs.mask_BT, 0.0)


def _log_mismatch_BT(inputs: LossInputs) -> Tensor:
    log_BT = (inputs.logp_old_BT - inputs.logp_sampler_BT).detach()
    return log_BT.masked_fill(~inputs.mask_BT, 0.0)


def _cut(log_ratio: Tensor) -> Tensor:
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def _num_own_tokens_B(inputs: LossInputs) -> Tensor:
    """Count each sequence's policy tokens, at least 1."""
    return inputs.mask_BT.sum(1).clamp(min=1).to(inputs.advantage_B.dtype)


def _total(loss_BT: Tensor, inputs: LossInputs, normalisation: Normalisation) -> Tensor:
    weight_B1 = normalisation(inputs)[:, None]
    return (loss_BT * inputs.mask_BT * weight_B1).sum()
