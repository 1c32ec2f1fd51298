r"""Equality of two scalar expressions by sympy, only for use inside a killable worker.

latex2sympy reads, with its own rewriting off; equality is then decided here: two constants must
agree to 145 digits, two expressions at points small and large, of both signs. Nothing here limits
time or memory, and nothing evaluates text as Python: only latex2sympy's grammar reads it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import math_verify
import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
from math_verify.grader import should_treat_as_complex
from sympy.core.function import AppliedUndef

from eapo_env.notation import has_variables
from eapo_env.quantities import is_rounding, number, same_number
from eapo_env.structure import Factor
from eapo_env.units import Unit, unit_of

logging.getLogger("math_verify").setLevel(logging.CRITICAL)
logging.getLogger("latex2sympy2_extended").setLevel(logging.CRITICAL)

_DIGITS = 160
_TOLERANCE = sympy.Float("1e-145", _DIGITS)
_READING = ConversionConfig(lowercase_symbols=False)
_COMPUTATION = re.compile(r"\\(?:sum|prod|i{0,2}int|lim|gcd|lcm|max|min|b?mod|pmod|det)(?![a-z])")
_OPERATOR = re.compile(rf"{_COMPUTATION.pattern}|\\binom(?![a-z])")
_POWER = re.compile(r"!|\^(?! ?\\circ)|\*\*")
_UNREADABLE = re.compile(
    r"(?<![_^\d])\d{1,300} \d|\d ?_|\d'|[A-Za-z)}]\^\\circ|\\circ ?\d|\\[bp]?mod(?![a-z])"
    r"|\\[lc]?dots|\.\.|%.*[^\s%]|[A-Za-z)}] ?%|\\approx|\\sim(?![a-z])|:="
)
_FUNCTION_NAMES = r"(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?|ln|log|exp"
_FUNCTION = re.compile(rf"(?<![\\A-Za-z])(?P<name>{_FUNCTION_NAMES})(?![a-z])")
_APPLIED = re.compile(
    rf"\\(?:{_FUNCTION_NAMES})(?![A-Za-z])(?:\s?(?:\^(?:\w|\{{[^{{}}]{{1,20}}\}})|_(?:\w|\{{(?:[^{{}}]"
    r"|\{[^{}]{0,10}\}){1,20}\}))){0,2}\s?"
)
_ENDS_ARGUMENT = re.compile(
    rf"\\(?:cdot|times|pm|mp|{_FUNCTION_NAMES}|le|ge|ne|right)(?![A-Za-z])|[+=,;)\]}}<>&*-]"
)
_WHOLE_FACTOR = re.compile(r"(?:(?<![\\A-Za-z])[A-Za-z]|\})\Z")
_DEGREES = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)\^\\circ")
_TRIG = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")
_BEFORE_WORD = re.compile(r"(?<=\S) (?=[A-Za-z]{2})")
_PRODUCT_OF_LETTERS = re.compile(r"[A-Za-z]{1,3}(?:\^.*)?\Z", re.DOTALL)
_SHORT_UNITS = re.compile(r"(?:[mck]m|[mk]g|ft|mph|kph|men|deg|rad|gal|lbs|yds|yen)(?:\^.*)?\Z")
_DECIMAL_EXPONENT = re.compile(r"\^\{[^{}]{1,60}\}")
_DECIMAL = re.compile(r"(\d{1,20})?\.(\d{1,20})")
_BRACKETED = re.compile(r"(?<!\\sqrt)\[[^\[\]+,-]{1,40}\]|\\\{")
"""Brackets around one thing: its integer or fractional part, or a set. The grammar drops them."""
_TRANSPOSED = re.compile(r"\^ ?(?:T|\{ ?T ?\})")
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
    if bool(_BRACKETED.search(answer)) != bool(_BRACKETED.search(gold)):
        return False
    units = _split_unit(answer), _split_unit(gold)
    (answer, a_unit), (gold, g_unit) = units
    if not a_unit.agrees_with(g_unit):
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


def _split_unit(text: str) -> tuple[str, Unit]:
    """Return (expression, unit)."""
    for space in _BEFORE_WORD.finditer(text):
        words = text[space.end() :]
        if _PRODUCT_OF_LETTERS.match(words) and not _SHORT_UNITS.match(words):
            continue
        unit = unit_of(words)
        if unit is not None:
            return text[: space.start()], unit
    return text, Unit()


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
    text = _DECIMAL_EXPONENT.sub(_exact_exponent, text)
    text = _PRIMES.sub(lambda match: f"{match[1]}_{{{'p' * len(match[2])}}}", text)
    text = _OWN_SYMBOL.sub(lambda match: _OWN_SYMBOLS[match[0]], text)
    text = _LETTER_RUN.sub(lambda match: match[1] or f"{match[2]} ", text)
    text = _TRANSPOSED.sub("^{T_{t}}", text)
    text = _CAPITAL_I.sub(lambda match: match[1] or "W_{ii}", text)
    text = text.replace("! =", "!=").replace("*", "\\cdot ")
    text = _PRODUCT.sub(r"\1\\cdot ", text)
    if "\\int" not in text and "\\frac{d" not in text:
        text = _DIFFERENTIAL.sub(lambda match: match[1] or "{d}", text)
    return _arguments(text)


def _exact_exponent(match: re.Match[str]) -> str:
    """Return an exponent with its decimals as fractions: the grammar would compute a float."""
    return _DECIMAL.sub(
        lambda d: f"\\frac{{{(d[1] or '') + d[2]}}}{{1{'0' * len(d[2])}}}", match[0]
    )


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
        end = _end_of_argument(text, start)
        parts.append(f"({_arguments(text[start:end].strip())})" if end > start else "")
        position = end
    return "".join(parts) + text[position:]


def _end_of_argument(text: str, start: int) -> int:
    """Return where the argument without brackets that begins at `start` ends.

    A space after a whole factor ends it (`\\sin x e^x`), but not one that only ends a macro's name.
    """
    if text[start : start + 1] == "|":
        return text.find("|", start + 1) + 1 or len(text)
    end, depth = start, 0
    while end < len(text):
        if depth == 0 and end > start:
            if _ENDS_ARGUMENT.match(text, end):
                break
            if text[end] == " " and _WHOLE_FACTOR.search(text, start, end):
                break
        depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(text[end], 0)
        if depth < 0:
            break
        end += 1
    return end


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
    except Exception:  # latex2sympy raises this very class for what it does not know
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
    value = expression.doit()
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
    answer, gold = answer.doit(), gold.doit()
    if answer.is_Rational and gold.is_Rational:
        return bool(answer == gold)
    compared = False
    for a, g, tolerance in _values(answer, gold):
        compared = True
        if not _close(a, g, tolerance):
            return False
    if compared:
        return True
    return bool(math_verify.verify(gold, answer, timeout_seconds=None))


def _close(a: sympy.Expr, b: sympy.Expr, tolerance: sympy.Float) -> bool:
    size = max(abs(a), abs(b))
    if size < sympy.Float("1e-40"):
        return bool(size == 0 or sympy.simplify(a - b) == 0 or abs(a - b) < size * tolerance)
    return bool(abs(a - b) <= size * tolerance)


def _proportional(answer: sympy.Expr, gold: sympy.Expr, factor: Factor) -> bool:
    ratios = []
    for a, g, tolerance in _values(answer.doit(), gold.doit()):
        if (abs(a) < tolerance) != (abs(g) < tolerance):
            return False
        if abs(g) >= tolerance:
            ratios.append((a / g, tolerance))
    if len(ratios) < 2 or not all(_close(ratio, ratios[0][0], t) for ratio, t in ratios):
        return False
    return factor == "any" or bool(sympy.re(ratios[0][0]) > 0)


_ANYWHERE = (sympy.Rational(1), sympy.Rational(16, 11))
"""Points, all coordinates positive and exact, that count also where a value is not real."""
_SMOOTH = (-1.4545, -1.909, 8.818, -8.09)
_KINKED = (
    0.3719, -0.3719, 2.637, -2.637, 3.413, 4.271, -4.271, 5.713, -5.713, 13.31, 25.73, -25.73,
    47.17, 83.39, -83.39, 157.1, 409.3, -409.3, 1259.9, -1259.9, 2777.3, -2777.3, 12007.7, -12007.7,
)  # fmt: skip
"""Sizes of further points for expressions with kinks: one between two of them, of either sign, is
seen."""
_WHOLE = (4.0, 5.0, 6.0, -7.0)
_KINKS = (sympy.Abs, sympy.Max, sympy.Min, sympy.sign, sympy.floor, sympy.ceiling, sympy.Piecewise)
_FEWER_DIGITS = 60
_COARSE = sympy.Float("1e-30", _FEWER_DIGITS)


def _values(
    answer: sympy.Expr, gold: sympy.Expr
) -> Iterator[tuple[sympy.Expr, sympy.Expr, sympy.Float]]:
    """Yield both values at points of several sizes and signs, and how closely they must agree.

    Behind the first two points both must be real throughout.
    """
    names = sorted({s.name for e in (answer, gold) for s in e.free_symbols})
    for size in _ANYWHERE if names else _ANYWHERE[:1]:
        point = {name: size * _share(place) for place, name in enumerate(names)}
        a, g = _at(answer, point, _DIGITS), _at(gold, point, _DIGITS)
        if a is not None and g is not None:
            yield a, g, _TOLERANCE
    sizes = [(size, True) for size in _SMOOTH] if names else []
    if names and (_has_kinks(answer) or _has_kinks(gold)):
        sizes += [(size, True) for size in _KINKED] + [(size, False) for size in _WHOLE]
        sizes += [(size, True) for size in _beyond_numbers_in(answer, gold)]
    for index, (size, is_scaled) in enumerate(sizes):
        ordered = names[::-1] if index % 2 else names
        floats = {
            name: _coordinate(size, index, place, is_scaled) for place, name in enumerate(ordered)
        }
        values = [
            None if _leaves_the_reals(e, floats) else _at(e, floats, _FEWER_DIGITS)
            for e in (answer, gold)
        ]
        if all(value is not None and value.is_real for value in values):
            yield values[0], values[1], _COARSE


def _beyond_numbers_in(*expressions: sympy.Expr) -> list[float]:
    """Return sizes of either sign beyond the large numbers of expressions: kinks lie there."""
    numbers = {
        float(abs(n)) for e in expressions for n in e.atoms(sympy.Rational) if abs(n) < 10**30
    }
    return [sign * 2 * size for size in sorted(numbers) if size > 4_000 for sign in (1, -1)]


def _has_kinks(expression: sympy.Expr) -> bool:
    return expression.has(*_KINKS) or any(
        power.exp.is_integer is not True for power in expression.atoms(sympy.Pow)
    )


def _share(place: int) -> sympy.Rational:
    return sympy.Rational(7 * place + 11, 3 * place + 13)


def _coordinate(size: float, index: int, place: int, is_scaled: bool) -> sympy.Float:
    """Return a coordinate near a size, as a float: powers of it stay numbers of so many digits."""
    value = sympy.Float(size, _FEWER_DIGITS) * (_share(place) if is_scaled else 1)
    value = value if is_scaled else value + place
    return -value if (place >> (index % 3)) & 1 else value


def _at(expression: sympy.Expr, point: Mapping[str, sympy.Expr], digits: int) -> sympy.Expr | None:
    """Return the value at a point to so many digits; None if it has none."""
    value = _with_real_roots(_placed(expression, point)).evalf(digits)
    if not value.is_number or value.has(sympy.nan, sympy.zoo, sympy.oo) or not value.is_finite:
        return None
    return value


def _placed(expression: sympy.Expr, point: Mapping[str, sympy.Expr]) -> sympy.Expr:
    """Return the expression with the coordinates of a point for the names of its symbols."""
    symbols = {symbol: point[symbol.name] for symbol in expression.free_symbols}
    return expression.xreplace(symbols) if symbols else expression


def _leaves_the_reals(expression: sympy.Expr, point: Mapping[str, sympy.Expr]) -> bool:
    """Return whether it takes an even root or the logarithm of a negative number at a point."""
    parts = [p.base for p in expression.atoms(sympy.Pow) if not _is_real_for_negatives(p.exp)]
    parts += [part.args[0] for part in expression.atoms(sympy.log)]
    return any(part.free_symbols and _placed(part, point).is_negative for part in parts)


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
