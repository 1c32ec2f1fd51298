"""Comparisons over seeds, problems and sets: numbers by hand, tables of Student's t, coverage."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from eapo_agents.evaluation.comparison import (
    seeds_difference,
    seeds_interval,
    sets_difference,
    student_t_cdf,
    student_t_quantile,
)
from eapo_agents.evaluation.metrics import paired_difference

matrices = st.tuples(st.integers(2, 5), st.integers(2, 6)).flatmap(
    lambda shape: arrays(float, shape, elements=st.integers(0, 32).map(lambda n: n / 32))
)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("share", "df", "t"),
    [
        (0.975, 1, 12.7062),
        (0.975, 2, 4.30265),
        (0.975, 4, 2.77645),
        (0.95, 10, 1.81246),
        (0.975, 100_000, 1.95996),
        (0.5, 3, 0.0),
    ],
)
def test_students_t_is_that_of_the_tables(share: float, df: float, t: float) -> None:
    assert student_t_quantile(share, df) == pytest.approx(t, rel=1e-4, abs=1e-9)
    assert student_t_cdf(t, df) == pytest.approx(share, abs=1e-5)


@given(st.floats(-40, 40), st.floats(1, 1e5))
def test_the_distribution_is_symmetric(t: float, df: float) -> None:
    assert student_t_cdf(t, df) + student_t_cdf(-t, df) == pytest.approx(1.0)


def test_the_interval_over_seeds_by_hand() -> None:
    # Seed means 0.2, 0.4, 0.6: their variance is 0.04. Problems do not differ: t_2 alone.
    low, high = seeds_interval([[0.2] * 4, [0.4] * 4, [0.6] * 4])
    half = 4.30265 * math.sqrt(0.04 / 3)
    assert (low, high) == pytest.approx((0.4 - half, 0.4 + half), rel=1e-4)
    low, high = seeds_interval([[0.2] * 4, [0.4] * 4, [0.6] * 4], level=0.9)
    assert (high - low) / 2 == pytest.approx(half * 2.91999 / 4.30265, rel=1e-4)


def test_seeds_and_problems_both_count_by_hand() -> None:
    # Seed means 1/4, 3/4 and problem means 1/4, 3/4: either variance of a mean is 1/16.
    low, high = seeds_interval([[0.0, 0.5], [0.5, 1.0]])
    half = 4.30265 * math.sqrt(2 / 16)  # df = (2/16)^2 / (2 / 16^2) = 2
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half), rel=1e-4)


def test_one_seed_leaves_the_problems_and_one_problem_the_seeds() -> None:
    values = [0.0, 0.25, 0.75]
    assert seeds_interval([values]) == seeds_interval([[value] for value in values])
    with pytest.raises(ValueError, match="one value has no interval"):
        seeds_interval([[0.5]])


def test_the_interval_covers_other_seeds_and_other_problems() -> None:
    rng, covered, trials = np.random.default_rng(7), 0, 300
    for _ in range(trials):
        seeds, problems = rng.normal(0, 0.1, (3, 1)), rng.normal(0, 0.3, (1, 20))
        values = 0.5 + seeds + problems + rng.normal(0, 0.1, (3, 20))
        low, high = seeds_interval(values)
        covered += low <= 0.5 <= high
    # Binomial(300, 0.95): mean 285, standard deviation 3.8.
    assert covered >= 270


def test_the_difference_over_seeds_by_hand() -> None:
    # a is 0.5 better on every problem; a's seeds differ by 0.2, b's not at all: t_1.
    found = seeds_difference([[0.6, 0.8], [0.8, 1.0]], [[0.2, 0.4], [0.2, 0.4], [0.2, 0.4]])
    error = math.sqrt(0.02 / 2)
    assert found.mean == pytest.approx(0.5)
    assert found.interval == pytest.approx((0.5 - 12.7062 * error, 0.5 + 12.7062 * error), rel=1e-3)
    # P(|T_1| > 5) = 1 - 2/pi atan(5)
    assert found.p_value == pytest.approx(1 - 2 / math.pi * math.atan(5), abs=1e-6)


def test_a_difference_without_any_spread_is_certain() -> None:
    found = seeds_difference([[1.0, 1.0]] * 2, [[0.0, 0.0]] * 3)
    assert (found.mean, found.interval, found.p_value) == (1.0, (1.0, 1.0), 0.0)


@given(matrices)
def test_a_method_does_not_differ_from_itself(values: np.ndarray) -> None:
    found = seeds_difference(values, values)
    assert (found.mean, found.p_value) == (0.0, 1.0)


@given(matrices, st.floats(-1, 1))
def test_the_order_of_seeds_and_problems_does_not_matter(values: np.ndarray, shift: float) -> None:
    a, b = values, values[:, ::-1] + shift
    order = np.random.default_rng(1).permutation(values.shape[1])
    first, second = seeds_difference(a, b), seeds_difference(a[::-1][:, order], b[:, order])
    assert second.mean == pytest.approx(first.mean, abs=1e-9)
    assert second.interval == pytest.approx(first.interval, abs=1e-6)
    swapped = seeds_difference(b, a)
    assert swapped.mean == pytest.approx(-first.mean, abs=1e-9)
    assert swapped.p_value == pytest.approx(first.p_value, abs=1e-9)


def test_a_p_value_of_seeds_is_rarely_small_when_nothing_differs() -> None:
    rng = np.random.default_rng(3)

    def trained() -> np.ndarray:
        return rng.normal(0, 0.2, (4, 1)) + rng.normal(0, 0.1, (4, 10))

    small = sum(seeds_difference(trained(), trained()).p_value < 0.05 for _ in range(300))
    assert small <= 15 + 4 * 3.8


def test_sets_count_the_same_whatever_their_size() -> None:
    found = sets_difference([([1.0] * 30, [0.0] * 30), ([0.0, 0.0], [0.0, 0.0])], rng())
    assert (found.mean, found.interval) == (0.5, (0.5, 0.5))
    assert found.p_value < 0.001


def test_one_set_is_the_paired_difference() -> None:
    a, b = np.random.default_rng(1).random((2, 12))
    one, plain = sets_difference([(a, b)], rng()), paired_difference(a, b, rng())
    assert one.interval == pytest.approx(plain.interval)
    assert (one.mean, one.p_value) == (plain.mean, plain.p_value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: seeds_interval([0.5, 0.5]), r"\[seeds, problems\], not \(2,\)"),
        (lambda: seeds_interval([[0.5, 1.0]], level=1.5), r"level must be in \(0, 1\), not 1.5"),
        (lambda: seeds_difference([[1, 2]], [[1, 2, 3]]), "2 problems against 3"),
        (lambda: sets_difference([], rng()), "no set of problems"),
        (
            lambda: sets_difference([([1.0], [1.0, 2.0])], rng()),
            r"\(1,\) and \(2,\) cannot be paired",
        ),
    ],
)
def test_what_cannot_be_compared_is_an_error(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
