r"""Equality of two scalar expressions by sympy, only for use inside a killable worker.

math-verify parses; equality is then decided here, independently: two constants must agree to 50
digits, two expressions at several points. Nothing here limits time or memory, and nothing evaluates
text as Python: only math-verify's LaTeX grammar reads it.
"""

from __future__ import annotations

import logging
import re
from fractions import Fraction
from typing import Any

import math_verify
import sympy
from math_verify import LatexExtractionConfig

from eapo_env.equivalence import is_rounding, is_unit, number, same_number
from eapo_env.structure import Factor

logging.getLogger("math_verify").setLevel(logging.CRITICAL)
logging.getLogger("latex2sympy2_extended").setLevel(logging.CRITICAL)

_DIGITS = 160
_TOLERANCE = sympy.Float("1e-145", _DIGITS)
_CONFIG = [LatexExtractionConfig()]
_OPERATOR = re.compile(
    r"\\(?:sum|prod|i{0,2}int|lim|[dt]?binom|gcd|lcm|max|min|mod|bmod|pmod|det)(?![a-z])"
)
_POWER = re.compile(r"!|\^|\*\*")
_UNREADABLE = re.compile(r"(?<![_\d])\d{1,300} \d|\d ?_|\\[lc]?dots|\.\.|%.*[^\s%]")
_FUNCTION = re.compile(
    r"(?<![\\A-Za-z])(?:arc)?(sin|cos|tan|cot|sec|csc|ln|log|sinh|cosh|tanh)(?![a-z])"
)
_VARIABLE = re.compile(r"(?<![\\A-Za-z])(?![ei](?![A-Za-z]))[A-Za-z]")
_DEGREES = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)\^\\circ")
_TRIG = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")
_TRAILING_UNIT = re.compile(r"(?P<rest>.*\S) (?P<unit>[A-Za-z][A-Za-z ./^{}23]{0,40})\Z", re.DOTALL)


def symbolic_scalar(answer: str, gold: str, factor: Factor = "one") -> bool | None:
    """Return whether two scalars are equal up to `factor`; False when either cannot be read."""
    if not (answer.isascii() and gold.isascii()):
        return False
    if _UNREADABLE.search(answer) or _UNREADABLE.search(gold):
        return False
    answer, gold = _without_unit(answer, gold), _without_unit(gold, answer)
    a_number, g_number = number(answer), number(gold)
    if factor == "one" and a_number and g_number:
        return same_number(a_number, g_number)
    if _is_unevaluated(answer, gold):
        return False
    a, g = _parse(answer), _parse(gold)
    if a is None or g is None:
        return False
    if not (isinstance(a, sympy.Expr) and isinstance(g, sympy.Expr)):
        return factor == "one" and _same_object(a, g)
    if factor != "one":
        return _proportional(a, g, factor)
    for decimal, exact in ((a_number, g), (g_number, a)):
        value = None if decimal is None else _irrational(exact)
        if decimal and value is not None:
            return is_rounding(decimal, value)
    return _same_expression(a, g)


def _is_unevaluated(answer: str, gold: str) -> bool:
    """Return whether the answer leaves a computation undone that the gold answer has done.

    For a gold constant, that is a sum, limit, integral, binomial or similar which the constant does
    not have; for an integer also a power or factorial of numbers. Accepting these would reward
    restating the problem.
    """
    if _VARIABLE.search(_bare(gold)) or _OPERATOR.search(gold):
        return False
    if _OPERATOR.search(answer):
        return True
    value = number(gold)
    integer = value is not None and value.value.denominator == 1
    return integer and bool(_POWER.search(answer)) and not _VARIABLE.search(_bare(answer))


def _bare(text: str) -> str:
    return re.sub(r"\\[A-Za-z]{1,30}", " ", text)


def _without_unit(text: str, other: str) -> str:
    match = _TRAILING_UNIT.fullmatch(text)
    if match and is_unit(match["unit"]) and not other.endswith(match["unit"]):
        return match["rest"]
    return text


