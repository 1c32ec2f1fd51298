"""What can be said of any Python value in JSON: bounded, and without secrets.

It is the same in every process and never raises: of what cannot be read, the class is said.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import inspect
import json
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence, Set as AbstractSet, Sized
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import cached_property, partial
from itertools import islice
from pathlib import PurePath
from types import CodeType, MethodType, ModuleType
from typing import Any
from uuid import UUID

import numpy as np

_DEEPEST, _LARGEST, _MOST_NODES = 8, 50, 500
_LONGEST_TEXT, _LONGEST_INTEGER = 200, 1000

_SECRET = re.compile(
    r"(?i)\A(?!.*_env\Z).*("  # the name of an environment variable is no secret
    r"api_?key|(?<![a-z])keys?\Z|(?-i:[a-z]Keys?\Z)|secret|passw|passphrase|token\Z"
    r"|(access|api|refresh)_?tokens\Z|auth(?!or)|authori[sz]|credential|bearer|header|cookie)",
    re.DOTALL,
)
_USER_OF_URL = re.compile(r"(?<=://)[^/\s]*@")


def describe(value: object) -> Any:
    """Return what can be said of a value in JSON.

    Numbers, strings, lists and mappings of them are themselves; a function is its name; any other
    object is its class, `is`, and its attributes, `settings`. Private attributes and secrets are
    left out, long strings are cut, and of what is large or nested deeply the class is said.
    """
    return _Describer().of(value)


def holds_secret(value: object) -> bool:
    """Return whether a JSON value has a secret by its name, or a URL with a user in it."""
    match value:
        case Mapping():
            return any(is_secret(k) or holds_secret(k) or holds_secret(v) for k, v in value.items())
        case list():
            return any(map(holds_secret, value))
        case str():
            return _USER_OF_URL.search(value) is not None
    return False


def is_secret(name: str) -> bool:
    """Return whether what has this name is a secret, such as a password."""
    return _SECRET.search(name) is not None


def name_of(kind: type) -> str:
    """Return the qualified name of a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


