"""What can be said of a value: in JSON, bounded, without secrets, the same in every process."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from eapo_agents.learning.losses import dapo_loss
from eapo_agents.training.description import describe, is_secret


@dataclass(frozen=True)
class Shelf:
    """A value with settings."""

    answers: Mapping[str, Any] = field(default_factory=dict)
    default: Any = "7"
    hidden: str = field(default="sk-x", repr=False)


class Bag:
    """An object with any attributes."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Slotted:
    """An object without `__dict__`, one of whose attributes is not set."""

    __slots__ = ("missing", "size")

    def __init__(self, size: int) -> None:
        self.size = size


class Color(Enum):
    RED = 1
    BLUE = 2


class Hostile:
    """An object that raises at every question."""

    def __len__(self) -> int:
        raise RuntimeError("no length")

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("no attributes")

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no attributes")


class Constant:
    """A callable object, which has no qualified name."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self) -> int:
        return self.size


@functools.lru_cache
def cached() -> int:
    return 3


STRANGE: list[Any] = [
    *(len, dapo_loss, Shelf, object(), b"bytes", lambda: 0, {1, 2}, Hostile(), Constant(3)),
    *(np.array(3), np.zeros(9), torch.tensor(3.0), np.float32(3), np.longdouble(3), np.add),
    *(1 << 20_000, "\ud800", Path("x"), Slotted(3), cached, "".join, Color.RED, json),
]

jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=60) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)
anything = st.recursive(
    jsons | st.sampled_from([len, dapo_loss, Shelf, object(), b"bytes", lambda: 0, {1, 2}]),
    lambda inner: (
        inner.map(lambda value: functools.partial(print, value, end=value))
        | inner.map(lambda value: replace(Shelf(), default=value))
        | st.lists(inner, max_size=3)
    ),
    max_leaves=5,
)


@given(anything)
def test_any_value_has_a_description_in_json_that_stays_the_same(value: Any) -> None:
    found = json.dumps(describe(value))
    assert json.dumps(describe(value)) == found
    assert " at 0x" not in found


@pytest.mark.parametrize("value", STRANGE, ids=[str(n) for n in range(len(STRANGE))])
def test_no_value_is_too_strange(value: Any) -> None:
    assert len(json.dumps(describe(functools.partial(value)) if callable(value) else "")) < 900
    assert len(json.dumps(describe(Bag(value=value)))) < 900


def test_what_is_large_or_a_cycle_has_a_short_description() -> None:
    bag = Bag()
    bag.self = bag  # type: ignore[attr-defined]
    assert json.dumps(describe(bag)).count("Bag") == 9
    wide: Any = "leaf"
    for _ in range(4):
        wide = [wide] * 40
    found = json.dumps(describe(wide))
    assert found.count("leaf") + found.count("builtins.list") < 700
    text = "long " * 1000
    assert describe(text).startswith(text[:200] + "... (5000 characters, sha256 ")
    assert describe(Bag(**{f"a{n}": n for n in range(60)})) == {"is": f"{__name__}.Bag"}


DIFFERENT: list[tuple[Any, Any]] = [
    (Path("a"), Path("b")),
    (date(2024, 1, 1), date(2024, 1, 2)),
    (Decimal("1"), Decimal("2")),
    (re.compile("a"), re.compile("b")),
    (re.compile("a"), re.compile("a", re.IGNORECASE)),
    (np.float32(1), np.float32(2)),
    (Color.RED, Color.BLUE),
    (b"a", b"b"),
    ({1, 2}, {1, 3}),
    (np.add, np.multiply),
    (cached, functools.lru_cache(dapo_loss)),
    (lambda x: x + 1, lambda x: x + 2),
    (lambda x: x + 1, lambda x: x - 1),
    (lambda x: x.a, lambda x: x.b),
    (lambda: lambda: 1, lambda: lambda: 2),
    (functools.partial(Constant(1)), functools.partial(Constant(2))),
    (Constant(1).__call__, Constant(2).__call__),
    (Slotted(1), Slotted(2)),
    ("a" * 999 + "b", "a" * 1000),
]


@pytest.mark.parametrize(
    ("one", "other"),
    DIFFERENT,
    ids=[f"{n} {type(one).__name__}" for n, (one, _) in enumerate(DIFFERENT)],
)
def test_different_values_look_different(one: Any, other: Any) -> None:
    assert describe(one) != describe(other)


def test_some_descriptions_are_exact() -> None:
    assert describe(np.int64(3)) == 3
    assert describe(Color.RED) == f"{__name__}.Color.RED"
    assert describe({"b", "a"}) == ["a", "b"]
    assert describe(cached) == f"{__name__}.cached"
    assert describe(np.add).endswith(".add")
    assert describe(Slotted(3)) == {"is": f"{__name__}.Slotted", "settings": {"size": 3}}


def test_a_cached_property_is_no_setting() -> None:
    class Lazy(Bag):
        @functools.cached_property
        def table(self) -> int:
            return 3

    one, other = Lazy(size=1), Lazy(size=1)
    assert one.table == 3
    assert describe(one) == describe(other)


SETS = """
from eapo_agents.training.description import describe
print(describe([{(str(n), "x" * n) for n in range(40)}, {"a", "b"}, lambda x: x in {"a", "b"}] * 9))
"""


def test_a_description_does_not_depend_on_the_order_of_a_set() -> None:
    found = [
        subprocess.run(
            [sys.executable, "-c", SETS],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "name",
    [
        *("key", "api_key", "apiKey", "API_KEY", "openaiKey", "x-key", "keys"),
        *("secret", "client_secret", "password", "Passwd", "token", "access_token", "accessToken"),
        *(
            "access_tokens",
            "auth",
            "Authorization",
            "authorisation",
            "credentials",
            "bearer",
            "headers",
        ),
        *("cookie",),
    ],
)
def test_a_secret_goes_by_its_name_at_every_depth(name: str) -> None:
    assert is_secret(name)
    for value in ({name: "sk-x"}, Bag(**{name: "sk-x"}), Bag(a=[{"b": {name: "sk-x"}}])):
        assert "sk-x" not in json.dumps(describe(value))


@pytest.mark.parametrize(
    "name",
    [
        *("max_tokens", "num_tokens", "tokens", "tokenizer", "keys_per_page", "keyboard", "monkey"),
        *("turkeys", "author", "authors", "authored_by", "api_key_env", "compass", "passes"),
        *("tokenize",),
    ],
)
def test_an_ordinary_name_is_no_secret(name: str) -> None:
    assert describe({name: 3}) == {name: 3}


def test_a_hidden_field_and_the_user_of_a_url_are_left_out() -> None:
    assert describe(Shelf()) == {
        "is": f"{__name__}.Shelf",
        "settings": {"answers": {}, "default": "7"},
    }
    urls = "https://me:sk-x@host/v1, http://sk-x@host"
    assert describe(urls) == "https://...@host/v1, http://...@host"
    assert describe({urls: Path("x")}) == {describe(urls): "x"}
