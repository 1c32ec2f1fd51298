"""The nouns: what they refuse, and that they are values."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from eapo_env.types import Problem, Query, Rules, StopReason

RULES = st.builds(
    Rules,
    turn_budget=st.integers(1, 6),
    acceptance_rate=st.floats(0, 1),
    queries_per_turn=st.integers(0, 5),
    max_reply_chars=st.integers(1, 100),
)


@pytest.mark.parametrize("field", ["id", "statement", "answer"])
@pytest.mark.parametrize("value", ["", "  \n", None, 7, "\ud800 lone", "lone \udfff"])
def test_a_problem_refuses_what_is_no_text(field: str, value: Any) -> None:
    fields: dict[str, Any] = {"id": "p", "statement": "What is $1+1$?", "answer": "2"}
    with pytest.raises(ValueError, match=f"a problem's {field} must"):
        Problem(**{**fields, field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("turn_budget", 0),
        ("turn_budget", 2.0),
        ("turn_budget", True),
        ("turn_budget", "4"),
        ("turn_budget", float("inf")),
        ("queries_per_turn", -1),
        ("queries_per_turn", 2.0),
        ("max_reply_chars", 0),
        ("max_reply_chars", None),
        ("acceptance_rate", -0.1),
        ("acceptance_rate", 1.1),
        ("acceptance_rate", float("nan")),
    ],
)
def test_rules_refuse_a_value_out_of_range_and_show_it(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{field} must .*{value}"):
        Rules(**{field: value})


def test_rules_take_the_whole_numbers_of_numpy() -> None:
    assert Rules(turn_budget=np.int64(3)) == Rules(turn_budget=3)  # type: ignore[arg-type]


@given(RULES)
def test_alone_means_that_no_expert_can_be_consulted(rules: Rules) -> None:
    assert rules.is_alone == (rules.turn_budget == 1 or rules.queries_per_turn == 0)


def test_the_rules_of_evaluation_are_alone() -> None:
    assert Rules.alone().is_alone
    assert not Rules().is_alone


@given(RULES)
def test_values_compare_by_content_and_cannot_change(rules: Rules) -> None:
    assert dataclasses.replace(rules) == rules
    assert hash(dataclasses.replace(rules)) == hash(rules)
    with pytest.raises(dataclasses.FrozenInstanceError):
        rules.turn_budget = 2  # type: ignore[misc]


def test_only_outside_limits_truncate() -> None:
    assert {reason for reason in StopReason if reason.truncated} == {
        StopReason.LENGTH,
        StopReason.WALL_CLOCK,
    }


def test_a_query_is_named_by_its_place() -> None:
    assert Query(text="q", seed=1, turn=0, slot=1) != Query(text="q", seed=1, turn=0, slot=2)
