r"""Equality of two scalar expressions by sympy, only for use inside a killable worker.

latex2sympy reads, with its own rewriting off; equality is then decided here: two constants must
agree to 145 digits, two expressions at points small and large, of both signs. Nothing here limits
time or memory, and nothing evaluates text as Python: only latex2sympy's grammar reads it.
"""

from __future__ import annotations

import logging
import re
from fractions import Fraction
from typing import Any

import math_verify
import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
from math_verify.grader import should_treat_as_complex
from sympy.core.function import AppliedUndef

from eapo_env.notation import has_variables
from eapo_env.quantities import is_rounding, number, same_number, unit_of
from eapo_env.structure import Factor

logging.getLogger("math_verify").setLevel(logging.CRITICAL)
logging.getLogger("latex2sympy2_extended").setLevel(logging.CRITICAL)

_DIGITS = 160
_TOLERANCE = sympy.Float("1e-145", _DIGITS)
_READING = ConversionConfig(lowercase_symbols=False)
_COMPUTATION = re.compile(r"\\(?:sum|prod|i{0,2}int|lim|gcd|lcm|max|min|b?mod|pmod|det)(?![a-z])")
_OPERATOR = re.compile(rf"{_COMPUTATION.pattern}|\\binom(?![a-z])")
_POWER = re.compile(r"!|\^|\*\*")
_UNREADABLE = re.compile(
    r"(?<![_\d])\d{1,300} \d|\d ?_|\\[lc]?dots|\.\.|%.*[^\s%]|\\approx|\\sim(?![a-z])|\\pmod|:="
)
_FUNCTION_NAMES = r"(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?|ln|log|exp"
_FUNCTION = re.compile(rf"(?<![\\A-Za-z])(?P<name>{_FUNCTION_NAMES})(?![a-z])")
_APPLIED = re.compile(
    rf"\\(?:{_FUNCTION_NAMES})(?![A-Za-z])(?:\s?(?:\^(?:\w|\{{[^{{}}]{{1,20}}\}})|_(?:\w|\{{[^{{}}]"
    r"{1,20}\}))){0,2}\s?"
)
_ENDS_ARGUMENT = re.compile(
    rf"\\(?:cdot|times|pm|mp|{_FUNCTION_NAMES}|le|ge|ne|right)(?![A-Za-z])|[+=,;)\]}}<>&*-]"
)
_DEGREES = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)\^\\circ")
_TRIG = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")
_BEFORE_WORD = re.compile(r"(?<=\S) (?=[A-Za-z]{2})")
_PRODUCT_OF_LETTERS = re.compile(r"[A-Za-z]{1,3}(?:\^.*)?\Z", re.DOTALL)
_SHORT_UNITS = re.compile(r"(?:[mck]m|[mk]g|ft|mph|kph|men|deg|rad|gal|lbs|yds|yen)(?:\^.*)?\Z")
_PRIMES = re.compile(r"([A-Za-z])('{1,3})")
_PRODUCT = re.compile(r"(?<![A-Za-z\\])([a-eijk-zA-EI-OQ-Z])(?= ?\()")
_DIFFERENTIAL = re.compile(r"(\\[A-Za-z]{1,30})|d(?= ?(?:[A-Za-z]|\\(?!cdot)[a-z]))")
"""A `d` before a name, which the grammar would read with it as a differential; or any macro."""
_OWN_SYMBOLS = {"\\gamma": "g_{gamma}", "\\zeta": "z_{zeta}"}
_OWN_SYMBOL = re.compile(r"\\(?:gamma|zeta)(?![A-Za-z(])(?! ?\()")
_LETTER_RUN = re.compile(
    r"(\\(?:begin|end)\{[a-zA-Z*]{1,20}\}|\\[A-Za-z]{1,30}|_\{[^{}]{0,40}\})|([A-Za-z])(?=[A-Za-z])"
)
"""Letters beside each other are a product; the grammar knows words such as `tr` for a trace."""
_CAPITAL_I = re.compile(r"(\\[A-Za-z]{1,30})|I")


