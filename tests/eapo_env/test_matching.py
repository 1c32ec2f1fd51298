"""Comparing collections of parts where a comparison can be undecided."""

from __future__ import annotations

from hypothesis import given, strategies as st

from eapo_env.matching import all_same, same_unordered

outcomes = st.sampled_from([True, False, None])
parts = st.lists(st.integers(0, 4), max_size=5)


@given(st.lists(outcomes))
def test_a_false_outcome_decides_and_an_undecided_one_leaves_open(
    values: list[bool | None],
) -> None:
    expected = False if False in values else None if None in values else True
    assert all_same(values) is expected


@given(parts, parts)
def test_order_does_not_count_and_number_does(one: list[int], other: list[int]) -> None:
    same = same_unordered(one, other, lambda a, b: a == b)
    assert same is (sorted(one) == sorted(other))


@given(parts, parts)
def test_nothing_is_decided_without_a_comparison(one: list[int], other: list[int]) -> None:
    same = same_unordered(one, other, lambda a, b: True if a == b else None)
    if sorted(one) == sorted(other):
        assert same is True
    else:
        assert same is (None if len(one) == len(other) else False)
