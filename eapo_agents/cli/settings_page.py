"""Every setting of a run as one Markdown page, made from the dataclasses that hold them.

A setting's meaning stands in the docstring of its section, under Args; type and default stand at
its field. `eapo settings` prints the page, and `docs/settings.md` is what it prints.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from eapo_agents.reproduction import Pretraining
from eapo_agents.training import TrainConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Section = type[DataclassInstance]

_INTRODUCTION = """\
# Settings

Every setting of `eapo train`, `eapo distill`, `eapo reproduce` and of the commands that evaluate;
those of `eapo pretrain` come last. `eapo settings` prints this page, which is made from the code.

`--set KEY=VALUE` changes one and may be repeated. A value is JSON where it reads as JSON (`3e-5`,
`true`, `null`, `[1, 2]`) and else a text as it stands; `null` is Python's None. The defaults are
those of `eapo_agents.training.config.TrainConfig`; a [preset](methods.md#presets) changes some of them, and
the `config.json` of a run folder holds all values of that run.
"""

_WORDS = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true or false",
    NoneType: "null",
}
_ENTRY = re.compile(r"^    ([\w, ]+): ((?:.+)(?:\n {8}.+)*)", re.MULTILINE)
_PART = re.compile(r"^(?:Args|Raises|Returns):\n", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A section of the page: what is said of it, and its own settings in their order."""

    title: str
    text: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A setting: its full name, and what the page says of it."""

    name: str
    type: str
    default: str
    meaning: str


def settings_page() -> str:
    """Return the page."""
    training = parts(TrainConfig, TrainConfig(), "")
    pretraining = parts(Pretraining, Pretraining(), "")
    whole = [_INTRODUCTION, "## A run\n", *_told(training), "## `eapo pretrain`\n"]
    return "\n".join([*whole, *_told(pretraining)])


def parts(section: Section, default: object, prefix: str) -> Iterator[Part]:
    """Yield a section and those within it; `default` is its value, None where it has none."""
    hints, meanings = get_type_hints(section), _meanings(section)
    fields = dataclasses.fields(section)
    inner = {field.name: _section_in(hints[field.name]) for field in fields}
    yield Part(
        title=prefix.rstrip("."),
        text=_text(section) + _presence(prefix, default),
        rows=tuple(
            Row(
                name=prefix + field.name,
                type=_type_name(hints[field.name]),
                default=_default(field, default),
                meaning=meanings.get(field.name, ""),
            )
            for field in fields
            if not dataclasses.is_dataclass(hints[field.name])
        ),
    )
    for name, found in inner.items():
        if found is not None:
            value = getattr(default, name, None)
            if isinstance(value, tuple):
                yield from parts(found, None, f"{prefix}{name}[].")
            else:
                yield from parts(found, value, f"{prefix}{name}.")


def _told(page: Iterator[Part]) -> Iterator[str]:
    for part in page:
        if part.title:
            yield f"### {part.title}\n"
        yield part.text + "\n"
        if part.rows:
            yield "| setting | type | default | meaning |\n|---|---|---|---|"
            yield "".join(
                f"| `{row.name}` | {row.type} | {row.default} | {row.meaning} |\n"
                for row in part.rows
            )


def _section_in(hint: Any) -> Section | None:
    """Return the dataclass that a field holds, may hold, or holds a list of; None for no such."""
    kinds = [hint, *get_args(hint)]
    return next((k for k in kinds if isinstance(k, type) and dataclasses.is_dataclass(k)), None)


def _type_name(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(hint))
    if dataclasses.is_dataclass(hint):
        return "section"
    if hint in _WORDS:
        return _WORDS[hint]
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(map(_type_name, inner))
    return "JSON object" if origin is Mapping else f"list of {_type_name(inner[0])}s"


def _default(field: Field[Any], section: object) -> str:
    """Return the value that a field has in a section, or in any where there is none."""
    if section is not None:
        return _shown(getattr(section, field.name))
    if field.default_factory is not MISSING:
        return _shown(field.default_factory())
    return "required" if field.default is MISSING else _shown(field.default)


def _shown(value: object) -> str:
    return f"`{value}`" if isinstance(value, str) and value else f"`{json.dumps(value)}`"


def _presence(prefix: str, default: object) -> str:
    """Return what is to be said of a section that may be missing, or be there several times."""
    if prefix.endswith("[]."):
        return "\n\nOne entry of the list, which is given as a whole, in JSON."
    if default is not None or "[]" in prefix:
        return ""
    return "\n\nMissing by default: changing a setting of it adds it, with its other defaults."


def _text(section: Section) -> str:
    return _PART.split(inspect.getdoc(section) or "")[0].strip()


def _meanings(section: Section) -> dict[str, str]:
    """Return what a docstring says under Args, by the name of the field."""
    _, *rest = (inspect.getdoc(section) or "").partition("Args:\n")
    listed = rest[-1].partition("\n\n")[0]
    return {
        name.strip(): " ".join(text.split()).replace("|", r"\|")
        for names, text in _ENTRY.findall(listed)
        for name in names.split(",")
    }
