"""The statistics of evaluation and training reports: pure numpy, each a formula.

`correct_PK` says whether sample k of problem p is correct: k independent samples of each problem.
The paper prints the mean of these as "Pass@32"; true pass@k is another metric, and both are here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


class CallRates(NamedTuple):
    """How often the policy consults (paper, Appendix B)."""

    per_episode: float
    """The share of episodes with a consultation."""
    per_turn: float
    """The share of turns that consult."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """How much better a is than b on the same problems.

    Args:
        mean: of a - b over problems.
        interval: its 95% interval, by bootstrap over problems.
        p_value: two-sided, of the sign-flip permutation test.
    """

    mean: float
    interval: Interval
    p_value: float


def mean_at_k(correct_PK: npt.ArrayLike) -> float:
    """Return the mean over problems of the mean over samples; the paper's "Pass@32" (3.1).

    1/P sum_p m_p,    m_p = 1/K sum_k c_pk
    """
    return float(_matrix(correct_PK).mean())


def variance(correct_PK: npt.ArrayLike) -> float:
    """Return the mean over problems of the variance over samples; the paper's "Var" (3.1).

        1/P sum_p 1/K sum_k (c_pk - m_p)^2

    The division is by K: our copy of the paper has lost the formula, and says "independent samples
    ... where m_p is the per-problem mean score".
    """
    return float(_matrix(correct_PK).var(axis=1).mean())


def pass_at_k(correct_PK: npt.ArrayLike, k: int) -> float:
    """Return the unbiased probability that one of k samples is correct, averaged over problems.

        1/P sum_p 1 - C(n - c_p, k) / C(n, k),    n samples, c_p of them right

    Source: Chen et al. 2021 (arXiv 2107.03374, eq. 1).

    Raises:
        ValueError: k is not in 1..n.
    """
    matrix_PK = _matrix(correct_PK)
    n = matrix_PK.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"k must be in 1..{n}, not {k}")
    wrong_P = n - matrix_PK.sum(axis=1)
    # C(w, k) / C(n, k) as a product: the binomials themselves overflow.
    factors_Pk = (wrong_P[:, None] - np.arange(k)) / (n - np.arange(k))
    return float((1.0 - factors_Pk.clip(min=0.0).prod(axis=1)).mean())


def majority_at_k(answers_PK: Sequence[Sequence[str | None]], correct_PK: npt.ArrayLike) -> float:
    """Return the share of problems whose most frequent answer is correct.

    Equal texts are one answer; None (no answer) has no vote. Answers that are equally frequent
    count in equal shares, so that the order of the samples does not matter.

    Raises:
        ValueError: answers and correctness of different shapes.

    Source: Wang et al. 2022 (arXiv 2203.11171), self-consistency.
    """
    matrix_PK = _matrix(correct_PK)
    shapes = [len(answers_PK), *sorted({len(answers) for answers in answers_PK})]
    if shapes != list(matrix_PK.shape):
        raise ValueError(f"answers of shape {shapes} for correctness of shape {matrix_PK.shape}")
    return float(np.mean([_majority(a, c) for a, c in zip(answers_PK, matrix_PK, strict=True)]))


def bootstrap_interval(
    values_P: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    level: float = 0.95,
    num_resamples: int = 10_000,
) -> Interval:
    """Return the percentile bootstrap interval of the mean of one value per problem.

    Problems are drawn with replacement: the interval covers the variation of the mean over other
    problems of the same kind. Source: Efron 1979.

    Raises:
        ValueError: no values, a level outside (0, 1).
    """
    values = _vector(values_P)
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be in (0, 1), not {level}")
    means = resampled_means(values, rng, num_resamples)
    low, high = np.quantile(means, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(float(low), float(high))


def paired_difference(
    a_P: npt.ArrayLike,
    b_P: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    num_resamples: int = 10_000,
) -> PairedDifference:
    """Return the mean of a - b over the same problems, its interval and its p-value.

        p = (1 + #{|mean(+-d)| >= |mean(d)|}) / (1 + num_resamples),    random signs

    The interval is the bootstrap's. The test assumes no distribution, only that a and b of a
    problem are exchangeable under the null hypothesis. Source: Fisher 1935; Phipson & Smyth 2010
    for the two ones.

    Raises:
        ValueError: different numbers of values, or none.
    """
    a, b = _vector(a_P), _vector(b_P)
    if a.shape != b.shape:
        raise ValueError(f"{len(a)} values against {len(b)}: pairs need the same problems")
    difference = a - b
    mean = float(difference.mean())
    interval = bootstrap_interval(difference, rng, num_resamples=num_resamples)
    flipped = flipped_means(difference, rng, num_resamples)
    return PairedDifference(mean=mean, interval=interval, p_value=sign_flip_p_value(mean, flipped))


def resampled_means(
    values: npt.NDArray[np.float64], rng: np.random.Generator, num_resamples: int
) -> npt.NDArray[np.float64]:
    """Return the mean of each bootstrap resample of values [P] or of rows of values [P, M]."""
    number = len(values)
    draws = (rng.integers(0, number, number) for _ in range(num_resamples))
    return np.array([values[draw].mean(axis=0) for draw in draws])


def flipped_means(
    difference_P: npt.NDArray[np.float64], rng: np.random.Generator, num_resamples: int
) -> npt.NDArray[np.float64]:
    """Return the mean of some differences under each of many random choices of signs."""
    number = len(difference_P)
    signs = (1.0 - 2.0 * rng.integers(0, 2, number) for _ in range(num_resamples))
    return np.array([(difference_P * sign).mean() for sign in signs])


def sign_flip_p_value(mean: float, flipped: npt.NDArray[np.float64]) -> float:
    """Return the p-value of a mean difference among those with random signs."""
    # A flip that gives the same mean must count whatever the rounding of its sum.
    extreme = int((np.abs(flipped) >= abs(mean) - 1e-12).sum())
    return (1 + extreme) / (1 + len(flipped))


def call_rates(consultations_E: npt.ArrayLike, turns_E: npt.ArrayLike) -> CallRates:
    """Return the call rates of episodes, from the consultations and the turns of each.

        per episode = #{e: consultations_e > 0} / E,    per turn = sum consultations / sum turns

    Raises:
        ValueError: different numbers of values, or none; more consultations than turns.
    """
    consultations, turns = _vector(consultations_E), _vector(turns_E)
    if consultations.shape != turns.shape or (consultations > turns).any() or not turns.sum():
        raise ValueError(f"consultations {consultations} do not fit turns {turns}")
    return CallRates(
        per_episode=float((consultations > 0).mean()),
        per_turn=float(consultations.sum() / turns.sum()),
    )


def _majority(answers: Sequence[str | None], correct: npt.NDArray[np.float64]) -> float:
    """Return the share of the most frequent answers that are correct; 0 without any answer.

    An answer is correct if any of its samples is: a verdict that timed out says nothing about it.
    """
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    leaders = [answer for answer, count in votes.items() if count == most]
    right = {answer for answer, hit in zip(answers, correct, strict=True) if hit}
    return float(np.mean([leader in right for leader in leaders]))


def _matrix(correct_PK: npt.ArrayLike) -> npt.NDArray[np.float64]:
    matrix = np.asarray(correct_PK, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.size:
        raise ValueError(f"samples must be of shape [problems, k], not {matrix.shape}")
    return matrix


def _vector(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or not vector.size:
        raise ValueError(f"one value per item is needed, not shape {vector.shape}")
    return vector
