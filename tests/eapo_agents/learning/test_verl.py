"""Our formulas beside verl's: the numbers that verl 0.9.1's own functions give for these inputs.

They were computed once in float64 by its `compute_grpo_outcome_advantage`,
`compute_policy_loss_vanilla` (clip ratios 0.2 and 0.28; `agg_loss` for a global batch of 20 tokens
and 5 sequences), `compute_rollout_correction_weights` (token level, threshold 2),
`compute_offpolicy_metrics` and the expressions of its DAPO reward manager. verl adds 1e-8 to counts
that it divides by, hence the tolerance of the means.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eapo_agents.learning.advantages import group_advantages
from eapo_agents.learning.algorithms import DAPO
from eapo_agents.learning.losses import LossInputs, importance_weights, mismatch
from eapo_env.reward import Overlong

RATIO = [[1.5, 0.9, 1.25, 0.5], [0.7, 1.1, 12.0, 1.0], [1.0, 1.3, 0.85, 2.0]]
LOGP = [[-1.0, -0.5, -2.0, -0.25], [-0.3, -1.2, -3.0, -0.8], [-0.1, -0.6, -1.7, -2.2]]
OLD_LESS_SAMPLER = [[0.1, -0.2, 1.5, 0.0], [0.05, 3.0, -0.4, -1.0], [0.0, 0.3, -0.7, 0.9]]
MASK = [[True, True, True, False], [True, True, True, True], [True, True, False, False]]


def inputs() -> LossInputs:
    """A micro-batch of 9 policy tokens in 3 sequences, of a step of 20 tokens and 5 sequences."""
    logp_BT, ratio_BT, off_BT = (
        torch.tensor(rows, dtype=torch.float64) for rows in (LOGP, RATIO, OLD_LESS_SAMPLER)
    )
    old_BT = logp_BT - ratio_BT.log()
    return LossInputs(
        logp_BT=logp_BT,
        logp_old_BT=old_BT,
        logp_sampler_BT=old_BT - off_BT,
        advantage_B=torch.tensor([1.25, -0.75, 0.5], dtype=torch.float64),
        mask_BT=torch.tensor(MASK),
        num_group_tokens_B=torch.full((3,), 9.0, dtype=torch.float64),
        num_tokens=20.0,
        num_sequences=5.0,
        num_groups=2.0,
    )


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([1, 0, 0, 1, 0, 0, 0, 0], [1.6201816746095261, -0.5400605582031753]),
        ([1.0, 0.5, 0.0, 0.0], [1.3055796924007037, 0.26111593848014075, -0.7833478154404222]),
    ],
)
def test_advantages(rewards: list[float], expected: list[float]) -> None:
    """Bessel's correction and 1e-6 under the fraction."""
    found = group_advantages(np.array(rewards, float))
    assert list(dict.fromkeys(found.tolist())) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, 0.02029086904945417),
        ({"importance_cap": None}, 0.21237500000000004),
        ({"dual_clip": None}, 0.070564872502127),
        ({"dual_clip": None, "importance_cap": None}, 0.2873749999999998),
        ({"normalisation": "sequence"}, -0.14481037120251813),
        ({"normalisation": "sequence", "importance_cap": None}, 0.0839166669800695),
        ({"normalisation": "constant", "max_tokens": 16}, 0.005072717262363543),
        (
            {"normalisation": "constant", "max_tokens": 16, "dual_clip": None},
            0.01764121812553174,
        ),
    ],
    ids=str,
)
def test_the_policy_loss(change: dict[str, object], expected: float) -> None:
    """Clip 0.20/0.28, dual clip 10, and means over the counts of the whole step."""
    loss = DAPO(**change).loss  # type: ignore[arg-type]
    assert loss(inputs()).loss.item() == pytest.approx(expected, rel=1e-7)


def test_the_share_of_the_dual_clip() -> None:
    found = DAPO().loss(inputs()).sums["dual_clip_rate"].item()
    assert found / 9 == pytest.approx(0.1111111109876543, rel=1e-7)


def test_truncated_importance_weights() -> None:
    expected = [
        [1.1051709180756477, 0.8187307530779818, 2.0, 0.0],
        [1.0512710963760241, 2.0, 0.6703200460356393, 0.36787944117144232],
        [1.0, 1.3498588075760032, 0.0, 0.0],
    ]
    found = importance_weights(inputs(), cap=2.0) * torch.tensor(MASK)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_the_mismatch() -> None:
    found = mismatch(inputs()).sums["mismatch_kl"].item() / 9
    assert found == pytest.approx(2.0644952261326126, rel=1e-7)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [(100, 0.0), (16_384, 0.0), (16_385, -0.000244140625), (18_432, -0.5), (20_480, -1.0)],
)
def test_the_overlong_penalty(tokens: int, expected: float) -> None:
    assert Overlong().penalty(tokens) == expected


def test_group_normalisation_is_dapos_equation_8_and_not_verls() -> None:
    """verl has no such mode: the mean over each group, then over groups, by hand."""
    plain = DAPO(normalisation="group", importance_cap=None).loss
    per_batch = DAPO(importance_cap=None).loss
    expected = per_batch(inputs()).loss.item() * 20 / (2 * 9)
    assert plain(inputs()).loss.item() == pytest.approx(expected, rel=1e-14)