def symbolic_scalar(answer: str, gold: str, factor: Factor = "one") -> bool | None:
    """Return whether two scalars are equal up to `factor`; False when either cannot be read."""
    if not (answer.isascii() and gold.isascii()):
        return False
    if _UNREADABLE.search(answer) or _UNREADABLE.search(gold):
        return False
    units = _split_unit(answer), _split_unit(gold)
    (answer, a_unit), (gold, g_unit) = units
    if a_unit and g_unit and a_unit != g_unit:
        return False
    a_number, g_number = number(answer), number(gold)
    if factor == "one" and a_number and g_number:
        return same_number(a_number, g_number)
    if _is_unevaluated(answer, gold):
        return False
    a, g = _parse(answer), _parse(gold)
    if a is None or g is None:
        return False
    if isinstance(a, sympy.MatrixBase) and isinstance(g, sympy.MatrixBase):
        return factor == "one" and _same_matrix(a, g)
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

    For a gold constant, that is a sum, limit, integral or similar which the constant does not have;
    for an integer also a power, factorial or binomial of numbers. Accepting these would reward
    restating the problem.
    """
    if has_variables(gold) or _OPERATOR.search(gold):
        return False
    if _COMPUTATION.search(answer):
        return True
    value = number(gold)
    integer = value is not None and value.value.denominator == 1
    done = _POWER.search(answer) or _OPERATOR.search(answer)
    return integer and bool(done) and not has_variables(answer)


def _split_unit(text: str) -> tuple[str, str]:
    """Return (expression, unit); the unit is empty without one and for a counted thing."""
    for space in _BEFORE_WORD.finditer(text):
        words = text[space.end() :]
        if _PRODUCT_OF_LETTERS.match(words) and not _SHORT_UNITS.match(words):
            continue
        unit = unit_of(words)
        if unit is not None:
            return text[: space.start()], unit
    return text, ""


def latex(text: str) -> str:
    """Return LaTeX for a canonical text that may use plain-ASCII notation (`sqrt(3)`, `2*x`)."""
    text = text.replace("$", "").replace("%", "").replace("**", "^")
    text = _DEGREES.sub(r"\\frac{\1\\pi}{180}", text) if _TRIG.search(text) else text
    text = text.replace("^\\circ", "")
    text = re.sub(r"(?<![\\A-Za-z])sqrt ?(?=\()", r"\\sqrt", text)
    text = re.sub(r"\\?(?<![A-Za-z])exp ?(?=\()", "e^", text)
    text = re.sub(r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi ", text)
    text = _FUNCTION.sub(lambda match: "\\" + match["name"] + " ", text)
    text = re.sub(r"\\exp\b ?(\{)", r"e^\1", text)
    text = _braced(text.replace("\\sqrt (", "\\sqrt("))
    text = _PRIMES.sub(lambda match: f"{match[1]}_{{{'p' * len(match[2])}}}", text)
    text = _OWN_SYMBOL.sub(lambda match: _OWN_SYMBOLS[match[0]], text)
    text = _LETTER_RUN.sub(lambda match: match[1] or f"{match[2]} ", text)
    text = _CAPITAL_I.sub(lambda match: match[1] or "W_{ii}", text)
    text = text.replace("! =", "!=").replace("*", "\\cdot ")
    text = _PRODUCT.sub(r"\1\\cdot ", text)
    if "\\int" not in text and "\\frac{d" not in text:
        text = _DIFFERENTIAL.sub(lambda match: match[1] or "{d}", text)
    return _arguments(text)


def _braced(text: str) -> str:
    r"""Return `text` with `^(...)` and `\sqrt(...)` written with braces."""
    for head in ("^", "\\sqrt"):
        start = text.find(head + "(")
        while start >= 0:
            opened = start + len(head)
            end = _closing(text, opened)
            if end is None:
                break
            text = f"{text[:opened]}{{{text[opened + 1 : end]}}}{text[end + 1 :]}"
            start = text.find(head + "(", opened)
    return text


def _closing(text: str, opened: int) -> int | None:
    """Return where the bracket at `opened` closes."""
    depth = 0
    for index in range(opened, len(text)):
        depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(text[index], 0)
        if depth == 0:
            return index
    return None


def _arguments(text: str) -> str:
    r"""Return `text` with the argument of every function in brackets: `\sin(2x)\cdot 3`.

    Without brackets it ends at a sign, at `\cdot` and at the next function; latex2sympy would take
    the whole product in.
    """
    parts: list[str] = []
    position = 0
    while head := _APPLIED.search(text, position):
        parts.append(text[position : head.start()] + head[0].rstrip())
        start = head.end()
        if text[start : start + 1] in ("(", "{"):
            end = _closing(text, start)
            if end is None:
                position = start
                continue
            parts.append(f"({_arguments(text[start + 1 : end])})")
            position = end + 1
            continue
        end, depth = start, 0
        while end < len(text):
            if depth == 0 and end > start and _ENDS_ARGUMENT.match(text, end):
                break
            depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(text[end], 0)
            if depth < 0:
                break
            end += 1
        parts.append(f"({_arguments(text[start:end].strip())})" if end > start else "")
        position = end
    return "".join(parts) + text[position:]


def _parse(text: str) -> Any:
    """Return what latex2sympy reads, floats made exact and `i` the imaginary unit, or None."""
    written = latex(text)
    try:
        expression = latex2sympy(
            written,
            is_real=not should_treat_as_complex(written),
            convert_degrees=False,
            normalization_config=None,
            conversion_config=_READING,
        )
    except RecursionError:
        raise
    except Exception:
        return None
    if isinstance(expression, sympy.MatrixExpr):
        expression = expression.doit()
    if isinstance(expression, sympy.MatrixBase):
        return expression.applyfunc(_cleaned)
    return _cleaned(expression) if isinstance(expression, sympy.Expr) else expression


def _cleaned(expression: sympy.Expr) -> sympy.Expr | None:
    names = {symbol: sympy.I for symbol in expression.free_symbols if symbol.name == "i"}
    floats = {f: sympy.Rational(str(f)) for f in expression.atoms(sympy.Float)}
    applied = {a: sympy.Symbol(str(a), real=True) for a in expression.atoms(AppliedUndef)}
    expression = expression.xreplace({**applied}).xreplace({**names, **floats})
    return None if expression.has(sympy.nan, sympy.zoo) else expression


def _irrational(expression: sympy.Expr) -> Fraction | None:
    """Return the value of an irrational real constant to 60 digits, else None."""
    value = _evaluated(expression)
    if value.free_symbols or value.is_rational is not False or value.is_real is not True:
        return None
    return Fraction(str(value.evalf(_DIGITS)))


def _same_matrix(answer: sympy.MatrixBase, gold: sympy.MatrixBase) -> bool:
    return answer.shape == gold.shape and all(
        _same_expression(a, g) for a, g in zip(answer, gold, strict=True)
    )


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


_SIZES = (
    sympy.Rational(1), sympy.Rational(16, 11), sympy.Rational(-16, 11), sympy.Rational(-21, 11),
    sympy.Rational(97, 11), sympy.Rational(-89, 11), sympy.Rational(1409, 11),
    sympy.Rational(-1307, 11), sympy.Rational(13007, 11), sympy.Rational(-13003, 11),
)  # fmt: skip
"""Scales of the points of comparison: a kink between two of them, of either sign, is seen."""

_ANYWHERE = 2
"""So many points, all positive, count also where a value is not real."""


def _values(answer: sympy.Expr, gold: sympy.Expr) -> list[tuple[sympy.Expr, sympy.Expr]]:
    """Return both values at points of several sizes and signs, where both are real throughout."""
    names = sorted({s.name for e in (answer, gold) for s in e.free_symbols})
    values = []
    for index, size in enumerate(_SIZES if names else _SIZES[:1]):
        point = {name: _coordinate(size, index, place) for place, name in enumerate(names)}
        everywhere = index < _ANYWHERE
        a, g = _at(answer, point, everywhere), _at(gold, point, everywhere)
        if a is not None and g is not None:
            values.append((a, g))
    return values


def _coordinate(size: sympy.Rational, index: int, place: int) -> sympy.Rational:
    """Return a coordinate near a size; behind the first, variables take signs in turn."""
    value = size * sympy.Rational(7 * place + 11, 3 * place + 13)
    return -value if index >= _ANYWHERE and (place >> (index % 3)) & 1 else value


def _at(
    expression: sympy.Expr, point: dict[str, sympy.Rational], everywhere: bool
) -> sympy.Expr | None:
    """Return the value at a point; None if it has none, or leaves the reals where it must not."""
    symbols = {symbol: point[symbol.name] for symbol in expression.free_symbols}
    if not everywhere and _leaves_the_reals(expression, symbols):
        return None
    value = expression.xreplace(symbols) if symbols else expression
    value = _with_real_roots(value).evalf(_DIGITS)
    if not value.is_number or value.has(sympy.nan, sympy.zoo, sympy.oo) or not value.is_finite:
        return None
    return value if everywhere or value.is_real else None


def _leaves_the_reals(expression: sympy.Expr, symbols: dict[sympy.Symbol, sympy.Rational]) -> bool:
    """Return whether it takes an even root or the logarithm of a negative number at a point."""
    parts = [p.base for p in expression.atoms(sympy.Pow) if not _is_real_for_negatives(p.exp)]
    parts += [part.args[0] for part in expression.atoms(sympy.log)]
    return any(part.free_symbols and part.xreplace(symbols).is_negative for part in parts)


def _is_real_for_negatives(exponent: sympy.Expr) -> bool:
    return bool(exponent.is_integer or (exponent.is_Rational and exponent.q % 2 == 1))


def _with_real_roots(expression: sympy.Expr) -> sympy.Expr:
    """Return a number with its odd roots of negative reals real, as in a contest: no `i` in it."""
    if expression.has(sympy.I):
        return expression
    return expression.replace(
        lambda e: (
            isinstance(e, sympy.Pow)
            and e.exp.is_Rational
            and not e.exp.is_Integer
            and e.exp.q % 2 == 1
            and e.base.is_negative
        ),
        lambda e: (-1) ** e.exp.p * (-e.base) ** e.exp,
    )
