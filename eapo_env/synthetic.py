"""Procedural problems and their expert: the embedded default, complete without any download.

A problem is a sum of brackets modulo 100, `((47+38)*6)+((12*9)-5) mod 100`: every bracket is a
chain of single steps, and the brackets can be worked out, or asked about, independently. So all
three paradigms of the paper (2.3) occur: solve alone, ask for the whole, ask for the parts. The
number of brackets and the number of operations in each are the difficulty.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

import numpy as np

from eapo_env.experts import ErroneousExperts, ExpertPool, ScriptedExperts
from eapo_env.types import Problem, Query

MODULUS = 100
OPERATIONS = "+-*"

_LONGEST_EXPRESSION = 400
_EXPRESSION = re.compile(r"[0-9(][0-9+\-*() ]*")


@dataclass(frozen=True, slots=True)
class Bracket:
    """A chain of operations on a number, each with a one-digit operand: `((47+38)*6)`."""

    start: int
    steps: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        text = str(self.start)
        for operation, operand in self.steps:
            text = f"({text}{operation}{operand})"
        return text

    @property
    def value(self) -> int:
        """The value modulo 100."""
        value = self.start
        for operation, operand in self.steps:
            value = apply(operation, value, operand)
        return value


@dataclass(frozen=True, slots=True)
class BracketSum:
    """A whole problem: the sum of its brackets modulo 100."""

    brackets: tuple[Bracket, ...]

    @property
    def expression(self) -> str:
        """The sum without its modulus: `((47+38)*6)+((12*9)-5)`."""
        return "+".join(map(str, self.brackets))

    @property
    def statement(self) -> str:
        """The problem as the policy reads it."""
        return f"{self.expression} mod {MODULUS}"

    @property
    def value(self) -> int:
        """The answer."""
        return sum(bracket.value for bracket in self.brackets) % MODULUS


def apply(operation: str, left: int, right: int) -> int:
    """Return `left operation right` modulo 100, for one of `+-*`."""
    values = {"+": left + right, "-": left - right, "*": left * right}
    return values[operation] % MODULUS


def random_sum(rng: np.random.Generator, *, brackets: int, operations: int) -> BracketSum:
    """Return a random problem: `brackets` brackets of `operations` operations each."""
    return BracketSum(tuple(_random_bracket(rng, operations) for _ in range(brackets)))


def synthetic_problems(
    num_problems: int = 256, *, brackets: int = 3, operations: int = 2, seed: int = 0
) -> tuple[Problem, ...]:
    """Return distinct procedural problems; the same arguments give the same problems.

    Args:
        num_problems: how many.
        brackets: independent parts of each problem, at least 1; each can be asked about.
        operations: steps in each part, at least 1.
        seed: which problems.

    Raises:
        ValueError: a number below 1, or more problems than exist at this difficulty.
    """
    for name, value in (
        ("num_problems", num_problems),
        ("brackets", brackets),
        ("operations", operations),
    ):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    most = (90 * (8 * len(OPERATIONS)) ** operations) ** brackets // 2
    if num_problems > most:
        raise ValueError(f"num_problems must be at most {most} at this difficulty: {num_problems}")
    rng = np.random.default_rng([seed, brackets, operations])
    sums: dict[str, BracketSum] = {}
    while len(sums) < num_problems:
        drawn = random_sum(rng, brackets=brackets, operations=operations)
        sums.setdefault(drawn.statement, drawn)
    return tuple(
        Problem(
            id=f"synthetic-{brackets}x{operations}-{seed}-{number}",
            statement=drawn.statement,
            answer=str(drawn.value),
            source="synthetic",
        )
        for number, drawn in enumerate(sums.values())
    )


def synthetic_experts(error_rate: float = 0.0, *, seed: int = 0) -> ExpertPool:
    """Return the expert of these problems: it works out whole problems and parts alike.

    With an `error_rate` above 0, each reply is wrong with that probability.
    """
    expert = ScriptedExperts(work_out, names=("calculator",))
    if not error_rate:
        return expert
    return ErroneousExperts(inner=expert, error_rate=error_rate, seed=seed)


def work_out(query: Query) -> str | None:
    """Return the value modulo 100 of the first expression in the question; None without one."""
    for match in _EXPRESSION.finditer(query.text[:_LONGEST_EXPRESSION]):
        value = evaluate(match.group().strip())
        if value is not None:
            return str(value)
    return None


def evaluate(expression: str) -> int | None:
    """Return the value modulo 100 of an expression in `+-*`; None when it is none. Never raises."""
    if not _EXPRESSION.fullmatch(expression):
        return None
    try:
        return _value(ast.parse(expression, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _random_bracket(rng: np.random.Generator, operations: int) -> Bracket:
    steps = tuple(
        (OPERATIONS[rng.integers(len(OPERATIONS))], int(rng.integers(2, 10)))
        for _ in range(operations)
    )
    return Bracket(int(rng.integers(10, 100)), steps)


def _value(node: ast.expr) -> int:
    match node:
        case ast.Constant(value=int(number)):
            return number % MODULUS
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand) % MODULUS
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return (_value(left) + _value(right)) % MODULUS
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return (_value(left) - _value(right)) % MODULUS
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _value(left) * _value(right) % MODULUS
        case _:
            raise ValueError("not an expression in + - *")
