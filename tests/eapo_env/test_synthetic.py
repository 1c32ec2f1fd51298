"""Procedural problems and their expert: values by hand, hostile questions, error rates."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from eapo_env.synthetic import (
    LONGEST_QUESTION,
    Bracket,
    BracketSum,
    apply,
    carries,
    evaluate_expression,
    mistaken_apply,
    random_sum,
    synthetic_experts,
    synthetic_problems,
    work_out,
    work_out_part,
)
from eapo_env.testing import check_expert_pool
from eapo_env.types import ExpertReply, Query, Reply, Unavailable
from eapo_env.validation import UserError

EXAMPLE = BracketSum(
    (Bracket(47, (("+", 38), ("*", 6))), Bracket(12, (("*", 9), ("-", 5)))),
)
difficulties = {"brackets": st.integers(1, 4), "operations": st.integers(1, 4)}


def ask(*texts: str, error_rate: float = 0.0) -> list[ExpertReply]:
    queries = [Query(text=text, seed=seed) for seed, text in enumerate(texts)]
    return list(asyncio.run(synthetic_experts(error_rate).ask(queries)))


def by_python(statement: str) -> int:
    """Evaluate `a:X b:Y a+b mod 100` with Python's own arithmetic on unreduced integers."""
    definitions, modulus = statement.split(" mod ")
    *parts, total = definitions.split(" ")
    assert all(re.fullmatch(r"[a-z]:[0-9+\-*()]+", part) for part in parts)
    assert re.fullmatch(r"[a-z](\+[a-z])*", total)
    return int(eval(total, {part[0]: eval(part[2:]) for part in parts})) % int(modulus)


def test_a_problem_by_hand() -> None:
    assert EXAMPLE.statement == "a:((47+38)*6) b:((12*9)-5) a+b mod 100"
    assert [bracket.value for bracket in EXAMPLE.brackets] == [10, 3]  # 85*6 = 510, 108-5 = 103
    assert EXAMPLE.value == 13


@pytest.mark.parametrize(
    ("operation", "left", "right", "value"),
    [("+", 95, 8, 3), ("-", 3, 9, 94), ("*", 37, 6, 22), ("-", 9, 9, 0)],
)
def test_a_step_is_taken_modulo_100(operation: str, left: int, right: int, value: int) -> None:
    assert apply(operation, left, right) == value


@given(seed=st.integers(0, 2**32), **difficulties)
def test_the_answer_is_what_the_statement_says(seed: int, brackets: int, operations: int) -> None:
    drawn = random_sum(np.random.default_rng(seed), brackets=brackets, operations=operations)
    assert drawn.value == by_python(drawn.statement)
    whole = work_out(Query(text=drawn.statement))
    assert whole is not None
    assert whole.removeprefix("a=") == f"{drawn.value:02}"  # a single part is answered by its name
    for name, bracket in drawn.parts.items():
        assert f"{bracket.value:02}" == work_out(Query(text=f"What is {bracket}?"))
        assert f"{name}={bracket.value:02}" == work_out(Query(text=f"{name}:{bracket}"))
    assert len(drawn.brackets) == brackets
    assert {len(bracket.steps) for bracket in drawn.brackets} == {operations}


@pytest.mark.parametrize(("brackets", "operations"), [(1, 1), (1, 3), (3, 2), (4, 1)])
def test_problems_are_distinct_repeatable_and_as_hard_as_asked(
    brackets: int, operations: int
) -> None:
    made = synthetic_problems(200, brackets=brackets, operations=operations, seed=4)
    assert made == synthetic_problems(200, brackets=brackets, operations=operations, seed=4)
    assert made != synthetic_problems(200, brackets=brackets, operations=operations, seed=5)
    assert len({problem.statement for problem in made}) == 200
    assert len({problem.id for problem in made}) == 200
    for problem in made:
        assert int(problem.answer) == by_python(problem.statement)
        assert problem.statement.count("(") == brackets * operations
        assert problem.source == "synthetic"