@dataclass(slots=True)
class _Describer:
    """Describes a tree of values, of which no more than `nodes` in full."""

    nodes: int = _MOST_NODES

    def of(self, value: object, depth: int = 0) -> Any:
        """Return the description of a value; that of its class if it cannot be read."""
        self.nodes -= 1
        try:
            said = _itself(value)
            return self._composite(value, depth) if said is _UNSAID else said
        except Exception:  # of a stranger's code, such as a property
            return _class_of(value)

    def _composite(self, value: object, depth: int) -> Any:
        if depth == _DEEPEST or self.nodes <= 0 or _is_large(value):
            return _class_of(value)
        match value:
            case np.generic():
                return self.of(value.item(), depth + 1)
            case Mapping():
                return self._mapping(value, depth)
            case list() | tuple() | deque():
                return [self.of(one, depth + 1) for one in islice(value, _LARGEST)]
            case AbstractSet():
                return self._set(value, depth)
            case MethodType(__func__=function, __self__=owner):
                return self._object(value, {"function": function, "of": owner}, depth)
            case partial(func=function, args=args, keywords=keywords):
                parts = {"function": function, "arguments": args, "keywords": keywords}
                return self._object(value, parts, depth)
        return _function(value) or self._object(value, _attributes(value), depth)

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        items = ((self._key(k, depth), one) for k, one in islice(value.items(), _LARGEST))
        return {key: self.of(one, depth + 1) for key, one in items if not is_secret(key)}

    def _key(self, key: object, depth: int) -> str:
        return _text(key) if isinstance(key, str) else json.dumps(self.of(key, depth + 1))

    def _set(self, value: AbstractSet[Any], depth: int) -> list[Any]:
        """Describe each element with an equal share: their order differs between processes."""
        shares = [_Describer(self.nodes // len(value)) for _ in range(len(value))]
        said = [share.of(one, depth + 1) for share, one in zip(shares, value, strict=True)]
        self.nodes = sum(share.nodes for share in shares)
        return sorted(said, key=json.dumps)

    def _object(self, value: object, attributes: Mapping[str, Any], depth: int) -> dict[str, Any]:
        public = {key: one for key, one in attributes.items() if not key.startswith("_")}
        if len(public) > _LARGEST:
            return _class_of(value)
        return _class_of(value) | {"settings": self._mapping(public, depth)}


_UNSAID = object()


def _itself(value: Any) -> Any:
    """Return a value that has no parts as JSON says it; `_UNSAID` for any other."""
    match value:
        case Enum():
            return f"{name_of(type(value))}.{value.name}"
        case None | bool():
            return value
        case int():
            return int(value) if value.bit_length() <= _LONGEST_INTEGER else _text(hex(value))
        case float():
            return float(value)
        case str():
            return _text(value)
        case bytes() | bytearray():
            return f"{len(value)} bytes, sha256 {_digest(value)}"
        case type():
            return name_of(value)
        case ModuleType():
            return value.__name__
        case re.Pattern():
            return _text(f"re.compile({value.pattern!r}, {value.flags})")
        case PurePath() | date() | time() | timedelta() | Decimal() | Fraction() | UUID():
            return _text(str(value))
        case complex() | range():
            return str(value)
    return _UNSAID


def _text(text: str) -> str:
    """Return a text without the users of its URLs; a long one as its begin, length and digest."""
    text = _USER_OF_URL.sub("...@", str.__str__(text))
    if len(text) <= _LONGEST_TEXT:
        return text
    digest = _digest(text.encode(errors="surrogatepass"))
    return f"{text[:_LONGEST_TEXT]}... ({len(text)} characters, sha256 {digest})"


def _digest(data: bytes | bytearray) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _class_of(value: object) -> dict[str, Any]:
    return {"is": name_of(type(value))}


def _is_large(value: object) -> bool:
    try:
        return isinstance(value, Sized) and len(value) > _LARGEST
    except Exception:  # a tensor without axes has no length
        return False


def _function(value: Any) -> str | None:
    """Return the name of a function, that of a lambda with a digest; None for anything else."""
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not callable(value) or not isinstance(name, str):
        return None
    name = f"{getattr(value, '__module__', None) or type(value).__module__}.{name}"
    code = getattr(value, "__code__", None)
    if name.endswith("<lambda>") and isinstance(code, CodeType):
        name += f" {_digest(repr(_plain(code)).encode(errors='surrogatepass'))}"
    return name


def _plain(constant: object) -> object:
    """Return a constant of a function such that its `repr` is the same in every process."""
    match constant:
        case CodeType(co_code=code, co_names=names, co_consts=constants):
            return code, names, _plain(constants)
        case tuple():
            return tuple(map(_plain, constant))
        case frozenset():
            return sorted(map(repr, map(_plain, constant)))
    return constant


def _attributes(value: object) -> dict[str, Any]:
    """Return the attributes that can be read; those of a dataclass are its visible fields."""
    found = {}
    for name in _names(value):
        with contextlib.suppress(Exception):  # not set, or a property
            found[name] = getattr(value, name)
    return found


def _names(value: object) -> Sequence[str]:
    kind = type(value)
    fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
    visible = [field.name for field in fields if field.init and field.repr]
    if "__dataclass_fields__" in vars(kind):
        return visible
    hidden = {field.name for field in fields}
    others = [*_slots(kind), *getattr(value, "__dict__", ())]
    return visible + [n for n in others if n not in hidden and not _is_cached(kind, n)]


def _slots(kind: type) -> Iterable[str]:
    for base in reversed(kind.__mro__):
        slots = vars(base).get("__slots__", ())
        yield from (slots,) if isinstance(slots, str) else slots


def _is_cached(kind: type, name: str) -> bool:
    return isinstance(inspect.getattr_static(kind, name, None), cached_property)
