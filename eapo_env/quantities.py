r"""Exact numbers with their percent sign and unit, without sympy: nearly every answer is one.

`number` reads integers, decimals, fractions, mixed numbers, scientific notation, thousands
separators, repeating decimals, numbers in another base, number words (`3 million`, `7 tenths`),
percent, degrees, currency and units into an exact `Fraction`. All patterns are anchored, with
bounded repeats.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from eapo_env.units import Unit, scale, unit_of

_NUMBER_CHARS = 400


@dataclass(frozen=True, slots=True)
class Number:
    """An exact number as it was written.

    Args:
        value: what it is worth, number words included, percent sign and unit not.
        percent: whether a percent sign follows.
        unit: what it measures or counts; empty for a bare number.
        decimals: digits after the point of a plain decimal or of scientific notation, else None.
        base: of its digits, 10 unless it says so.
    """

    value: Fraction
    percent: bool = False
    unit: Unit = Unit()
    decimals: int | None = None
    base: int = 10


_DIGITS = r"(?:\d{1,3}(?:,\d{3}){1,100}(?!\d)|\d{1,3}(?: \d{3}){1,100}(?!\d)|\d{1,300})"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d{{0,300}})?|\.\d{{1,300}})"
_SIGNED = rf"[+-]? ?{_DECIMAL}"
_ARG = rf"\{{ ?({_SIGNED}) ?\}}"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?) ?(?P<currency>\$|\\(?:euro|pounds|yen|rupee) )? ?(?P<minus>-?)"
    rf"(?:(?P<whole>\d{{1,60}})? ?\\frac ?{_ARG} ?{_ARG}"
    rf"|(?:(?P<mixed>\d{{1,60}})[ ])?(?P<num>\d{{1,300}}) ?/ ?(?P<den>\d{{1,300}})"
    rf"|(?P<open>\()?(?P<num2>{_SIGNED})(?(open)\)) ?/ ?\((?P<den2>{_SIGNED})\)"
    r"|(?P<whole_part>\d{0,60})\.(?P<before>\d{0,60}) ?"
    r"(?:\\(?:overline|bar) ?\{(?P<repeating>\d{1,30})\}"
    r"|(?P<dotted>\\dot\{\d\}(?:\d{0,28}\\dot\{\d\})?))"
    r"|(?P<whole_part3>\d{0,60})\.\((?P<in_brackets>\d{1,30})\)"
    r"|(?P<whole_part2>\d{0,60})\.(?P<going_on>\d{1,60}) ?(?:\\ldots|\.\.\.)"
    r"|10 ?\^ ?(?:\{ ?(?P<power1>[+-]?\d{1,3}) ?\}|(?P<power2>\d))"
    rf"|(?P<decimal>{_DECIMAL})"
    r"(?: ?(?:\\times|\\cdot|\*|x) ?10 ?\^ ?(?:\{ ?(?P<exp1>[+-]?\d{1,3}) ?\}|(?P<exp2>\d))"
    r"|[eE](?P<exp3>[+-]?\d{1,3}))?"
    r")(?P<after>\$| ?\\(?:euro|pounds|yen|rupee)(?![a-z]))?(?P<suffix>[^\d].{0,60})?",
    re.DOTALL,
)
_BASED = re.compile(
    r"(?P<sign>-?)(?P<open>\()?(?P<digits>[0-9A-Z]{1,100})(?(open)\)) ?"
    r"_(?:(?P<base1>\d)|\{ ?(?:base )?(?P<base2>\d{1,2}|[a-z]{3,12}) ?\})"
)
_BASE_WORDS = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15,
    "sixteen": 16,
}  # fmt: skip


@lru_cache(maxsize=1024)
def number(text: str) -> Number | None:
    """Return the exact number that a canonical `text` denotes, or None if it is anything else."""
    if len(text) > _NUMBER_CHARS or not text.isascii():
        return None
    if "_" in text:
        return _in_base(text)
    match = _NUMBER.fullmatch(text)
    if match is None or (match["sign"] and match["minus"]):
        return None
    suffix = _suffix(match["suffix"] or "")
    value, decimals = _value(match)
    if suffix is None or value is None:
        return None
    percent, factor, unit = suffix
    currency = (match["currency"] or match["after"] or "").strip(" \\")
    if currency:
        if unit.name not in ("", "dollar"):
            return None
        name = {"$": "dollar", "pounds": "pound sterling"}.get(currency, currency)
        unit = replace(unit, name=name)
    if factor != 1:
        value, decimals = value * factor, None
    return Number(value=value, percent=percent, unit=unit, decimals=decimals)


def same_number(answer: Number, gold: Number) -> bool:
    """Return whether two numbers are equal.

    A percentage equals its bare figure and its fraction (`10%` is `10` and `0.1`); two measures
    must be the same, and are not converted; a decimal with at least six significant digits equals
    the fraction it is the rounding of (`0.333333` is `1/3`), never another decimal; digits in
    another base equal the same digits in the same base.
    """
    if answer.base != gold.base:
        return False
    if not answer.unit.agrees_with(gold.unit):
        return False
    if (answer.percent and gold.unit) or (gold.percent and answer.unit):
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


_SPOKEN = {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"  # noqa: SIM905
        " fifteen sixteen seventeen eighteen nineteen".split()
    )
} | {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70,
    "eighty": 80, "ninety": 90,
}  # fmt: skip


def spoken(text: str) -> int | None:
    """Return the whole number that English words name, up to the thousands; None for others."""
    total = part = 0
    words = [word for word in re.split(r"[ -]", text.lower()) if word not in ("", "and")]
    for word in words:
        if word in _SPOKEN:
            part += _SPOKEN[word]
        elif word == "hundred":
            part = max(part, 1) * 100
        elif word == "thousand":
            total, part = total + max(part, 1) * 1000, 0
        else:
            return None
    return total + part if words else None


_TIME = re.compile(r"(?P<hour>\d{1,2})(?::(?P<minute>[0-5]\d))?(?: ?(?P<half>[ap])m)?")


def time_of_day(text: str) -> int | None:
    """Return the minutes since midnight of `2:30 pm` or `14:30`, or None for any other text.

    Without `am` or `pm` the hours are those of a day of 24.
    """
    match = _TIME.fullmatch(text)
    if match is None or not (match["minute"] or match["half"]):
        return None
    hour, minute = int(match["hour"]), int(match["minute"] or 0)
    if hour > 24 or (match["half"] and not 1 <= hour <= 12):
        return None
    if match["half"]:
        hour = hour % 12 + (12 if match["half"] == "p" else 0)
    return 60 * hour + minute


def _terminates(value: Fraction) -> bool:
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _suffix(suffix: str) -> tuple[bool, Fraction, Unit] | None:
    """Return (is a percentage, factor of its number words, unit); None if it is anything else."""
    words = suffix.strip().removesuffix(".").rstrip()
    if words in ("", "%", "percent", "percentage", "pct", "per cent", "percentage points"):
        return words != "", Fraction(1), Unit()
    if words.startswith("^\\circ"):
        name = words[6:].strip()
        return (False, Fraction(1), Unit("deg" + name)) if name in ("", "C", "F") else None
    attached = not suffix.startswith((" ", "-"))
    first, _, rest = words.partition(" ")
    factor = scale(first)
    if factor is not None and not attached:
        if not rest:
            return False, factor, Unit()
        further = _suffix(" " + rest.removeprefix("of "))
        return None if further is None or further[0] else (False, factor * further[1], further[2])
    unit = unit_of(words.lstrip("-"), attached=attached)
    return None if unit is None else (False, Fraction(1), unit)


def _in_base(text: str) -> Number | None:
    match = _BASED.fullmatch(text)
    if match is None:
        return None
    written = match["base1"] or match["base2"]
    base = int(written) if written.isdigit() else _BASE_WORDS.get(written, 0)
    try:
        value = int(match["digits"], base) if 2 <= base <= 36 else None
    except ValueError:
        return None
    if value is None or (match["digits"].isalpha() and base <= 10):
        return None
    return Number(value=Fraction(-value if match["sign"] else value), base=base)


def _value(match: re.Match[str]) -> tuple[Fraction | None, int | None]:
    """Return (value, decimal places or None); the value is None for a division by zero."""
    decimals: int | None = None
    value: Fraction | None
    if match["repeating"]:
        value = _repeating(match["whole_part"], match["before"], match["repeating"])
    elif match["in_brackets"]:
        value = _repeating(match["whole_part3"], "", match["in_brackets"])
    elif match["dotted"]:
        digits = re.sub(r"\\dot\{(\d)\}", r"\1", match["dotted"])
        value = _repeating(match["whole_part"], match["before"], digits)
    elif match["going_on"]:
        value = _going_on(match["whole_part2"], match["going_on"])
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
        value = _ratio(match[5], match[6], match["whole"])
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


def _going_on(whole: str, digits: str) -> Fraction | None:
    """Return the value of `0.333...`: its last digits repeat if they are written often enough."""
    for length in range(1, len(digits) // 2 + 1):
        block, times = digits[-length:], 1
        while digits.endswith(block * (times + 1)):
            times += 1
        if times >= (3 if length == 1 else 2):
            return _repeating(whole, digits[: len(digits) - length * times], block)
    return None


def _exact(text: str) -> Fraction:
    return Fraction(text.replace(",", "").replace(" ", "").rstrip("."))
