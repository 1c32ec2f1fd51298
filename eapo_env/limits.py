r"""Static limits on an answer, checked before sympy could spend unbounded time or memory on it.

`is_too_complex` looks at tokens, once, from left to right. It keeps ordinary answers
(`\binom{2026}{1013}`, `2^{2005}`, a 10 x 10 matrix) and refuses towers of powers, factorials of
factorials, huge literals, deep nesting, and text that belongs to a programming language.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import pairwise

MAX_ANSWER_CHARS = 2_000
"""The longest answer that is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is the most that an answer may hold, so that sympy can be asked about it.

    Args:
        chars, tokens: of the text.
        depth: of brackets within brackets.
        digits: of one number.
        exponent: of a power, the product of the numbers in it.
        nested_exponent: of a power of a power, the product of all exponents.
        factorial: the number whose factorial is taken.
        factorial_power: the exponent of a power of factorials or binomials.
        cells: of a matrix.
        determinant_cells: separators between the cells of a determinant.
    """

    chars: int = MAX_ANSWER_CHARS
    tokens: int = 800
    depth: int = 24
    digits: int = 300
    exponent: int = 10_000
    nested_exponent: int = 100_000
    factorial: int = 3_000
    factorial_power: int = 100
    cells: int = 144
    determinant_cells: int = 12


LIMITS = Limits()
"""The limits of the verifier."""

_CODE = re.compile(
    r"__|[\"`@#]|(?<!\\)\b(?:import|lambda|eval|exec|open|getattr|globals|system|subprocess|raise"
    r"|SystemExit|quit|exit|int ?\(|str ?\()|\A ?\{\{|\$\{|<%|[A-Za-z)]\.[A-Za-z_]{2}|\("
    r"['\"]|[\x00-\x08\x0e-\x1f\x7f]|\\(?:input|include|write|def|csname|catcode|let|read|openin"
    r"|openout|immediate)(?![a-z])"
)
_BIG_ROOT = re.compile(r"\\sqrt ?\[ ?[^\]]{0,20}[0-9]{4}")
_TOKEN = re.compile(r"\\[A-Za-z]{1,30}|\\.|[0-9]+(?:\.[0-9]+)?|\.[0-9]+|\*\*|[^\s]")
_OPENERS, _CLOSERS = ("{", "(", "["), ("}", ")", "]")
_POWERS = ("^", "**")
_BINOMIALS = ("\\binom", "\\dbinom", "\\tbinom")
_LARGE_OPERATORS = ("\\sum", "\\prod", "\\int", "\\gcd", "\\lcm", "\\lim", "\\Gamma", "\\zeta")


def is_too_complex(text: str, limits: Limits = LIMITS) -> bool:
    """Return whether `text` exceeds a limit. Linear in its length; never raises."""
    if len(text) > limits.chars or _CODE.search(text) or _BIG_ROOT.search(text):
        return True
    cells = text.count("&")
    is_determinant = "vmatrix" in text or "\\det" in text
    if cells > (limits.determinant_cells if is_determinant else limits.cells):
        return True
    tokens = _TOKEN.findall(text)
    return (
        len(tokens) > limits.tokens
        or _is_nested(tokens, limits)
        or _has_large_number(tokens, limits)
    )


def _is_nested(tokens: list[str], limits: Limits) -> bool:
    """Return whether brackets nest too deeply, or powers or factorials occur within each other.

    One power within a power is read if its own exponent holds a letter (`2^{2^n}`), or if its base
    does (`e^{x^2}`): then it has no value before a small number is put in.
    """
    in_exponent: list[bool] = []
    opened: list[int] = []
    operators = sum(token in _LARGE_OPERATORS for token in tokens)
    before, previous = "", ""
    for index, token in enumerate(tokens):
        if token in _OPENERS:
            in_exponent.append(previous in _POWERS)
            opened.append(index)
        elif token in _CLOSERS and in_exponent:
            in_exponent.pop()
            start = opened.pop()
            if tokens[index + 1 : index + 2] == ["!"] and _is_large(
                tokens[start + 1 : index], limits
            ):
                return True
        elif token in _POWERS:
            has_value = _is_number(previous) and not _has_letter(tokens, index + 1)
            most = 0 if operators or has_value else 1
            if before in _POWERS or sum(in_exponent) > most:
                return True
        elif token == "!" and previous == "!":
            return True
        if len(in_exponent) > limits.depth:
            return True
        before, previous = previous, token
    return operators > 1 or (operators == 1 and tokens.count("^") > 12)


def _is_large(group: list[str], limits: Limits) -> bool:
    """Return whether the factorial of a bracket could be out of reach."""
    if any(token == "!" or token in _POWERS or token in _BINOMIALS for token in group):
        return True
    size = math.prod(max(_bounded(token), 1) for token in group if _is_number(token))
    return size > limits.factorial


def _has_letter(tokens: list[str], start: int) -> bool:
    """Return whether the exponent that begins at `start` holds a variable."""
    depth = 0
    for token in tokens[start:]:
        depth += (token in _OPENERS) - (token in _CLOSERS)
        if len(token) == 1 and token.isalpha():
            return True
        if depth <= 0:
            break
    return False


def _has_large_number(tokens: list[str], limits: Limits) -> bool:
    """Return whether a literal is too large where it costs time: exponents, factorials, bounds."""
    all_bounded = any(token in _LARGE_OPERATORS or token in _BINOMIALS for token in tokens)
    exponents: list[int] = []
    depth, opened_at, previous = 0, -1, ""
    for token in tokens:
        if token in _OPENERS:
            depth += 1
            if previous in _POWERS and opened_at < 0:
                opened_at = depth
                exponents.append(1)
        elif token in _CLOSERS:
            if depth == opened_at:
                opened_at = -1
            depth -= 1
        elif _is_number(token):
            size = _bounded(token)
            if previous in _POWERS and opened_at < 0:
                exponents.append(size)
            elif opened_at >= 0:
                exponents[-1] *= max(size, 1)
            if len(token) > limits.digits or (all_bounded and size > limits.exponent):
                return True
        elif token == "!" and _is_number(previous) and _bounded(previous) > limits.factorial:
            return True
        if exponents and exponents[-1] > limits.exponent:
            return True
        previous = token
    return _multiply(tokens, exponents, limits)


def _multiply(tokens: list[str], exponents: list[int], limits: Limits) -> bool:
    """Return whether powers of powers, of binomials or of factorials exceed their limit."""
    if "!" in tokens or any(token in _BINOMIALS for token in tokens):
        return max(exponents, default=0) > limits.factorial_power
    if not any(a in _CLOSERS and b in _POWERS for a, b in pairwise(tokens)):
        return False
    return math.prod(size for size in exponents if size > 1) > limits.nested_exponent


def _is_number(token: str) -> bool:
    return "0" <= token[-1:] <= "9" and token[0] != "\\"


def _bounded(digits: str) -> int:
    """Return the integer part, or 10**9 for any that is longer."""
    digits = digits.partition(".")[0].lstrip("0")
    return int(digits or "0") if len(digits) < 10 else 10**9
