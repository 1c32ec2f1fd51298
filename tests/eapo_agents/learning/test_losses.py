"""Losses: numbers by hand, REINFORCE at ratio 1, what clips where, and that shares add up."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings, strategies as st
from torch import Tensor

from eapo_agents.learning.algorithms import CISPO, DAPO, GRPO, GSPO, RLOO, Algorithm, DrGRPO, MaxRL
from eapo_agents.learning.losses import (
    Loss,
    LossInputs,
    LossOutput,
    Normalisation,
    batch_mean,
    cispo_loss,
    constant_mean,
    dapo_loss,
    dr_grpo_loss,
    group_mean,
    grpo_loss,
    gspo_loss,
    importance_weights,
    mismatch,
    rloo_loss,
    sequence_mean,
    sft_loss,
)
from eapo_env.validation import UserError

ALGORITHMS: list[Algorithm] = [DAPO(), GRPO(), DrGRPO(), GSPO(), CISPO(), RLOO(), MaxRL()]
NORMALISATIONS: list[Normalisation] = [
    batch_mean,
    group_mean,
    sequence_mean,
    partial(constant_mean, max_tokens=7.0),
]
LOSSES: list[Loss] = [
    *(algorithm.loss for algorithm in ALGORITHMS),
    *(partial(dapo_loss, normalisation=normalisation) for normalisation in NORMALISATIONS),
    sft_loss,
]


def by_hand() -> LossInputs:
    """Two sequences of two policy tokens, a masked column between: ratios 1.5, 1.1 | 0.5, 12."""
    logp_BT = torch.tensor([[0.0, -1.0, 0.0, -2.0], [0.0, -0.5, 0.0, -3.0]], dtype=torch.float64)
    ratio_BT = torch.tensor([[1.0, 1.5, 1.0, 1.1], [1.0, 0.5, 1.0, 12.0]], dtype=torch.float64)
    old_BT = logp_BT - ratio_BT.log()
    return LossInputs(
        logp_BT=logp_BT.requires_grad_(),
        logp_old_BT=old_BT,
        logp_sampler_BT=old_BT,
        advantage_B=torch.tensor([1.0, -1.0], dtype=torch.float64),
        mask_BT=torch.tensor([[False, True, False, True]] * 2),
        num_group_tokens_B=torch.tensor([4.0, 4.0], dtype=torch.float64),
        num_tokens=4.0,
        num_sequences=2.0,
        num_groups=1.0,
    )


def drawn(seed: int, *, batch: int = 5, tokens: int = 6, noise: float = 0.3) -> LossInputs:
    """Random sequences with gaps in their masks (one without any policy token), in two groups."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    mask_BT = torch.rand(batch, tokens, generator=rng) < 0.6
    mask_BT[:, 0], mask_BT[0, 1], mask_BT[-1] = False, True, False
    logp_BT = -normal(batch, tokens).abs() * mask_BT
    old_BT = (logp_BT + noise * normal(batch, tokens)) * mask_BT
    first, second = mask_BT[:2].sum(), mask_BT[2:].sum()
    return LossInputs(
        logp_BT=logp_BT.requires_grad_(),
        logp_old_BT=old_BT,
        logp_sampler_BT=(old_BT + noise * normal(batch, tokens)) * mask_BT,
        advantage_B=normal(batch),
        mask_BT=mask_BT,
        num_group_tokens_B=torch.stack([first] * 2 + [second] * (batch - 2)).double(),
        num_tokens=float(mask_BT.sum()),
        num_sequences=float(batch),
        num_groups=2.0,
    )


def gradient(loss: Loss, inputs: LossInputs) -> Tensor:
    (found,) = torch.autograd.grad(loss(inputs).loss, inputs.logp_BT)
    return found


