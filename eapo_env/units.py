r"""What stands behind a number: a measure (`km/h`), a counted thing (`red balls`), a rate.

A word is read only if it is known to name something: a unit, or a plural. Any other word behind a
number (`missing`, `east`, `loss`) could change what is claimed, so the text is not a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

Word = tuple[str, str]
"""A word and its power, empty without one."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What a number measures or counts; empty for a bare number.

    Args:
        name: a measure in one spelling (`cm^2`, `dollar`), or the thing counted (`ball`).
        rates: what it is per (`h` of `km/h`), in order.
        details: what is said of a counted thing (`red`), or is in a measure (`sugar`).
    """

    name: str = ""
    rates: tuple[str, ...] = ()
    details: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.name or self.rates)

    def agrees_with(self, other: Unit) -> bool:
        """Return whether numbers with these units can be equal: one is bare, or the units match.

        Of two descriptions of a thing, one must hold all that the other says.
        """
        if not self or not other:
            return True
        return (
            self.rates == other.rates
            and (not self.name or not other.name or self.name == other.name)
            and (self.details <= other.details or self.details >= other.details)
        )


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


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
    "quadrillion": Fraction(10**15), "lakh": Fraction(10**5), "crore": Fraction(10**7),
    "myriad": Fraction(10**4), "googol": Fraction(10**100),
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
_TIMES = _set("h s")
"""Letters that are units behind a unit and a slash, as in `km/h`; elsewhere they are variables."""
ATTACHED = _set("cm mm km kg mL Hz kHz mph kph kWh MB GB USD EUR lbs hrs")
"""Units that may follow a number without a space; any others would be products of variables."""
_IRREGULAR = {
    "men": "man", "women": "woman", "people": "person", "children": "child", "teeth": "tooth",
    "mice": "mouse", "geese": "goose", "oxen": "ox", "dice": "die", "vertices": "vertex",
    "indices": "index", "matrices": "matrix", "axes": "axis", "bases": "basis", "feet": "foot",
    "fish": "fish", "sheep": "sheep", "deer": "deer", "cattle": "cattle", "radii": "radius",
}  # fmt: skip
_NUMERALS = _set(
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"
)
_CLOSED_CLASS = _NUMERALS | _set(
    # conjunctions, prepositions, determiners, pronouns, auxiliaries, negations
    "and or nor but if unless except without versus than not no never none neither either both"
    " to through from by with where when which for so hence then because since into onto about"
    " around below above under beyond out off over up down at on in as between until via like"
    " is are was were be been being am has have had do does did will would can could may might must"
    " shall should cannot this that these those it its they them he she his her their our my your"
    " who whose what how why there here thus perhaps maybe always yes sometimes besides"
    # comparison and quantity
    " less more fewer greater most least few many much very too once twice thrice double triple"
    " half first last next equal equals even odd afterwards upwards downwards onwards onward"
    " towards backwards forwards"
    # operations and functions in words
    " plus minus times divided multiplied mod modulo percent percents permille square cubic"
    " squared cubed base pi exp sqrt sin cos tan cot sec log ln inf nan gcd lcm max min"
    # verbs that take back and end in -s
    " fails contradicts errs disagrees"
)
"""Words that describe no thing: they join, compare, negate or compute."""
_PLURAL = re.compile(r"(?!\w{1,20}(?:teen|tie)ths\Z)(?=[a-z]{0,19}[aeiouy])[a-z]{3,19}(?<![sui])s")
_OPEN_CLASS = re.compile(r"(?=[a-z]{0,19}[aeiouy])[a-z]{3,20}")
_FRAMES = {"square": "^2", "sq": "^2", "cubic": "^3", "cu": "^3"}
_POWERS = {"squared": "2", "cubed": "3"}
_ARTICLES = frozenset(("a", "an", "the"))
_TAIL = re.compile(
    r"(?:(?:\A|(?<=[a-z]) )(?:in total|in all|altogether|total|(?P<each>each))"
    r"|(?<=[a-z]) (?P<way>old|long|wide|high|tall|deep|thick))\Z"
)
_TOKEN = re.compile(
    r"(?P<word>[A-Za-z]{1,20})\.?(?: ?\^ ?\{? ?(?P<power>-?[123]) ?\}?)?|(?P<over> ?/ ?)"
    r"|(?: ?(?:\*|\\cdot|-) ?)| "
)


def scale(word: str) -> Fraction | None:
    """Return the factor that a number word (`million`, `tenths`) stands for, or None."""
    return _SCALES.get(word, _SCALES.get(word.removesuffix("s")))


def unit_of(text: str, *, attached: bool = False) -> Unit | None:
    """Return what `text` measures or counts; None if it is anything else.

    Args:
        text: the words behind a number.
        attached: whether they follow it without a space, as only some units may.
    """
    tail = _TAIL.search(text)
    text = text[: tail.start()].rstrip() if tail else text
    words = list(_words(text))
    if attached and not (len(words) == 1 and words[0][0] in ATTACHED):
        return None
    if any(word == "" for word, _ in words):
        return None
    head, rates, details = _grouped(words)
    names = [_counted_per(*rate) for rate in rates]
    thing = _thing(head) if head else Unit()
    if thing is None or None in names or (head == [] and not rates and text):
        return None
    if not all(_is_open(word) or _measure(word) for word, _ in details):
        return None
    described = thing.details | {word.lower() for word, _ in details}
    if tail:
        described |= {detail for detail in tail.groups() if detail}
    return Unit(thing.name, (*thing.rates, *(name for name in names if name)), described)


def _words(text: str) -> Iterator[Word]:
    """Yield the words of a unit, slashes among them; an empty word for what cannot be one."""
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            yield "", ""
            return
        position = token.end()
        if token["word"]:
            yield token["word"], token["power"] or ""
        elif token["over"]:
            yield "/", ""


def _grouped(
    words: Sequence[Word],
) -> tuple[list[Word], list[tuple[str, list[Word]]], list[Word]]:
    """Return the words of the thing, of its rates with their separators, and of what it is `of`."""
    head: list[Word] = []
    rates: list[tuple[str, list[Word]]] = []
    details: list[Word] = []
    target = head
    for word, power in words:
        if word in ("per", "/") or (
            word in ("a", "an", "each") and target and target is not details
        ):
            target = []
            rates.append((word, target))
        elif word == "of" and head:
            target = details
        elif word not in _ARTICLES:
            target.append((word, power))
    return head, rates, details


def _thing(words: Sequence[Word]) -> Unit | None:
    """Return the measure or the plural that ends these words, with what describes it."""
    names: list[str] = []
    described: list[str] = []
    frame = ""
    for index, (word, power) in enumerate(words):
        lower = word.lower()
        follows = words[index + 1][0] if index + 1 < len(words) else ""
        measure = _measure(word)
        if lower in _FRAMES and (_measure(follows) or follows.startswith("unit")):
            frame = _FRAMES[lower]
        elif lower in _POWERS and names and not power and "^" not in names[-1]:
            names[-1] += f"^{_POWERS[lower]}"
        elif measure is not None:
            names.append(measure + (frame or _power(power)))
            frame = ""
        elif not follows and (singular := _singular(lower)):
            details = frozenset([*described, *names])
            return Unit(singular + (frame or _power(power)), details=details)
        elif power or names or not (_is_open(lower) or (lower in _FRAMES and follows)):
            return None
        else:
            described.append(lower)
    if not names or frame:
        return None
    name, *rates = " ".join([*described, *names]).split("/")
    return Unit({"deg C": "degC", "deg F": "degF"}.get(name, name), tuple(rates))


def _counted_per(separator: str, words: Sequence[Word]) -> str | None:
    """Return the name of what a rate is per: a measure, or behind a word one thing."""
    if not words:
        return None
    if separator == "/" and len(words) == 1 and words[0][0] in _TIMES:
        return words[0][0] + _power(words[0][1])
    thing = _thing(words)
    if thing is not None:
        return thing.name
    named = [word.lower() for word, power in words if not power and separator != "/"]
    return " ".join(named) if len(named) == len(words) and all(map(_is_open, named)) else None


def _power(power: str) -> str:
    return f"^{power}" if power not in ("", "1") else ""


def _singular(word: str) -> str | None:
    """Return the singular of a plural noun, or None if the word is not one."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word in _CLOSED_CLASS or scale(word) is not None or not _PLURAL.fullmatch(word):
        return None
    stem = word[:-3] + "y" if word.endswith("ies") else word[:-1]
    return None if {stem, word.removesuffix("es")} & _NUMERALS else stem


def _is_open(word: str) -> bool:
    """Return whether a word can describe a thing: no word of the closed class, no product."""
    word = word.lower()
    return (
        _OPEN_CLASS.fullmatch(word) is not None
        and word not in _CLOSED_CLASS
        and scale(word) is None
        and word not in "abcdefghijklmnopqrstuvwxyz"
    )


def _measure(word: str) -> str | None:
    """Return the spelling of a unit; None for other words and for letters that may be variables."""
    if not (word in _ABBREVIATIONS or len(word) >= 3):
        return None
    for spelling in (word, word.lower()):
        for name in (spelling, spelling.removesuffix("s"), spelling.removesuffix("es")):
            if name in _MEASURES and (len(name) > 1 or name == word):
                return _MEASURES[name]
    return None
