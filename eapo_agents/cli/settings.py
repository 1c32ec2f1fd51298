"""`eapo settings`: every setting of a run as one Markdown page, made from their dataclasses.

A setting's meaning is in the docstring of its section, under Args; type and default are those of
its field.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from eapo_agents import reproduction, training

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from eapo_agents.cli.options import Commands

    Section = type[DataclassInstance]

_INTRODUCTION = """\
# Settings

Every setting of `eapo train`, `eapo distill`, `eapo reproduce` and of the commands that evaluate;
those of `eapo pretrain` come last. `eapo settings` prints this page, which is made from the code;
`eapo settings PRESET` prints it with a preset's values as defaults.

`--set KEY=VALUE` changes one and may be repeated. A value is JSON where it reads as JSON (`3e-5`,
`true`, `null`, `[1, 2]`) and else a text as it stands; `null` is Python's None. The defaults are
those of `eapo_agents.TrainConfig`; a [preset](methods.md#presets) changes some of them, and the
`config.json` of a run folder holds all values of that run. Another `kind` brings back the defaults
of its section, another `source` those of `columns`, `split` and `subset`, another `schedule` those
of `exponent` and `rate`, unless these are changed, too.
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


def add(commands: Commands) -> None:
    """Add the command."""
    settings = commands.add_parser("settings", help="all settings: type, default, meaning")
    settings.add_argument(
        "preset", nargs="?", default="", help="whose values are shown; default: TrainConfig's"
    )
    settings.set_defaults(command=_settings)


def _settings(options: argparse.Namespace) -> int:
    preset = options.preset
    config = training.presets.preset_named(preset) if preset else training.TrainConfig()
    print(settings_page(config), end="")
    return 0


def settings_page(config: training.TrainConfig) -> str:
    """Return the page, with the values of a config as defaults."""
    run = parts(training.TrainConfig, config, "")
    pretraining = parts(reproduction.Pretraining, reproduction.Pretraining(), "")
    page = [_INTRODUCTION, "## A run\n", *_markdown(run), "## `eapo pretrain`\n"]
    return "\n".join([*page, *_markdown(pretraining)])


def parts(section: Section, default: object, prefix: str, kind: str = "") -> Iterator[Part]:
    """Yield a section and those within it.

    Args:
        section: its type.
        default: its value; None where there is none.
        prefix: the name of the section with a dot after it, "[]." for an entry of a list.
        kind: which of several it is, where the section is of one of several types.
    """
    hints, meanings = get_type_hints(section), _meanings(section)
    chosen = [field for field in dataclasses.fields(section) if not (kind and field.name == "kind")]
    title = prefix.rstrip(".")
    yield Part(
        title=f"{title}, kind `{kind}`" if kind else title,
        text=_text(section) + _presence(prefix, default, kind),
        rows=tuple(
            Row(
                name=prefix + field.name,
                type=_type_name(hints[field.name]),
                default=_default(field, default),
                meaning=meanings.get(field.name, ""),
            )
            for field in chosen
            if not dataclasses.is_dataclass(hints[field.name])
        ),
    )
    for field in chosen:
        yield from _inner_parts(
            hints[field.name], getattr(default, field.name, None), prefix + field.name
        )


def _inner_parts(hint: Any, value: object, name: str) -> Iterator[Part]:
    """Yield the sections of the types that a field may hold, or hold a list of."""
    sections = list(_sections(hint))
    listed = get_origin(hint) is tuple
    for section in sections:
        kind = _kind(section) if len(sections) > 1 else ""
        default = value if isinstance(value, section) else None
        yield from parts(section, default, f"{name}[]." if listed else f"{name}.", kind)


def _markdown(page: Iterator[Part]) -> Iterator[str]:
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


def _sections(hint: Any) -> Iterator[Section]:
    """Yield the dataclasses that a field may hold, or may hold a list of."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        yield hint
    elif get_origin(hint) in (tuple, Union, UnionType):
        for inner in get_args(hint):
            yield from _sections(inner)


def _kind(section: Section) -> str:
    """Return the name under which a section is chosen among others."""
    [name] = get_args(get_type_hints(section)["kind"])
    return str(name)


def _type_name(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if dataclasses.is_dataclass(hint):
        return "section"
    if hint in _WORDS:
        return _WORDS[hint]
    if origin in (Union, UnionType):
        if all(map(dataclasses.is_dataclass, inner)):
            return f"section of kind {', '.join(f'`{_kind(section)}`' for section in inner)}"
        return " or ".join(map(_type_name, inner))
    if origin is Mapping:
        return "JSON object"
    listed = _type_name(inner[0])
    return "list of " + (
        listed.replace("section", "sections", 1) if " of " in listed else f"{listed}s"
    )


def _default(field: Field[Any], section: object) -> str:
    """Return the value that a field has in a section, or in any where there is none."""
    if section is not None:
        return _shown(getattr(section, field.name))
    if field.default_factory is not MISSING:
        return _shown(field.default_factory())
    return "required" if field.default is MISSING else _shown(field.default)


def _shown(value: object) -> str:
    if dataclasses.is_dataclass(value) and hasattr(value, "kind"):
        return f"`{value.kind}`"
    if isinstance(value, str) and value:
        return f"`{value}`"
    return f"`{json.dumps(value, default=dataclasses.asdict)}`"


def _presence(prefix: str, default: object, kind: str) -> str:
    """Return what is to be said of a section that may be missing, or be there several times."""
    if prefix.endswith("[]."):
        return "\n\nOne entry of the list, which is given as a whole, in JSON."
    if default is not None or kind or "[]" in prefix:
        return ""
    return "\n\nMissing by default: changing a setting of it adds it, with its other defaults."


def _text(section: Section) -> str:
    return _PART.split(inspect.getdoc(section) or "")[0].strip()


def _meanings(section: Section) -> dict[str, str]:
    """Return what docstrings say under Args, its own and its bases', by the name of the field."""
    meanings: dict[str, str] = {}
    for base in reversed(section.__mro__):
        listed = (inspect.getdoc(base) or "").partition("Args:\n")[2].partition("\n\n")[0]
        for names, text in _ENTRY.findall(listed):
            meaning = " ".join(text.split()).replace("|", r"\|")
            meanings.update({name.strip(): meaning for name in names.split(",")})
    return meanings