@pytest.mark.parametrize(
    ("operation", "left", "right", "value"),
    [
        ("+", 47, 8, 91),  # 7 + 8 = 15: 1 is written, 5 carried to 4
        ("*", 47, 6, 64),  # 7 * 6 = 42: 4 is written, 2 carried to 4 * 6
        ("-", 42, 5, 43),  # 5 - 2
        ("+", 41, 8, 49),
        ("*", 41, 6, 46),
        ("-", 47, 5, 42),
    ],
)
def test_mixed_up_digits_by_hand(operation: str, left: int, right: int, value: int) -> None:
    assert mistaken_apply(operation, left, right) == value


def test_a_mistake_is_one_where_units_are_carried_or_borrowed_and_nowhere_else() -> None:
    for operation in "+-*":
        for left in range(100):
            for right in range(2, 10):
                units = left % 10
                crosses = {"+": units + right > 9, "*": units * right > 9, "-": units < right}
                assert 0 <= mistaken_apply(operation, left, right) < 100
                if carries(operation, left, right):
                    assert crosses[operation]
                elif crosses[operation]:  # as 9 + 2 = 11: both digits are the same
                    assert operation != "-"


@given(st.integers(0, 2**32), st.sampled_from([0.0, 1.0]))
def test_steps_carry_as_often_as_asked(seed: int, carry_rate: float) -> None:
    drawn = random_sum(np.random.default_rng(seed), brackets=3, operations=2, carry_rate=carry_rate)
    for bracket in drawn.brackets:
        value = bracket.start
        for operation, operand in bracket.steps:
            assert carries(operation, value, operand) == bool(carry_rate)
            value = apply(operation, value, operand)


@pytest.mark.parametrize("carry_rate", [-0.1, 1.5])
def test_a_carry_rate_is_a_probability(carry_rate: float) -> None:
    with pytest.raises(ValueError, match=rf"carry_rate must be in \[0, 1\], not {carry_rate}"):
        synthetic_problems(carry_rate=carry_rate)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": -1}, "seed must be at least 0, not -1"),
        ({"seed": "7"}, "seed must be a whole number, not '7'"),
        ({"num_problems": 2.5}, "num_problems must be a whole number, not 2.5"),
        ({"carry_rate": "all"}, "carry_rate must be a number, not 'all'"),
    ],
)
def test_arguments_of_other_types_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        synthetic_problems(**given)


def test_more_problems_extend_fewer() -> None:
    assert synthetic_problems(50)[:20] == synthetic_problems(20)


@pytest.mark.parametrize("name", ["num_problems", "brackets", "operations"])
def test_a_number_below_1_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        synthetic_problems(**{name: 0})


def test_more_problems_than_there_are_is_refused() -> None:
    # 90 starts, 3 operations, 8 operands: 2160 of the easiest kind; half of them is quick to find.
    assert len(synthetic_problems(1080, brackets=1, operations=1)) == 1080
    with pytest.raises(ValueError, match="at most 1080 at this difficulty: 1081"):
        synthetic_problems(1081, brackets=1, operations=1)
    with pytest.raises(ValueError, match="num_problems=1000 is more than exist at this difficulty"):
        synthetic_problems(1000, brackets=1, operations=1, carry_rate=0.0)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (EXAMPLE.statement, "13"),
        ("((47+38)*6)", "10"),
        ("What is ((12*9)-5) modulo 100?", "03"),
        ("Please: 7 * 8 - 60", "96"),
        ("(-3)*2", "94"),
        ("a:((47+38)*6)", "a=10"),
        ("a: 7 b: 2*3 a*b - no, b*b", "36"),
        ("a:2 b:3 a+c", "b=03"),
        ("2+3 or 4+4?", "08"),
        ("(1+ hm, 4+4", "08"),
        ("5", "05"),
        ("05+08", "13"),
        ("1000-007", "93"),
        ("", None),
        ("no expression here", None),
        ("()", None),
        ("(((", None),
        ("1/2", "02"),  # the last expression in + - * is 2
    ],
)
def test_the_expert_answers_the_last_expression(question: str, answer: str | None) -> None:
    assert work_out(Query(text=question)) == answer


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (EXAMPLE.statement, None),
        ("a:((47+38)*6)", "a=10"),
        ("What is ((12*9)-5) modulo 100?", "03"),
        ("((47+38)*6)+((12*9)-5)", None),
        ("a:((47+38)*6) b:((12*9)-5)", None),
        ("((47+38)*6) and ((12*9)-5)", None),
        ("(47+38)*(6+1)", None),
        ("a:7", "a=07"),
        ("", None),
    ],
)
def test_an_expert_of_parts_answers_one_bracket_alone(question: str, answer: str | None) -> None:
    (reply,) = asyncio.run(synthetic_experts(parts_only=True).ask([Query(text=question)]))
    assert (reply.text if isinstance(reply, Reply) else None) == answer


