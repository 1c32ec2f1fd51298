"""Comparing policies over problems, sets of problems and training seeds: pure numpy.

`values_SP` holds one value (say mean@k) per training seed s and problem p; every seed is evaluated
on the same problems. Seeds and problems are both samples: an interval that is to hold for other
seeds and other problems must count the variance of both.

Bootstrap intervals over three or five seeds are far too narrow (percentiles of three values cannot
leave their range), so seeds are treated with Student's t.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from eapo_agents.evaluation.metrics import (
    Interval,
    PairedDifference,
    flipped_means,
    resampled_means,
    sign_flip_p_value,
)
from eapo_env.validation import UserError

Floats = npt.NDArray[np.float64]


def seeds_interval(values_SP: npt.ArrayLike, *, level: float = 0.95) -> Interval:
    """Return the interval of the grand mean over training seeds and problems.

        x.. +- t_df sqrt(V),    V = v_seeds + v_problems,    df = V^2 / sum_i v_i^2 / (n_i - 1)
        v_seeds = var(x_s.) / S,    v_problems = var(x_.p) / P,    both var with n - 1

    In the crossed model x_sp = m + a_s + b_p + e_sp, V is the variance of the grand mean plus one
    var(e) / (S P): a little wide, never negative. A single seed counts problems only, a single
    problem seeds only. Source: Owen 2007 (The pigeonhole bootstrap, doi 10.1214/07-AOAS122) for the
    sum of the two variances, Satterthwaite 1946 for the degrees of freedom.

    Raises:
        UserError: no values or values that are not [seeds, problems], a single value, a level
            outside (0, 1).
    """
    values = _matrix(values_SP)
    parts = [_part(values.mean(axis=1)), _part(values.mean(axis=0))]
    return _interval(float(values.mean()), parts, level)


def seeds_difference(
    a_SP: npt.ArrayLike, b_SP: npt.ArrayLike, *, level: float = 0.95
) -> PairedDifference:
    """Return how much better method a is than b, over their training seeds and the same problems.

        d = a.. - b..,    V = var(a_s.) / S_a + var(b_s.) / S_b + var(a_.p - b_.p) / P

    Problems are paired, seeds are not: after some updates, two trainings with the same seed have no
    randomness in common, and the methods may have different numbers of seeds. Interval and
    two-sided p-value are Student's, with Satterthwaite's degrees of freedom as in `seeds_interval`.

    Raises:
        UserError: as `seeds_interval`, or different numbers of problems.
    """
    a, b = _matrix(a_SP), _matrix(b_SP)
    if a.shape[1] != b.shape[1]:
        raise UserError(f"{a.shape[1]} problems against {b.shape[1]}: pairs need the same ones")
    parts = [_part(a.mean(1)), _part(b.mean(1)), _part(a.mean(0) - b.mean(0))]
    mean = float(a.mean() - b.mean())
    return PairedDifference(
        mean=mean, interval=_interval(mean, parts, level), p_value=_p_value(mean, parts)
    )


def sets_difference(
    pairs: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]],
    rng: np.random.Generator,
    *,
    num_resamples: int = 10_000,
) -> PairedDifference:
    """Return the difference a - b averaged over sets of problems, each with the same weight.

    This is the paper's "Avg." column for two policies: problems are resampled, and signs flipped,
    within their sets. One set gives `metrics.paired_difference`.

    Raises:
        UserError: no set, or a set with different numbers of values.
    """
    differences = [_difference(a_P, b_P) for a_P, b_P in pairs]
    if not differences:
        raise UserError("no set of problems to compare on")
    mean = float(np.mean([d.mean() for d in differences]))
    resampled = np.mean([resampled_means(d, rng, num_resamples) for d in differences], axis=0)
    flipped = np.mean([flipped_means(d, rng, num_resamples) for d in differences], axis=0)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return PairedDifference(
        mean=mean,
        interval=Interval(float(low), float(high)),
        p_value=sign_flip_p_value(mean, flipped),
    )


def student_t_cdf(t: float, df: float) -> float:
    """Return P(T <= t) for Student's t with `df` >= 1 degrees of freedom, by quadrature.

    With t = sqrt(df) tan(x) the density of x is proportional to cos(x)^(df - 1).
    """
    grid, cdf = _angles(df)
    return float(np.interp(math.atan(t / math.sqrt(df)), grid, cdf))


def student_t_quantile(share: float, df: float) -> float:
    """Return the t below which Student's distribution with `df` >= 1 has this share."""
    grid, cdf = _angles(df)
    return math.sqrt(df) * math.tan(float(np.interp(share, cdf, grid)))


def _angles(df: float) -> tuple[Floats, Floats]:
    grid = np.linspace(-np.pi / 2, np.pi / 2, 200_001)
    density = np.cos(grid).clip(min=0.0) ** (df - 1.0)
    cdf = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return grid, cdf / cdf[-1]


def _part(values: Floats) -> tuple[float, int]:
    """Return the variance of the mean of some values, and its degrees of freedom."""
    df = len(values) - 1
    return (float(values.var(ddof=1)) / len(values), df) if df else (0.0, 0)


def _spread(parts: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Return the standard error and Satterthwaite's degrees of freedom of a sum of variances."""
    if not any(df for _, df in parts):
        raise UserError("one value has no interval: more seeds or more problems are needed")
    total = sum(part for part, _ in parts)
    weighted = sum(part**2 / df for part, df in parts if df)
    df = total**2 / weighted if weighted else 1.0
    return math.sqrt(total), min(max(df, 1.0), 1e5)


def _interval(mean: float, parts: Sequence[tuple[float, int]], level: float) -> Interval:
    if not 0.0 < level < 1.0:
        raise UserError(f"level must be in (0, 1), not {level}")
    error, df = _spread(parts)
    half = student_t_quantile((1.0 + level) / 2.0, df) * error
    return Interval(mean - half, mean + half)


def _p_value(mean: float, parts: Sequence[tuple[float, int]]) -> float:
    error, df = _spread(parts)
    if abs(mean) < 1e-12:  # rounding
        return 1.0
    if not error:
        return 0.0
    return min(1.0, 2.0 * student_t_cdf(-abs(mean) / error, df))


def _difference(a_P: npt.ArrayLike, b_P: npt.ArrayLike) -> Floats:
    a, b = (np.asarray(values, dtype=np.float64) for values in (a_P, b_P))
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise UserError(f"values of shapes {a.shape} and {b.shape} cannot be paired")
    return a - b


def _matrix(values_SP: npt.ArrayLike) -> Floats:
    matrix = np.asarray(values_SP, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.size:
        raise UserError(f"values must be of shape [seeds, problems], not {matrix.shape}")
    return matrix
