"""Load balancing: the choice of an endpoint, worked by hand and for any loads."""

from __future__ import annotations

import pytest
from hypothesis import example, given, strategies as st

from eapo_env.balancing import FEWEST_MEASURED, Load, choose, hedge_after, updated_latency

latencies = st.none() | st.floats(0.001, 1000)


def load(in_flight: int, latency_s: float | None, limit: int = 8) -> Load:
    return Load(in_flight=in_flight, limit=limit, latency_s=latency_s)


def is_full(one: Load) -> bool:
    return one.in_flight >= one.limit


loads = st.integers(1, 64).flatmap(
    lambda limit: st.builds(load, st.integers(0, limit), latencies, st.just(limit))
)
groups = st.lists(loads, min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("group", "num_waiting", "chosen"),
    [
        ([load(3, 1.0), load(2, 1.0)], 1, 1),
        ([load(3, 1.0), load(0, 4.0)], 1, 0),  # 4 x 1 s is no more than 1 x 4 s
        ([load(4, 1.0), load(0, 4.0)], 1, 1),
        ([load(2, None), load(1, None), load(1, None)], 1, 1),
        ([load(1, 2.0), load(0, None)], 1, 1),
        ([load(8, 1.0), load(8, 4.0)], 9, None),
        ([load(8, 1.0), load(2, 4.0)], 23, None),  # full: 8 a second, so 1 + 23/8 s, under 4 s
        ([load(8, 1.0), load(2, 4.0)], 24, 1),
        ([load(8, 1.0), load(2, 1.0)], 1, 1),
    ],
)
def test_choices_worked_by_hand(group: list[Load], num_waiting: int, chosen: int | None) -> None:
    assert choose(group, num_waiting) == chosen


@given(groups, st.integers(1, 1000))
def test_a_chosen_endpoint_has_a_free_slot(group: list[Load], num_waiting: int) -> None:
    chosen = choose(group, num_waiting)
    assert chosen is None or not is_full(group[chosen])


@given(groups, st.integers(1, 1000))
def test_a_call_waits_only_for_a_full_endpoint_and_never_while_one_of_the_fastest_is_free(
    group: list[Load], num_waiting: int
) -> None:
    if choose(group, num_waiting) is None:
        fastest = min((one.latency_s for one in group if one.latency_s is not None), default=1.0)
        assert any(is_full(one) for one in group)
        assert all(is_full(one) or one.latency_s not in (None, fastest) for one in group)


@given(groups, st.integers(1, 1000), st.integers(1, 1000))
def test_the_longer_the_queue_the_sooner_a_slow_endpoint_is_used(
    group: list[Load], num_waiting: int, more: int
) -> None:
    chosen = choose(group, num_waiting)
    assert chosen is None or choose(group, num_waiting + more) == chosen


@given(groups, st.integers(1, 1000), st.integers(-8, 8))
def test_the_unit_of_time_does_not_matter(
    group: list[Load], num_waiting: int, exponent: int
) -> None:
    scaled = [
        load(
            one.in_flight,
            None if one.latency_s is None else one.latency_s * 2.0**exponent,
            one.limit,
        )
        for one in group
    ]
    assert choose(scaled, num_waiting) == choose(group, num_waiting)


@given(st.lists(st.integers(0, 63), min_size=1, max_size=6), latencies)
def test_of_equally_fast_endpoints_the_first_with_the_fewest_calls_is_chosen(
    in_flight: list[int], latency_s: float | None
) -> None:
    group = [load(calls, latency_s, 64) for calls in in_flight]
    assert choose(group, 1) == in_flight.index(min(in_flight))


def test_the_mean_latency_worked_by_hand() -> None:
    assert updated_latency(None, 3.0) == 3.0
    assert updated_latency(3.0, 4.0) == pytest.approx(3.1)


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=50))
def test_the_mean_latency_lies_among_the_measured_ones(measured: list[float]) -> None:
    mean: float | None = None
    for latency_s in measured:
        mean = updated_latency(mean, latency_s)
    assert mean is not None
    assert min(measured) * (1 - 1e-9) <= mean <= max(measured) * (1 + 1e-9)


def test_when_a_call_is_hedged_worked_by_hand() -> None:
    recent_s = [float(number) for number in range(100, 0, -1)]
    assert hedge_after(recent_s, 0.05) == 95.0
    assert hedge_after(recent_s, 0.5) == 50.0
    assert hedge_after(recent_s, 0.0) is None
    assert hedge_after(recent_s[: FEWEST_MEASURED - 1], 0.05) is None


@given(
    st.lists(st.floats(0.001, 1000), min_size=FEWEST_MEASURED, max_size=200),
    st.floats(0.001, 0.5),
)
@example([1.0] * 10 + [2.0] * 10, 0.49999999999999994)  # 1 - share is rounded to 0.5
def test_at_most_the_share_of_the_recent_calls_took_longer(
    recent_s: list[float], share: float
) -> None:
    after_s = hedge_after(recent_s, share)
    assert after_s in recent_s
    assert sum(one > after_s for one in recent_s if after_s is not None) <= share * len(recent_s)