def rows(inputs: LossInputs, chosen: slice) -> LossInputs:
    values = {f.name: getattr(inputs, f.name) for f in fields(inputs)}
    changes: dict[str, Any] = {k: v[chosen] for k, v in values.items() if isinstance(v, Tensor)}
    return replace(inputs, **changes)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        # Clipped at 1.28; inside; clipped at 0.8; the dual clip's 10 instead of 12.
        (dapo_loss, (-1.28 - 1.1 + 0.8 + 10.0) / 4),
        (partial(dapo_loss, dual_clip=None), (-1.28 - 1.1 + 0.8 + 12.0) / 4),
        (partial(dapo_loss, dual_clip=3.0), (-1.28 - 1.1 + 0.8 + 3.0) / 4),
        (partial(dapo_loss, clip_high=0.6), (-1.5 - 1.1 + 0.8 + 10.0) / 4),
        (partial(dapo_loss, clip_low=0.6), (-1.28 - 1.1 + 0.5 + 10.0) / 4),
        (grpo_loss, ((-1.2 - 1.1) / 2 + (0.8 + 12.0) / 2) / 2),
        (partial(dr_grpo_loss, max_tokens=10.0), (-1.2 - 1.1 + 0.8 + 12.0) / (2 * 10)),
        # Geometric means sqrt(1.65), clipped, and sqrt(6), where the clip does not help.
        (gspo_loss, (-1.0004 + math.sqrt(6.0)) / 2),
        (cispo_loss, -(1.5 * -1.0 + 1.1 * -2.0 - 0.5 * -0.5 - 5.0 * -3.0) / 4),
        (partial(cispo_loss, max_ratio=1.2), -(1.2 * -1 + 1.1 * -2 - 0.5 * -0.5 - 1.2 * -3) / 4),
        (rloo_loss, -((-1.0 - 2.0) - (-0.5 - 3.0)) / 2),
        (sft_loss, (1.0 + 2.0 + 0.5 + 3.0) / 4),
    ],
)
def test_losses_by_hand(loss: Loss, expected: float) -> None:
    assert loss(by_hand()).loss.item() == pytest.approx(expected, rel=1e-12)


def test_rates_by_hand() -> None:
    sums = {name: value.item() for name, value in dapo_loss(by_hand()).sums.items()}
    assert sums == {"clip_low_rate": 1, "clip_high_rate": 1, "dual_clip_rate": 1}
    assert "dual_clip_rate" not in dapo_loss(by_hand(), dual_clip=None).sums
    # A sequence clipped as a whole counts with all its tokens.
    assert gspo_loss(by_hand()).sums["clip_high_rate"].item() == 2
    assert cispo_loss(by_hand()).sums["clip_high_rate"].item() == 1


def test_normalisations_by_hand() -> None:
    mask_BT = torch.tensor([[False, True, True, True], [False, True, False, False]])
    inputs = replace(by_hand(), mask_BT=mask_BT, num_tokens=8.0, num_sequences=5.0, num_groups=3.0)
    assert batch_mean(inputs).tolist() == [1 / 8, 1 / 8]
    assert group_mean(inputs).tolist() == pytest.approx([1 / (3 * 4), 1 / (3 * 4)])
    assert sequence_mean(inputs).tolist() == pytest.approx([1 / (5 * 3), 1 / (5 * 1)])
    assert constant_mean(inputs, max_tokens=10.0).tolist() == pytest.approx([1 / 50, 1 / 50])


def plain_dapo(inputs: LossInputs) -> float:
    """DAPO with the truncated importance weight, in plain Python, one token at a time."""
    total = 0.0
    for b, advantage in enumerate(inputs.advantage_B.tolist()):
        for t, own in enumerate(inputs.mask_BT[b].tolist()):
            if own:
                old = inputs.logp_old_BT[b, t].item()
                ratio = math.exp(inputs.logp_BT[b, t].item() - old)
                worst = max(-advantage * ratio, -advantage * min(max(ratio, 0.8), 1.28))
                if advantage < 0:
                    worst = min(worst, -advantage * 10.0)
                total += worst * min(math.exp(old - inputs.logp_sampler_BT[b, t].item()), 2.0)
    return total / inputs.num_tokens


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), noise=st.sampled_from([0.01, 0.3, 3.0]))
def test_dapo_equals_a_plain_reference(seed: int, noise: float) -> None:
    inputs = drawn(seed, noise=noise)
    assert dapo_loss(inputs).loss.item() == pytest.approx(plain_dapo(inputs), rel=1e-12, abs=1e-14)


