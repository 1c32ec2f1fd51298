r"""Exact equality of plain numbers, without sympy: it decides nearly every integer answer.

`canonical` rewrites an answer into plain ASCII LaTeX; `number` reads integers, decimals,
fractions, mixed numbers, scientific notation, thousands separators, percent, degrees, currency and
unit words into an exact `Fraction`. All patterns are anchored, with bounded repeats. Characters
outside ASCII that are not in the replacement table (`４３`, `٤٣`, Cyrillic letters) are kept, so a
text with them is never a number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

_NUMBER_CHARS = 400

_UNICODE = str.maketrans(
    {
        "−": "-", "–": "-", "‐": "-", "‑": "-", "×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ",
        "∗": "*", "÷": "/", "∕": "/", "⁄": "/", "°": "^\\circ ", "º": "^\\circ ", "π": "\\pi ",
        "∞": "\\infty ", "≤": "\\le ", "⩽": "\\le ", "≥": "\\ge ", "⩾": "\\ge ", "≠": "\\ne ",
        "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ", "±": "\\pm ", "√": "\\sqrt ", "θ": "\\theta ",
        "α": "\\alpha ", "β": "\\beta ", "γ": "\\gamma ", "λ": "\\lambda ", "φ": "\\phi ",
        "ω": "\\omega ", "ℝ": "\\mathbb{R}", "∅": "\\emptyset ", "½": "\\frac{1}{2}",
        "¼": "\\frac{1}{4}", "¾": "\\frac{3}{4}", "⅓": "\\frac{1}{3}", "⅔": "\\frac{2}{3}",
        "²": "^{2}", "³": "^{3}", "€": "$", "£": "$", "¥": "$", "₹": "$", "，": ",", "（": "(",
        "）": ")", "：": ":", "；": ";", "∣": "|", "\u00a0": " ", "\u2009": " ", "\u202f": " ",
        "…": "\\ldots ", "’": "'", "⟨": "(", "⟩": ")", "₁": "_1", "₂": "_2", "₃": "_3", "₀": "_0",
    }
)  # fmt: skip

_SIMPLE = (
    ("\\\\sqrt", "\\sqrt"), ("\\\\frac", "\\frac"), ("\\dfrac", "\\frac"), ("\\tfrac", "\\frac"),
    ("\\cfrac", "\\frac"), ("\\!", ""), ("{,}", ","), ("\\$", "$"), ("\\%", "%"),
    ("^{\\circ}", "^\\circ"), ("^ \\circ", "^\\circ"), ("^{ \\circ }", "^\\circ"),
    ("\\degree", "^\\circ"), ("\\displaystyle", ""), ("\\leqslant", "\\le"),
    ("\\geqslant", "\\ge"), ("\\leq", "\\le"), ("\\geq", "\\ge"), ("\\neq", "\\ne"),
    ("\\lbrace", "\\{"), ("\\rbrace", "\\}"), ("\\lvert", "|"), ("\\rvert", "|"),
    ("\\{}", ""), ("\\mathbb{R}", "(-\\infty,\\infty)"), ("\\mathbb R", "(-\\infty,\\infty)"),
)  # fmt: skip
_SIZES = re.compile(r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])(?: ?\.)?")
_TEXT = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|mbox|hbox|emph|math(?:rm|bf|it|sf|cal)|boldsymbol|bm"
    r"|operatorname\*?) ?\{([^{}]{0,200})\}"
)
_SPACE = re.compile(r"(?<!\\)\\[,;: ]|~|\\q?quad(?![a-z])")
_SPACES = re.compile(r"\s{1,2000}")
_LONE_BRACKETS = re.compile(r"\A\[ ([^\[\](),;]{1,200}) \]\Z")
_WRAPPED = re.compile(r"\A\{([^{}]{0,2000})\}\Z")


@lru_cache(maxsize=1024)
def canonical(text: str) -> str:
    r"""Return `text` in one canonical LaTeX notation.

    `\text{...}` becomes its words with a space on either side. `text` should have at most 2,000
    characters: longer answers are refused before (`limits.py`).
    """
    if not text.isascii():
        text = text.translate(_UNICODE)
    if "\\" in text or "$" in text or "~" in text or "{" in text:
        for old, new in _SIMPLE:
            if old in text:
                text = text.replace(old, new)
        text = _SPACE.sub(" ", _SIZES.sub("", text))
        text = _TEXT.sub(r" \1 ", text)
        text = text.replace("\\(", "").replace("\\)", "").replace("\\[", "").replace("\\]", "")
    if "infinity" in text:
        text = text.replace("infinity", "\\infty")
    text = _SPACES.sub(" ", text).replace(" ^", "^").strip()
    if bracketed := _LONE_BRACKETS.match(text):
        text = bracketed[1]
    if text.endswith(".") and not text.endswith(".."):
        text = text[:-1].rstrip()
    while (inside := _WRAPPED.match(text)) and "," not in inside[1]:
        text = inside[1].strip()
    return text


@dataclass(frozen=True, slots=True)
class Number:
    """An exact number: its value, and its percent sign, unit and decimal places as written."""

    value: Fraction
    percent: bool = False
    unit: str = ""
    decimals: int | None = None
    """Digits after the decimal point of a plain decimal or of scientific notation, else None."""


_DIGITS = r"(?:\d{1,3}(?:,\d{3}){1,100}(?!\d)|\d{1,3}(?: \d{3}){1,100}(?!\d)|\d{1,300})"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d{{0,300}})?|\.\d{{1,300}})"
_SIGNED = rf"[+-]? ?{_DECIMAL}"
_ARG = rf"(?:\{{ ?({_SIGNED}) ?\}}|(\d))"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?) ?\$? ?(?P<minus>-?)"
    rf"(?:(?P<whole>\d{{1,60}})? ?\\frac ?{_ARG} ?{_ARG}"
    rf"|(?:(?P<mixed>\d{{1,60}})[ ])?(?P<num>\d{{1,300}}) ?/ ?(?P<den>\d{{1,300}})"
    rf"|(?P<open>\()?(?P<num2>{_SIGNED})(?(open)\)) ?/ ?\((?P<den2>{_SIGNED})\)"
    r"|(?P<whole_part>\d{0,60})\.(?P<before>\d{0,60}) ?\\(?:overline|bar) ?"
    r"\{(?P<repeating>\d{1,30})\}"
    r"|10 ?\^ ?(?:\{ ?(?P<power1>[+-]?\d{1,3}) ?\}|(?P<power2>\d))"
    rf"|(?P<decimal>{_DECIMAL})"
    r"(?: ?(?:\\times|\\cdot|\*|x) ?10 ?\^ ?(?:\{ ?(?P<exp1>[+-]?\d{1,3}) ?\}|(?P<exp2>\d))"
    r"|[eE](?P<exp3>[+-]?\d{1,3}))?"
    r")\$?(?P<suffix>[^\d].{0,60})?",
    re.DOTALL,
)
_UNIT_WORD = re.compile(r"(?P<word>[A-Za-z]{1,20})\.?(?: ?\^ ?\{? ?-?[123] ?\}?)?")
_UNIT_BREAK = re.compile(r" ?[/*] ?| ?\\cdot ?| ")
_WORDS = {
    "abbreviations": "cm mm km dm nm kg mg mL ml ft in hr hrs am pm min sec Hz kHz mi lb lbs oz yd"
    " mph kph sq Rs kW kWh MB GB cc rad deg USD EUR",
    "letters": "m s g h L l N J W V K C F A",
    "no units": "or and not mod pi exp sqrt sin cos tan cot sec log ln inf nan infinity infty false"
    " true if plus minus times over but maybe million billion thousand hundred dozen trillion"
    " imaginary squared cubed factorial choose base through to less more greater least most than"
    " is thus with where for so hence then equals max gcd lcm",
}
_ABBREVIATIONS, _LETTERS, _NOT_UNITS = (frozenset(words.split()) for words in _WORDS.values())
_MEASURES = {
    "centimeters": "cm", "centimeter": "cm", "centimetres": "cm", "meters": "m", "meter": "m",
    "metres": "m", "kilometers": "km", "millimeters": "mm", "inches": "in", "inch": "in",
    "feet": "ft", "foot": "ft", "miles": "mi", "seconds": "s", "minutes": "min", "hours": "h",
    "grams": "g", "kilograms": "kg", "yards": "yd", "mile": "mi", "hour": "h", "hr": "h",
    "hrs": "h", "minute": "min", "second": "s", "gram": "g", "kilogram": "kg",
}  # fmt: skip
_KNOWN = frozenset(_MEASURES.values())


@lru_cache(maxsize=1024)
def number(text: str) -> Number | None:
    """Return the exact number that a canonical `text` denotes, or None if it is anything else."""
    if len(text) > _NUMBER_CHARS or not text.isascii():
        return None
    match = _NUMBER.fullmatch(text)
    if match is None or (match["sign"] and match["minus"]):
        return None
    suffix = _suffix(match["suffix"] or "")
    value, decimals = _value(match)
    if suffix is None or value is None:
        return None
    return Number(value=value, percent=suffix[0], unit=suffix[1], decimals=decimals)


def same_number(answer: Number, gold: Number) -> bool:
    """Return whether two numbers are equal.

    A percentage equals its bare figure and its fraction (`10%` is `10` and `0.1`); units must
    agree only when both are known measures; a decimal with at least six significant digits
    equals the fraction it is the rounding of (`0.333333` is `1/3`), never another decimal.
    """
    if answer.unit in _KNOWN and gold.unit in _KNOWN and answer.unit != gold.unit:
        return False
    a, g = answer.value, gold.value
    if a == g:
        return True
    if answer.percent != gold.percent:
        return a / 100 == g if answer.percent else g / 100 == a
    return (is_rounding(answer, g) and not _terminates(g)) or (
        is_rounding(gold, a) and not _terminates(a)
    )


def is_rounding(decimal: Number, exact: Fraction) -> bool:
    """Return whether a decimal with at least six significant digits is `exact`, rounded."""
    if decimal.decimals is None:
        return False
    scale = Fraction(10) ** decimal.decimals
    return abs(decimal.value) * scale >= 100_000 and abs(decimal.value - exact) * scale * 2 <= 1


def _terminates(value: Fraction) -> bool:
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _suffix(suffix: str) -> tuple[bool, str] | None:
    """Return (is a percentage, unit), or None if the suffix is more than a unit."""
    word = suffix.strip().removesuffix(".").rstrip()
    if word in ("", "%", "percent", "percentage", "pct"):
        return word != "", ""
    if word.startswith("^\\circ"):
        return (False, "") if word[6:].strip() in ("", "C", "F") else None
    for part in _UNIT_BREAK.split(word):
        match = _UNIT_WORD.fullmatch(part)
        if match is None or not _is_unit(match["word"], attached=not suffix.startswith(" ")):
            return None
    return False, _MEASURES.get(word.lower(), word)


def is_unit(text: str) -> bool:
    """Return whether `text` is a unit of measure or a counted thing (`cm^2`, `square units`)."""
    suffix = _suffix(" " + text)
    return suffix is not None and suffix[1] != ""


def _is_unit(word: str, *, attached: bool) -> bool:
    if word in _ABBREVIATIONS:
        return True
    if attached or word.lower() in _NOT_UNITS:
        return False
    return len(word) >= 3 or word in _LETTERS or word in ("of", "in", "per")


def _value(match: re.Match[str]) -> tuple[Fraction | None, int | None]:
    """Return (value, decimal places or None); the value is None for a division by zero."""
    decimals: int | None = None
    value: Fraction | None
    if match["repeating"]:
        value = _repeating(match["whole_part"], match["before"], match["repeating"])
    elif match["power1"] or match["power2"]:
        value = Fraction(10) ** int(match["power1"] or match["power2"])
    elif match["decimal"]:
        shift = int(match["exp1"] or match["exp2"] or match["exp3"] or 0)
        value = _exact(match["decimal"]) * Fraction(10) ** shift
        point = match["decimal"].find(".")
        if point >= 0:
            decimals = len(match["decimal"]) - point - 1 - shift
    elif match["num"]:
        value = _ratio(match["num"], match["den"], match["mixed"])
    elif match["num2"]:
        value = _ratio(match["num2"], match["den2"], None)
    else:
        value = _ratio(match[4] or match[5], match[6] or match[7], match["whole"])
    if value is None:
        return None, None
    return (-value if "-" in (match["sign"], match["minus"]) else value), decimals


def _ratio(numerator: str, denominator: str, whole: str | None) -> Fraction | None:
    top, bottom = _exact(numerator), _exact(denominator)
    if bottom == 0 or (whole and not 0 <= top / bottom < 1):
        return None
    return top / bottom + (int(whole) if whole else 0)


def _repeating(whole: str, before: str, repeating: str) -> Fraction:
    nines: int = 10 ** len(repeating) - 1
    tens: int = 10 ** len(before)
    return int(whole or 0) + (int(before or 0) + Fraction(int(repeating), nines)) / tens


def _exact(text: str) -> Fraction:
    return Fraction(text.replace(",", "").replace(" ", "").rstrip("."))
