r"""Exact numbers with their percent sign and unit, without sympy: nearly every answer is one.

`number` reads integers, decimals, fractions, mixed numbers, scientific notation, thousands
separators, repeating decimals, numbers in another base, number words (`3 million`, `7 tenths`),
percent, degrees, currency and units into an exact `Fraction`. All patterns are anchored, with
bounded repeats.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

_NUMBER_CHARS = 400


@dataclass(frozen=True, slots=True)
class Number:
    """An exact number as it was written.

    Args:
        value: what it is worth, number words included, percent sign and unit not.
        percent: whether a percent sign follows.
        unit: its measure in one spelling (`km/h`, `cm^2`, `dollar`); empty without one, and for a
            counted thing (`9 apples`).
        decimals: digits after the point of a plain decimal or of scientific notation, else None.
        base: of its digits, 10 unless it says so.
    """

    value: Fraction
    percent: bool = False
    unit: str = ""
    decimals: int | None = None
    base: int = 10


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


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
_ALIASES = {
    "mm": "millimeter millimetre", "cm": "centimeter centimetre cms", "dm": "decimeter decimetre",
    "m": "meter metre mtr", "km": "kilometer kilometre kms", "nm": "nanometer nanometre",
    "in": "inch inche", "ft": "foot feet", "yd": "yard", "mi": "mile",
    "mg": "milligram", "g": "gram gramme gm", "kg": "kilogram kilo kgs", "lb": "pound lbs",
    "oz": "ounce", "ton": "tonne t",
    "ms": "millisecond", "s": "second sec secs", "min": "minute mins", "h": "hour hr hrs",
    "day": "", "week": "wk", "fortnight": "", "month": "", "year": "yr yrs", "decade": "",
    "century": "centurie",
    "mL": "ml milliliter millilitre cc", "cL": "cl centiliter centilitre",
    "L": "l liter litre", "gal": "gallon", "qt": "quart", "pt": "pint", "cup": "",
    "tbsp": "tablespoon", "tsp": "teaspoon",
    "dollar": "USD buck", "cent": "", "euro": "EUR", "yen": "", "yuan": "RMB", "rupee": "Rs",
    "penny": "penni pence", "nickel": "", "dime": "",
    "Hz": "hertz", "kHz": "kilohertz", "MHz": "", "N": "newton", "J": "joule", "kJ": "kilojoule",
    "cal": "calorie", "W": "watt", "kW": "kilowatt", "kWh": "", "V": "volt", "A": "ampere amp",
    "K": "kelvin", "Pa": "pascal", "C": "celsius", "F": "fahrenheit", "MB": "megabyte",
    "GB": "gigabyte", "KB": "kilobyte", "bit": "", "byte": "",
    "deg": "degree", "rad": "radian", "mi/h": "mph", "km/h": "kph kmph kmh", "acre": "",
    "hectare": "ha", "furlong": "", "knot": "", "mcg": "microgram", "us": "microsecond",
    "ns": "nanosecond", "um": "micrometer micrometre micron", "MW": "megawatt", "GW": "gigawatt",
    "MJ": "megajoule", "TB": "terabyte", "kPa": "kilopascal", "mol": "mole", "ohm": "",
    "peso": "", "franc": "", "ruble": "rouble", "won": "", "krona": "krone", "shilling": "",
    "baht": "", "dinar": "", "lira": "", "rand": "", "am": "", "pm": "",
}  # fmt: skip
_MEASURES = {name: unit for unit, names in _ALIASES.items() for name in [unit, *names.split()]}
_SCALES = {
    "ten": Fraction(10), "hundred": Fraction(100), "thousand": Fraction(1000),
    "million": Fraction(10**6), "billion": Fraction(10**9), "trillion": Fraction(10**12),
    "dozen": Fraction(12), "score": Fraction(20), "gross": Fraction(144),
    "half": Fraction(1, 2), "halve": Fraction(1, 2), "third": Fraction(1, 3),
    "quarter": Fraction(1, 4), "fourth": Fraction(1, 4), "fifth": Fraction(1, 5),
    "sixth": Fraction(1, 6), "seventh": Fraction(1, 7), "eighth": Fraction(1, 8),
    "ninth": Fraction(1, 9), "tenth": Fraction(1, 10), "eleventh": Fraction(1, 11),
    "twelfth": Fraction(1, 12), "sixteenth": Fraction(1, 16), "twentieth": Fraction(1, 20),
    "hundredth": Fraction(1, 100), "thousandth": Fraction(1, 1000),
    "millionth": Fraction(1, 10**6), "billionth": Fraction(1, 10**9),
}  # fmt: skip
_ABBREVIATIONS = _set(
    "cm mm km dm nm kg mg mL ml ft in hr hrs am pm min sec Hz kHz mi lb lbs oz yd mph kph sq"
    " cu Rs kW kWh MB GB cc rad deg USD EUR gal qt pt ms"
)
_ATTACHED = _set("cm mm km kg mL Hz kHz mph kph kWh MB GB USD EUR lbs hrs")
"""Units that may follow a number without a space; any others would be products of variables."""
_NOT_COUNTED = _set(
    # signs, functions and operations in words
    "mod pi exp sqrt sin cos tan cot sec log ln inf nan infinity infty gcd lcm max min plus minus"
    " times over divided multiplied squared cubed factorial base imaginary choose modulo"
    " binary octal hexadecimal ternary decimal negative positive"
    # what joins two answers, hedges or takes back
    " or and nor not but if maybe perhaps probably possibly either neither except without unless"
    " versus about around approximately approx roughly nearly almost circa even odd"
    " wrong incorrect false true right correct invalid impossible undefined rejected extraneous"
    " excluded wait hmm no yes never cannot fails fail failed contradicts contradict contradiction"
    " guess guessed guessing estimate estimated estimation rounded mistake mistaken erroneous error"
    " discard discarded unlikely doubtful previous doubt suspect unsure uncertain"
    # what makes an inequality or a statement
    " to through less more greater fewer least most than below above under beyond up down at up"
    " is are was thus with where when which for so hence then because since equals equal into by"
    " zero one two three four five six seven eight nine eleven twelve twenty thirty forty fifty"
    " sixty seventy eighty ninety once twice thrice double triple twofold threefold fold nth first"
    " last onwards onward bound larger smaller bigger"
    # what changes the number
    " repeating recurring periodic halved doubled tripled quadrupled reciprocal inverse permille"
    " basis lakh crore myriad googol"
)
_SHORT_NOUNS = _set(
    "men boy cat dog hen cow pig egg pen cup toy bag box bus car day way kid fox ant bee rod"
    " row set tie win cut arc dot mat map age bet job key lot man pie"
)
"""Words of three letters that name things; any others may be a product of variables."""
_IS_SPOKEN = re.compile(r"(?!\w{1,20}(?:teen|tie)ths?\Z)\w{0,20}[aeiouyAEIOUY]")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
"""A stretch of it (`abcd`) is a product."""
_FRAMED = frozenset(("square", "sq", "cubic", "cu"))
_FILLERS = frozenset(("of", "per", "a", "an", "in", "the", "old", "each"))
_UNIT_TOKEN = re.compile(
    r"(?P<word>[A-Za-z]{1,20})\.?(?: ?\^ ?\{? ?(?P<power>-?[123]) ?\}?)?|(?P<over> ?/ ?)"
    r"|(?P<times> ?(?:\*|\\cdot|-) ?)|(?P<space> )"
)


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
    percent, scale, unit = suffix
    currency = (match["currency"] or match["after"] or "").strip(" \\")
    if currency:
        if unit not in ("", "dollar", "cent"):
            return None
        unit = {"$": "dollar", "pounds": "pound sterling"}.get(currency, currency)
    if scale != 1:
        value, decimals = value * scale, None
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
    if answer.unit and gold.unit and answer.unit != gold.unit:
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


def unit_of(text: str) -> str | None:
    """Return the measure that `text` names, empty for a counted thing; None if it is neither."""
    suffix = _suffix(" " + text)
    return None if suffix is None or suffix[0] or suffix[1] != 1 else suffix[2]


def _terminates(value: Fraction) -> bool:
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _suffix(suffix: str) -> tuple[bool, Fraction, str] | None:
    """Return (is a percentage, factor of its number words, unit); None if it is anything else."""
    words = suffix.strip().removesuffix(".").rstrip()
    if words in ("", "%", "percent", "percentage", "pct", "per cent", "percentage points"):
        return words != "", Fraction(1), ""
    if words.startswith("^\\circ"):
        scale = words[6:].strip()
        return (False, Fraction(1), "deg" + scale) if scale in ("", "C", "F") else None
    attached = not suffix.startswith((" ", "-"))
    first, _, rest = words.partition(" ")
    factor = _scale(first)
    if factor is not None and not attached:
        if not rest:
            return False, factor, ""
        further = _suffix(" " + rest.removeprefix("of "))
        return None if further is None or further[0] else (False, factor * further[1], further[2])
    unit = _unit(words.lstrip("-"), attached=attached)
    return None if unit is None else (False, Fraction(1), unit)


def _scale(word: str) -> Fraction | None:
    return _SCALES.get(word, _SCALES.get(word.removesuffix("s")))


def _unit(text: str, *, attached: bool) -> str | None:
    """Return the measure in one spelling, empty for a counted thing; None if it is neither."""
    parts: list[str] = []
    position, sign, frame, counted = 0, "", "", False
    while position < len(text):
        token = _UNIT_TOKEN.match(text, position)
        if token is None:
            return None
        position = token.end()
        word = token["word"]
        if word is None:
            sign = "/" if token["over"] else sign
            continue
        if word == "per" or (word in ("a", "an", "each") and parts):
            sign = "/"
            continue
        if word in _FILLERS and not (word == "in" and position == len(text)):
            if attached:
                return None
            continue
        if word.lower() in _FRAMED:
            frame = {"s": "^2", "c": "^3"}[word[0].lower()]
            continue
        if not _is_noun(word, attached=attached):
            return None
        measure = _measure(word)
        counted = counted or measure is None
        power = frame or ("^" + token["power"] if token["power"] else "")
        parts.append(f"{sign}{measure or word}{power.replace('^1', '')}")
        sign, frame = "", ""
    if not parts and not frame:
        return None
    if counted:
        parts = [part for part in parts if part[0] == "/" and part[1:] in _ALIASES]
    return _joined(parts)


def _joined(parts: list[str]) -> str:
    name = "".join(part if part[0] == "/" or not index else f" {part}" for index, part in
                   enumerate(parts))  # fmt: skip
    return {"deg C": "degC", "deg F": "degF"}.get(name, name)


def _measure(word: str) -> str | None:
    for spelling in (word, word.lower()):
        for name in (spelling, spelling.removesuffix("s"), spelling.removesuffix("es")):
            if name in _MEASURES and (len(name) > 1 or name == word):
                return _MEASURES[name]
    return None


def _is_noun(word: str, *, attached: bool) -> bool:
    """Return whether a word can follow a number as its unit or as what is counted."""
    if word in (_ATTACHED if attached else _ABBREVIATIONS):
        return True
    if attached or word.lower() in _NOT_COUNTED or _scale(word.lower()) is not None:
        return False
    if _measure(word) is not None:
        return len(word) >= 3
    if len(word) <= 3:
        return word in _SHORT_NOUNS
    return _IS_SPOKEN.match(word) is not None and word.lower() not in _ALPHABET


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
