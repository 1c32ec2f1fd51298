"""Procedural problems and an expert that solves them: the default, without any download.

A problem is a sum of brackets modulo 100, `a:((47+8)*6) b:((12*9)-5) a+b mod 100`: every bracket
is a chain of single steps, and the brackets can be worked out, or asked about, independently. So
all three paradigms of the paper (2.3) occur: solve alone, ask for the whole, ask for the parts. The
number of brackets and the number of operations in each are the difficulty.
"""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np

from eapo_env.experts import ErroneousExperts, ExpertPool, ScriptedExperts
from eapo_env.types import Problem, Query
from eapo_env.validation import UserError, at_least, probability, whole

MODULUS = 100
OPERATIONS = "+-*"

_STEPS = tuple((operation, operand) for operation in OPERATIONS for operand in range(2, 10))
"""The steps of a bracket: an operation and its operand."""

MOST_BRACKETS = len(string.ascii_lowercase)

_REPEATS = 30
"""Draws in a row, for each problem wanted, that repeat: then there are no more problems."""

LONGEST_QUESTION = 1000
"""Characters of a query that an expert reads."""
_NUMERIC = r"[0-9(][0-9+\-*() ]*"
_NAMED = r"\b[a-z](?: ?[+\-*] ?[a-z])+\b"
_MODULO = re.compile(rf"\bmod(?:ulo)? {MODULUS}\b")
_LEADING_ZEROS = re.compile(r"\b0+(?=[0-9])")
_WELL_FORMED = re.compile(r"(?:[0-9]++(?![a-z])|[a-z](?![0-9a-z])|[+\-*() ])++")
_WRITTEN_BRACKET = re.compile(r"[a-z]:(\(*[0-9]{2}(?:[+\-*][0-9]\))+)")
_WRITTEN_STEP = re.compile(r"([+\-*])([0-9])\)")
_QUESTION = re.compile(rf"(?:\b([a-z]): ?)?({_NUMERIC}|{_NAMED})")


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
    def parts(self) -> dict[str, Bracket]:
        """The brackets by name: a, b, c, ..."""
        return dict(zip(string.ascii_lowercase, self.brackets, strict=False))

    @property
    def statement(self) -> str:
        """The problem as the policy reads it: `a:((47+8)*6) b:((12*9)-5) a+b mod 100`."""
        definitions = " ".join(f"{name}:{bracket}" for name, bracket in self.parts.items())
        return f"{definitions} {'+'.join(self.parts)} mod {MODULUS}"

    @property
    def value(self) -> int:
        """The answer, modulo 100."""
        return sum(bracket.value for bracket in self.brackets) % MODULUS


def apply(operation: str, left: int, right: int) -> int:
    """Return `left operation right` modulo 100, for one of `+-*`."""
    values = {"+": left + right, "-": left - right, "*": left * right}
    return values[operation] % MODULUS


def mistaken_apply(operation: str, left: int, right: int) -> int:
    """Return `apply` as somebody works it out who mixes up digits where something is carried.

    `right` is a single digit. In + and * the tens of the units' result are written and its units
    carried; in - the smaller digit is taken from the larger: 47 + 8 is 91, 47 * 6 is 64, and 42 - 5
    is 43. Where nothing is carried, the result is right.
    """
    tens, units = divmod(left % MODULUS, 10)
    match operation:
        case "+":
            carried, written = _mixed_up(units + right)
            return (10 * (tens + carried) + written) % MODULUS
        case "*":
            carried, written = _mixed_up(units * right)
            return (10 * (tens * right + carried) + written) % MODULUS
        case _:
            return 10 * tens + abs(units - right)