def per_token(inputs: LossInputs) -> Tensor:
    return torch.full_like(inputs.advantage_B, 1 / inputs.num_tokens)


def per_sequence(inputs: LossInputs) -> Tensor:
    return torch.full_like(inputs.advantage_B, 1 / inputs.num_sequences)


def per_sequence_and_token(inputs: LossInputs) -> Tensor:
    return 1 / (inputs.num_sequences * inputs.mask_BT.sum(1).clamp(min=1).double())


@pytest.mark.parametrize(
    ("loss", "weight"),
    [
        (dapo_loss, per_token),
        (grpo_loss, per_sequence_and_token),
        (partial(dr_grpo_loss, max_tokens=1.0), per_sequence),
        (gspo_loss, per_sequence_and_token),
        (cispo_loss, per_token),
        (rloo_loss, per_sequence),
    ],
)
@settings(deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_gradient_at_ratio_1_is_that_of_reinforce(
    loss: Loss, weight: partial[Tensor], seed: int
) -> None:
    drawn_BT = drawn(seed)
    here = drawn_BT.logp_BT.detach()
    inputs = replace(drawn_BT, logp_old_BT=here, logp_sampler_BT=here)
    weight_B1 = (weight(inputs) * inputs.advantage_B)[:, None]
    reinforce = -(weight_B1 * inputs.logp_BT * inputs.mask_BT).sum()
    (expected,) = torch.autograd.grad(reinforce, inputs.logp_BT)
    torch.testing.assert_close(gradient(loss, inputs), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("loss", LOSSES)
@settings(deadline=None)
@given(seed=st.integers(0, 10_000))
def test_what_the_mask_hides_has_no_gradient_and_no_influence(loss: Loss, seed: int) -> None:
    inputs = drawn(seed)
    hidden = ~inputs.mask_BT
    assert (gradient(loss, inputs)[hidden] == 0.0).all()
    changed = replace(
        inputs,
        logp_BT=inputs.logp_BT.detach().masked_fill(hidden, -3.0),
        logp_old_BT=inputs.logp_old_BT.masked_fill(hidden, -9.0),
        logp_sampler_BT=inputs.logp_sampler_BT.masked_fill(hidden, 50.0),
    )
    torch.testing.assert_close(loss(changed).loss, loss(inputs).loss)
    assert loss(changed).sums == loss(inputs).sums


@pytest.mark.parametrize("loss", [*LOSSES, mismatch])
@settings(deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(1, 4))
def test_shares_of_micro_batches_add_up(loss: Loss, seed: int, cut: int) -> None:
    whole, parts = drawn(seed), [rows(drawn(seed), slice(cut)), rows(drawn(seed), slice(cut, None))]
    outputs: list[LossOutput] = [loss(part) for part in parts]
    torch.testing.assert_close(
        sum(output.loss for output in outputs), loss(whole).loss, rtol=1e-12, atol=1e-14
    )
    for name, value in loss(whole).sums.items():
        torch.testing.assert_close(sum(output.sums[name] for output in outputs), value)
    for name, value in loss(whole).maxima.items():
        assert max(output.maxima[name] for output in outputs) == value


@settings(deadline=None)
@given(advantage=st.sampled_from([-1.5, 1.5]), ratio=st.floats(0.05, 30.0))
def test_clipping_stops_the_gradient_only_where_it_should(advantage: float, ratio: float) -> None:
    """Beyond 1.28 for good tokens, below 0.8 and above the dual clip for bad ones."""
    assume(all(abs(ratio - kink) > 1e-6 for kink in (0.8, 1.28, 10.0)))
    inputs = replace(
        by_hand(),
        logp_old_BT=by_hand().logp_BT.detach() - math.log(ratio),
        advantage_B=torch.full((2,), advantage, dtype=torch.float64),
    )
    stopped = ratio > 1.28 if advantage > 0 else ratio < 0.8 or ratio > 10.0
    found = gradient(partial(dapo_loss, importance_cap=None), inputs)[inputs.mask_BT]
    expected = 0.0 if stopped else -advantage * ratio / 4
    assert found.tolist() == pytest.approx([expected] * 4)


@pytest.mark.parametrize(
    "mine",
    [{"loss": torch.ones(3)}, {"sums": {"rate": torch.ones(2, 3)}}, {"maxima": {"gap": 1.0}}],
)
def test_an_output_holds_single_numbers_as_tensors(mine: dict[str, Any]) -> None:
    message = r"'(loss|rate|gap)' of a LossOutput .* not (shape \[3\]|shape \[2, 3\]|1\.0)"
    with pytest.raises(UserError, match=message):
        LossOutput(**({"loss": torch.ones(())} | mine))


def test_importance_weights_by_hand() -> None:
    inputs = by_hand()
    off = torch.tensor([0.0, math.log(0.5), 0.0, math.log(3.0)], dtype=torch.float64)
    inputs = replace(inputs, logp_sampler_BT=inputs.logp_old_BT - off)
    expected = torch.tensor([[1.0, 0.5, 1.0, 2.0]] * 2, dtype=torch.float64)
    torch.testing.assert_close(importance_weights(inputs, cap=2.0), expected)
    assert (importance_weights(inputs, cap=None) == 1.0).all()
    with_gradient = replace(inputs, logp_old_BT=inputs.logp_BT)
    assert not importance_weights(with_gradient, cap=2.0).requires_grad
    loss = dapo_loss(inputs).loss.item()
    assert loss == pytest.approx((-1.28 * 0.5 - 1.1 * 2.0 + 0.8 * 0.5 + 10.0 * 2.0) / 4)
    # GSPO weighs a sequence by its geometric mean, sqrt(0.5 * 3).
    loss = gspo_loss(inputs).loss.item()
    assert loss == pytest.approx((-1.0004 + math.sqrt(6.0)) / 2 * math.sqrt(1.5))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_sequence_without_policy_tokens_adds_nothing(loss: Loss) -> None:
    """Whatever its advantage: several processes read such sequences where they have no others."""
    inputs = by_hand()
    silent = replace(inputs, mask_BT=inputs.mask_BT & torch.tensor([[True], [False]]))
    other = replace(silent, advantage_B=torch.tensor([1.0, 7.0], dtype=torch.float64))
    assert loss(silent).loss.item() == loss(other).loss.item()


def test_mismatch_by_hand() -> None:
    inputs = by_hand()
    off = torch.tensor([0.0, math.log(0.25), 0.0, math.log(3.0)], dtype=torch.float64)
    found = mismatch(replace(inputs, logp_sampler_BT=inputs.logp_old_BT - off))
    each = (0.25 - math.log(0.25) - 1) + (3.0 - math.log(3.0) - 1)
    assert found.sums["mismatch_kl"].item() == pytest.approx(2 * each)
    assert found.maxima["mismatch_ratio"].item() == pytest.approx(4.0)
    assert mismatch(inputs).sums["mismatch_kl"].item() == 0.0


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("gap", [-1e4, 1e4])
def test_wild_ratios_stay_finite(loss: Loss, gap: float) -> None:
    inputs = replace(by_hand(), logp_old_BT=by_hand().logp_old_BT + gap)
    assert math.isfinite(loss(inputs).loss.item())
    assert gradient(loss, inputs).isfinite().all()


def test_algorithms_have_distinct_names() -> None:
    assert len({algorithm.name for algorithm in ALGORITHMS}) == len(ALGORITHMS) == 7