def latex(text: str) -> str:
    """Return LaTeX for a canonical text that may use plain-ASCII notation (`sqrt(3)`, `2*x`)."""
    text = text.replace("$", "").replace("%", "").replace("**", "^")
    text = _DEGREES.sub(r"\\frac{\1\\pi}{180}", text) if _TRIG.search(text) else text
    text = text.replace("^\\circ", "")
    text = re.sub(r"(?<![\\A-Za-z])sqrt ?(?=\()", r"\\sqrt", text)
    text = re.sub(r"(?<![\\A-Za-z])exp ?(?=\()", "e^", text)
    text = re.sub(r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi ", text)
    text = _FUNCTION.sub(lambda match: "\\" + match[0] + " ", text)
    text = re.sub(r"\^ ?(-?\d{2,300}|-\d)", r"^{\1}", text)
    text = re.sub(r"\\sqrt ?(\d{1,300}|[a-z](?![a-z]))", r"\\sqrt{\1}", text)
    text = _braced(text.replace("\\sqrt (", "\\sqrt("))
    return text.replace("*", "\\cdot ")


def _braced(text: str) -> str:
    r"""Return `text` with `^(...)` and `\sqrt(...)` written with braces."""
    for head in ("^", "\\sqrt"):
        start = text.find(head + "(")
        while start >= 0:
            opened = start + len(head)
            depth, end = 0, opened
            for end in range(opened, len(text)):
                depth += {"(": 1, ")": -1}.get(text[end], 0)
                if depth == 0:
                    break
            if depth:
                break
            text = f"{text[:opened]}{{{text[opened + 1 : end]}}}{text[end + 1 :]}"
            start = text.find(head + "(", opened)
    return text


def _parse(text: str) -> Any:
    """Return what math-verify reads, floats made exact and `i` the imaginary unit, or None."""
    parsed = math_verify.parse(
        f"${latex(text)}$", _CONFIG, fallback_mode="no_fallback", parsing_timeout=None
    )
    if not parsed:
        return None
    expression = parsed[0]
    if isinstance(expression, sympy.Expr):
        names = {symbol: sympy.I for symbol in expression.free_symbols if symbol.name == "i"}
        floats = {f: sympy.Rational(str(f)) for f in expression.atoms(sympy.Float)}
        expression = expression.xreplace({**names, **floats})
        if expression.has(sympy.nan, sympy.zoo):
            return None
    return expression


def _irrational(expression: sympy.Expr) -> Fraction | None:
    """Return the value of an irrational real constant to 60 digits, else None."""
    value = _evaluated(expression)
    if value.free_symbols or value.is_rational is not False or value.is_real is not True:
        return None
    return Fraction(str(value.evalf(_DIGITS)))


def _same_object(answer: Any, gold: Any) -> bool:
    if isinstance(answer, sympy.Expr) or isinstance(gold, sympy.Expr):
        return False
    return bool(math_verify.verify(gold, answer, timeout_seconds=None))


def _same_expression(answer: sympy.Expr, gold: sympy.Expr) -> bool:
    if answer == gold:
        return True
    answer, gold = _evaluated(answer), _evaluated(gold)
    if answer.is_Rational and gold.is_Rational:
        return bool(answer == gold)
    outcomes = []
    for a, g in _values(answer, gold):
        outcomes.append(_close(a, g))
        if not outcomes[-1]:
            break
    if outcomes:
        return all(outcomes)
    return bool(math_verify.verify(gold, answer, timeout_seconds=None))


def _evaluated(expression: sympy.Expr) -> sympy.Expr:
    try:
        return expression.doit()
    except (ValueError, TypeError, NotImplementedError, ArithmeticError, AttributeError):
        return expression


def _close(a: sympy.Expr, b: sympy.Expr) -> bool:
    size = max(abs(a), abs(b))
    if size < sympy.Float("1e-40"):
        return bool(size == 0 or sympy.simplify(a - b) == 0 or abs(a - b) < size * _TOLERANCE)
    return bool(abs(a - b) <= size * _TOLERANCE)


def _proportional(answer: sympy.Expr, gold: sympy.Expr, factor: Factor) -> bool:
    ratios = []
    for a, g in _values(_evaluated(answer), _evaluated(gold)):
        if (abs(a) < _TOLERANCE) != (abs(g) < _TOLERANCE):
            return False
        if abs(g) >= _TOLERANCE:
            ratios.append(a / g)
    if len(ratios) < 2 or not all(_close(ratio, ratios[0]) for ratio in ratios):
        return False
    return factor == "any" or bool(sympy.re(ratios[0]) > 0)


def _values(answer: sympy.Expr, gold: sympy.Expr) -> list[tuple[sympy.Expr, sympy.Expr]]:
    """Return both values at a few points: two positive, two of mixed sign where both are real."""
    names = sorted({s.name for e in (answer, gold) for s in e.free_symbols})
    values = []
    for number_of_point in range(4 if names else 1):
        point = {n: _coordinate(number_of_point, index) for index, n in enumerate(names)}
        a, g = _at(answer, point), _at(gold, point)
        if a is None or g is None:
            continue
        if number_of_point >= 2 and not (a.is_real and g.is_real):
            continue
        values.append((a, g))
    return values


def _coordinate(number_of_point: int, index: int) -> sympy.Rational:
    value = sympy.Rational(7 * index + 11 + 5 * number_of_point, 13 + 3 * index)
    return -value if number_of_point >= 2 and (index + number_of_point) % 2 == 0 else value


def _at(expression: sympy.Expr, point: dict[str, sympy.Rational]) -> sympy.Expr | None:
    symbols = {symbol: point[symbol.name] for symbol in expression.free_symbols}
    value = expression.xreplace(symbols) if symbols else expression
    value = value.evalf(_DIGITS)
    if not value.is_number or value.has(sympy.nan, sympy.zoo, sympy.oo) or not value.is_finite:
        return None
    return value