def _mixed_up(units: int) -> tuple[int, int]:
    """Return what is carried and what is written of the units' result."""
    return (0, units) if units < 10 else (units % 10, units // 10)


def carries(operation: str, left: int, right: int) -> bool:
    """Return whether a step carries or borrows, so that `mistaken_apply` gets it wrong."""
    return apply(operation, left, right) != mistaken_apply(operation, left, right)


def random_sum(
    rng: np.random.Generator, *, brackets: int, operations: int, carry_rate: float | None = None
) -> BracketSum:
    """Return a random problem: `brackets` brackets of `operations` operations each.

    Args:
        carry_rate: the probability that a step carries or borrows; by default, as it comes.
    """
    return BracketSum(tuple(_random_bracket(rng, operations, carry_rate) for _ in range(brackets)))


def read_sum(statement: str) -> BracketSum | None:
    """Return the problem of a statement, or None if it is not a procedural one; never raises."""
    parts = [_WRITTEN_BRACKET.fullmatch(part) for part in statement.split(" ")[:-2]]
    brackets = [_read_bracket(part[1]) for part in parts if part]
    found = BracketSum(tuple(brackets[:MOST_BRACKETS]))
    return found if brackets and found.statement == statement else None


def synthetic_problems(
    num_problems: int = 256,
    *,
    brackets: int = 3,
    operations: int = 2,
    carry_rate: float | None = None,
    seed: int = 0,
) -> tuple[Problem, ...]:
    """Return distinct procedural problems; the same arguments give the same problems.

    Args:
        num_problems: the number of problems.
        brackets: independent parts of each problem, at least 1; each can be asked about.
        operations: steps in each part, at least 1.
        carry_rate: the probability that a step carries or borrows; by default, as it comes.
        seed: random seed of the problems.

    Raises:
        UserError: a number below 1, a negative seed, more brackets than there are letters to name
            them, or more problems than exist at this difficulty.
    """
    given = SimpleNamespace(
        num_problems=num_problems,
        brackets=brackets,
        operations=operations,
        carry_rate=carry_rate,
        seed=seed,
    )
    whole(given, "num_problems", "brackets", "operations", "seed")
    at_least(1, given, "num_problems", "brackets", "operations")
    at_least(0, given, "seed")
    if carry_rate is not None:
        probability(given, "carry_rate")
    if brackets > MOST_BRACKETS:
        raise UserError(f"brackets must be at most {MOST_BRACKETS}, not {brackets}")
    most = (90 * (8 * len(OPERATIONS)) ** operations) ** brackets // 2
    if num_problems > most:
        raise UserError(f"num_problems must be at most {most} at this difficulty: {num_problems}")
    rng = np.random.default_rng([seed, brackets, operations])
    drawn_how = "" if carry_rate is None else f"c{carry_rate:g}"
    sums: dict[str, BracketSum] = {}
    repeats = 0
    while len(sums) < num_problems:
        drawn = random_sum(rng, brackets=brackets, operations=operations, carry_rate=carry_rate)
        repeats = repeats + 1 if sums.setdefault(drawn.statement, drawn) is not drawn else 0
        if repeats > _REPEATS * num_problems:
            raise UserError(f"num_problems={num_problems} is more than exist at this difficulty")
    return tuple(
        Problem(
            id=f"synthetic-{brackets}x{operations}{drawn_how}-{seed}-{number}",
            statement=drawn.statement,
            answer=str(drawn.value),
            source="synthetic",
        )
        for number, drawn in enumerate(sums.values())
    )


def synthetic_experts(
    error_rate: float = 0.0, *, seed: int = 0, parts_only: bool = False
) -> ExpertPool:
    """Return the expert on these problems, which solves whole problems and parts.

    Args:
        error_rate: probability that a reply is wrong.
        seed: random seed of the errors.
        parts_only: answer only questions about a single bracket, so that the policy cannot
            delegate a whole problem.
    """
    expert = ProceduralExperts(work_out_part if parts_only else work_out, names=("calculator",))
    if not error_rate:
        return expert
    return ErroneousExperts(inner=expert, error_rate=error_rate, seed=seed)


@dataclass(frozen=True, slots=True)
class ProceduralExperts(ScriptedExperts):
    """Experts on the procedural problems, whose function never waits."""

    cooperative: ClassVar[bool] = True


def work_out(query: Query) -> str | None:
    """Return the value modulo 100 of the last expression in a question; None without one.

    Parts may be named and used: `a:(2+3) b:(4*5) a*b` is answered `00`, and `b:(4*5)` alone
    `b=20`. Values have two digits, as residues modulo 100 do.
    """
    known: dict[str, int] = {}
    answer = None
    text = _MODULO.sub("", query.text[:LONGEST_QUESTION])
    for name, expression in _QUESTION.findall(text):
        value = evaluate_expression(expression.strip(), known)
        if value is not None:
            answer = f"{name}={value:02}" if name else f"{value:02}"
            known |= {name: value}
    return answer


def work_out_part(query: Query) -> str | None:
    """Return the value like `work_out` if the question is a single bracket, else None."""
    found = _QUESTION.findall(_MODULO.sub("", query.text[:LONGEST_QUESTION]))
    if len(found) != 1 or not _is_chain(found[0][1].strip()):
        return None
    return work_out(query)


def evaluate_expression(expression: str, known: Mapping[str, int] | None = None) -> int | None:
    """Return the value modulo 100 of an expression in `+-*`; None if it is invalid; never raises.

    `known` holds the values of the names that may occur in it.
    """
    if len(expression) > LONGEST_QUESTION or not _WELL_FORMED.fullmatch(expression):
        return None
    try:
        return _value(ast.parse(_LEADING_ZEROS.sub("", expression), mode="eval").body, known or {})
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _is_chain(expression: str) -> bool:
    """Return whether every operation of an expression has a single number on its right."""
    if evaluate_expression(expression) is None:
        return False
    node = ast.parse(_LEADING_ZEROS.sub("", expression), mode="eval").body
    while isinstance(node, ast.BinOp) and isinstance(node.right, ast.Constant):
        node = node.left
    return isinstance(node, ast.Constant)


def _random_bracket(rng: np.random.Generator, operations: int, carry_rate: float | None) -> Bracket:
    if carry_rate is None:
        steps = tuple(_random_step(rng) for _ in range(operations))
        return Bracket(int(rng.integers(10, 100)), steps)
    while True:  # of some numbers, such as 20, no step carries
        start = value = int(rng.integers(10, 100))
        chosen: list[tuple[str, int]] = []
        for _ in range(operations):
            wanted = rng.random() < carry_rate
            fitting = [step for step in _STEPS if carries(step[0], value, step[1]) == wanted]
            if not fitting:
                break
            chosen.append(fitting[rng.integers(len(fitting))])
            value = apply(chosen[-1][0], value, chosen[-1][1])
        else:
            return Bracket(start, tuple(chosen))


def _random_step(rng: np.random.Generator) -> tuple[str, int]:
    return OPERATIONS[rng.integers(len(OPERATIONS))], int(rng.integers(2, 10))


def _read_bracket(text: str) -> Bracket:
    steps = _WRITTEN_STEP.findall(text)
    return Bracket(int(text.lstrip("(")[:2]), tuple((o, int(n)) for o, n in steps))


def _value(node: ast.expr, known: Mapping[str, int]) -> int:
    match node:
        case ast.Constant(value=int(number)):
            return number % MODULUS
        case ast.Name(id=name) if name in known:
            return known[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, known) % MODULUS
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return (_value(left, known) + _value(right, known)) % MODULUS
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return (_value(left, known) - _value(right, known)) % MODULUS
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _value(left, known) * _value(right, known) % MODULUS
        case _:
            raise ValueError("not an expression in + - *")