@given(seed=st.integers(0, 2**32), **difficulties)
def test_an_expert_of_parts_works_out_every_bracket_and_no_sum(
    seed: int, brackets: int, operations: int
) -> None:
    drawn = random_sum(np.random.default_rng(seed), brackets=brackets, operations=operations)
    for name, bracket in drawn.parts.items():
        assert work_out_part(Query(text=f"{name}:{bracket}")) == f"{name}={bracket.value:02}"
    whole = "+".join(map(str, drawn.brackets))
    if brackets > 1:
        assert work_out_part(Query(text=drawn.statement)) is None
        assert work_out_part(Query(text=whole)) is None


@pytest.mark.parametrize(
    "text",
    [
        "((1)",
        "1" + "+1" * (LONGEST_QUESTION // 2 + 1),
        "1" * (LONGEST_QUESTION + 1),
        "2**3",
        "2**3 mod 100",
        "9*",
        "٣+٤",
        "３+４",
        "٣",
        "x\0+\0y",
        "\ud800",
        "True",
        "[1][0]",
        "f('x')",
        "1if 1else 2",
        "0x10",
        "1_000",
        "1\n+1",
    ],
    ids=lambda text: ascii(text[:12]),
)
def test_what_is_no_expression_has_no_value(text: str) -> None:
    assert evaluate_expression(text) is None


@pytest.mark.parametrize("text", ["((1)", "2**3", "٣+٤", "\ud800 \0", "x" * (LONGEST_QUESTION + 1)])
def test_what_is_no_question_finds_no_expert(text: str) -> None:
    (reply,) = ask(text)
    assert isinstance(reply, Unavailable)


@given(st.text(st.characters(codec=None)) | st.text("0123456789()+-* \n", max_size=600))
def test_no_question_raises(text: str) -> None:
    value = work_out(Query(text=text))
    assert value is None or 0 <= int(value.rpartition("=")[2]) < 100
    assert work_out_part(Query(text=text)) in (None, value)
    found = evaluate_expression(text)
    assert found is None or 0 <= found < 100


def test_the_expert_keeps_the_protocol() -> None:
    asyncio.run(check_expert_pool(synthetic_experts()))
    asyncio.run(check_expert_pool(synthetic_experts(0.5)))
    asyncio.run(check_expert_pool(synthetic_experts(parts_only=True)))


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_the_expert_is_wrong_as_often_as_it_should(rate: float) -> None:
    replies = ask(*["20+22"] * 1000, error_rate=rate)
    texts = [reply.text for reply in replies if isinstance(reply, Reply)]
    wrong = sum(text != "42" for text in texts)
    assert len(texts) == 1000
    assert abs(wrong - 1000 * rate) <= 4 * (1000 * rate * (1 - rate)) ** 0.5
    assert replies == ask(*["20+22"] * 1000, error_rate=rate), (
        "randomness depends on the question alone"
    )


def test_there_are_no_more_brackets_than_letters_to_name_them() -> None:
    (problem,) = synthetic_problems(1, brackets=26, operations=1)
    assert problem.statement.endswith("y+z mod 100")
    assert work_out(Query(text=problem.statement)) == f"{int(problem.answer):02}"
    with pytest.raises(ValueError, match="brackets must be at most 26, not 27"):
        synthetic_problems(1, brackets=27, operations=1)
