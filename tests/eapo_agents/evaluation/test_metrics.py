"""Statistics: numbers by hand, brute force where a formula replaces it, and coverage by chance."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from eapo_agents.evaluation.metrics import (
    Interval,
    bootstrap_interval,
    call_rates,
    majority_at_k,
    mean_at_k,
    paired_difference,
    pass_at_k,
    variance,
)

CORRECT_PK = [[True, False, False, False], [True, True, False, False]]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_mean_and_variance_by_hand() -> None:
    assert mean_at_k(CORRECT_PK) == (1 / 4 + 2 / 4) / 2
    assert variance(CORRECT_PK) == (1 / 4 * 3 / 4 + 1 / 4) / 2


def test_variance_ignores_how_much_problems_differ() -> None:
    assert variance([[True, True], [False, False]]) == 0.0


def test_pass_at_k_by_hand() -> None:
    # Problem 1: of 6 pairs 3 miss the one right sample; problem 2: 1 misses both.
    assert pass_at_k(CORRECT_PK, 2) == pytest.approx((3 / 6 + 5 / 6) / 2)
    assert pass_at_k(CORRECT_PK, 4) == 1.0


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=7), st.data())
def test_pass_at_k_is_the_mean_over_all_subsets(correct: list[bool], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(correct)))
    every = [any(chosen) for chosen in combinations(correct, k)]
    assert pass_at_k([correct], k) == pytest.approx(sum(every) / len(every))


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=9))
def test_pass_at_1_is_the_mean(correct: list[bool]) -> None:
    assert pass_at_k([correct], 1) == pytest.approx(mean_at_k([correct]))


def test_pass_at_k_does_not_overflow() -> None:
    assert 0.0 < pass_at_k(np.arange(4096)[None] < 1, 2048) < 1.0


@pytest.mark.parametrize("k", [0, 5])
def test_pass_at_k_refuses_more_than_there_are(k: int) -> None:
    with pytest.raises(ValueError, match=rf"k must be in 1\.\.4, not {k}"):
        pass_at_k(CORRECT_PK, k)


def test_majority_by_hand() -> None:
    answers: list[list[str | None]] = [
        ["7", "3", "3", None],  # 3 wins and is right
        ["1", "2", None, None],  # a tie of right and wrong
        [None, None, None, None],  # nobody answered
        ["5", "5", "4", None],  # 5 wins and is wrong
        ["8", "8", "9", "9"],  # a tie; one verdict on 8 timed out, the other says right
    ]
    correct = [
        [False, True, True, False],
        [True, False, False, False],
        [False, False, False, False],
        [False, False, True, False],
        [False, True, False, False],
    ]
    assert majority_at_k(answers, correct) == (1 + 0.5 + 0 + 0 + 0.5) / 5


@settings(deadline=None)
@given(st.lists(st.sampled_from(["1", "2", None]), min_size=1, max_size=6), st.integers(0, 99))
def test_majority_does_not_depend_on_the_order_of_samples(
    answers: list[str | None], seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(len(answers))
    shuffled = [answers[i] for i in order]
    assert majority_at_k([answers], [[a == "1" for a in answers]]) == majority_at_k(
        [shuffled], [[a == "1" for a in shuffled]]
    )


def test_majority_refuses_answers_of_another_shape() -> None:
    with pytest.raises(ValueError, match="answers of shape"):
        majority_at_k([["1"], ["2", "3"]], [[True, True], [True, True]])


def test_bootstrap_of_a_constant_is_that_constant() -> None:
    assert bootstrap_interval([0.25] * 9, rng()) == Interval(0.25, 0.25)


def test_bootstrap_by_hand() -> None:
    # Two problems, 0 and 1: the mean is 0, 1/2 or 1 with chances 1/4, 1/2, 1/4.
    assert bootstrap_interval([0, 1], rng(), level=0.95) == Interval(0.0, 1.0)
    assert bootstrap_interval([0, 1], rng(), level=0.4) == Interval(0.5, 0.5)


def test_bootstrap_is_a_function_of_its_generator() -> None:
    values = np.random.default_rng(5).random(30)
    assert bootstrap_interval(values, rng()) == bootstrap_interval(values, rng())


def test_bootstrap_interval_is_as_wide_as_the_normal_one() -> None:
    values = np.random.default_rng(5).random(400)
    low, high = bootstrap_interval(values, rng())
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)
    assert (high + low) / 2 == pytest.approx(values.mean(), abs=half / 10)


def test_paired_difference_by_hand() -> None:
    # All ten problems better by 1/2: 2 of the 1024 sign patterns are as extreme.
    found = paired_difference([0.75] * 10, [0.25] * 10, rng(), num_resamples=50_000)
    assert (found.mean, found.interval) == (0.5, Interval(0.5, 0.5))
    assert found.p_value == pytest.approx(2 / 1024, abs=1e-3)


def test_paired_difference_sees_what_pairs_show() -> None:
    base = np.random.default_rng(1).random(40)
    better = base + 0.02 + 0.02 * np.random.default_rng(2).standard_normal(40)
    assert paired_difference(better, base, rng()).p_value < 0.001


def test_no_difference_has_a_p_value_of_one() -> None:
    assert paired_difference([1, 0, 1], [1, 0, 1], rng()).p_value == 1.0


def test_p_values_are_not_too_often_small_when_nothing_differs() -> None:
    rng = np.random.default_rng(3)
    p_values = [
        paired_difference(rng.random(12), rng.random(12), rng, num_resamples=200).p_value
        for _ in range(200)
    ]
    # Binomial(200, 0.1): mean 20, standard deviation 4.2.
    assert 6 <= sum(p <= 0.1 for p in p_values) <= 34


@pytest.mark.parametrize(
    "call",
    [
        lambda: mean_at_k([]),
        lambda: mean_at_k([True]),
        lambda: bootstrap_interval([], rng()),
        lambda: bootstrap_interval([1.0], rng(), level=1.0),
        lambda: paired_difference([1.0], [1.0, 2.0], rng()),
        lambda: call_rates([2], [1]),
        lambda: call_rates([0], [1, 1]),
    ],
)
def test_bad_input_is_a_value_error(call: object) -> None:
    with pytest.raises(ValueError, match=r"not|need"):
        call()  # type: ignore[operator]


def test_call_rates_by_hand() -> None:
    # Four episodes of 4, 2, 1 and 1 turns; the first consulted three times, the second once.
    found = call_rates([3, 1, 0, 0], [4, 2, 1, 1])
    assert found.per_episode == 2 / 4
    assert found.per_turn == 4 / 8
