"""Units: what is dropped behind a number, and what keeps two numbers apart."""

from __future__ import annotations

import string

import pytest
from hypothesis import assume, given, strategies as st

from eapo_env.quantities import number, same_number
from eapo_env.units import Unit, unit_of

PLURALS = "apples boys girls balls tiles pairs ways people children women feet cookies boxes buses"
MEASURES = "cm km hours dollars miles grams liters degrees"
KNOWN = (PLURALS + " " + MEASURES).split()
things = st.sampled_from(KNOWN)
plurals = st.sampled_from(PLURALS.split())
words = st.text(string.ascii_lowercase, min_size=2, max_size=12)


def equal(answer: str, gold: str) -> bool:
    a, g = number(answer), number(gold)
    return a is not None and g is not None and same_number(a, g)


@given(words)
def test_a_word_is_dropped_only_if_it_is_a_unit_or_a_plural(word: str) -> None:
    assume(not word.endswith("s"))
    unit = unit_of(word)
    assert unit is None or unit == unit_of(f"{word}s") or unit in map(unit_of, KNOWN) or not unit


NO_UNITS = (
    "dubious|nope|untrue|denied|omitted|missing|east|west|increase|loss|profit|wrong|up|left|fails"
    "|contradicts|less|times|minus|percent|plus|yes|perhaps|always|fives|twenties|seventeenths|or"
    "|not|abc|xyz|square|apples/nope|fewer apples|more apples|out of apples|minus apples"
    "|and a half apples|miles north|apples, not pears|apples or pears|apples and pears|of apples"
    "|times as many|apples missing|less than five|to six apples|degrees below"
)


@pytest.mark.parametrize("text", NO_UNITS.split("|"))
def test_what_is_no_unit(text: str) -> None:
    assert unit_of(text) is None


@given(st.integers(2, 999), things, things)
def test_two_things_are_equal_only_if_they_are_the_same(n: int, one: str, other: str) -> None:
    assert equal(f"{n} {one}", str(n))
    assert equal(f"{n} {one}", f"{n} {other}") is (one == other)


@given(st.integers(2, 999), plurals, plurals)
def test_a_rate_is_not_its_inverse(n: int, one: str, other: str) -> None:
    assume(one != other)
    assert equal(f"{n} {one} per {other}", f"{n} {one} per {other}")
    assert equal(f"{n} {one} per {other}", str(n))
    assert not equal(f"{n} {one} per {other}", f"{n} {other} per {one}")
    assert not equal(f"{n} {one} per hour", f"{n} {one} per minute")


@given(
    st.integers(2, 999), plurals, st.sampled_from(["red", "big"]), st.sampled_from(["red", "big"])
)
def test_two_descriptions_of_a_thing_must_not_differ(n: int, thing: str, a: str, b: str) -> None:
    assume(thing != "feet")
    assert equal(f"{n} {a} {thing}", f"{n} {thing}")
    assert equal(f"{n} {a} {thing}", f"{n} {b} {thing}") is (a == b)


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("square centimeters", Unit("cm^2")),
        ("cm squared", Unit("cm^2")),
        ("square tiles", Unit("tile", details=frozenset(["square"]))),
        ("square units", Unit("unit^2")),
        ("mph", Unit("mi", ("h",))),
        ("km/h", Unit("km", ("h",))),
        ("cm/s^2", Unit("cm", ("s^2",))),
        ("dollars a day", Unit("dollar", ("day",))),
        ("people per room", Unit("person", ("room",))),
        ("cups of sugar", Unit("cup", details=frozenset(["sugar"]))),
        ("years old", Unit("year", details=frozenset(["old"]))),
        ("dollars each", Unit("dollar", details=frozenset(["each"]))),
        ("dollars in total", Unit("dollar")),
        ("in total", Unit()),
        ("nautical miles", Unit("nautical mi")),
        ("degrees Celsius", Unit("degC")),
    ],
)
def test_units(text: str, unit: Unit) -> None:
    assert unit_of(text) == unit
