"""One self-contained HTML page about some runs: no server, no network, no text that is markup.

The page's files are in `page/`. Episodes and Plotly stand in it compressed, and the browser unpacks
them. Two things keep the text of models and experts text: the page's script writes it into text
nodes only, and the page's content security policy runs no script but its own two, by their hashes.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from eapo_agents.files import write_text
from eapo_agents.training.report.content import (
    distinct_names,
    episodes,
    evaluated,
    recorded_bytes,
    summary,
)
from eapo_agents.training.run_folder import Run

EPISODE_BYTES = 14_000_000
"""The most characters of episodes in a page: with all else, it stays below 20 MB."""
SERVED_BYTES = 256_000_000
"""The most bytes of episodes, as they are recorded, that a served page asks for."""

_PAGE = files("eapo_agents.training.report") / "page"
_SCRIPTS = ("values.js", "curves.js", "episodes.js", "page.js")
_COMPRESSION = 8
"""How much smaller episodes become in a page, at best."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The episodes of one step of a run, compressed; runs are counted as in the summary."""

    kind: Literal["episodes", "evaluated"]
    run: int
    step: int
    text: str


def write_page(runs: Sequence[Run], path: str | PathLike[str]) -> Path:
    """Write the page about some runs; return its path.

    Where the episodes are too many for a file of 20 MB, each run shows only every n-th of its
    groups; the page says so.

    Raises:
        UserError: none of the runs has metrics, one of their files is invalid, or the page cannot
            be written.
    """
    path = Path(path)
    write_text(path, page(runs))
    return path


def page(runs: Sequence[Run], episode_bytes: int = EPISODE_BYTES) -> str:
    """Return the page about some runs, everything in it.

    Args:
        runs: the run folders.
        episode_bytes: the most characters that the episodes may take.
    """
    content = summary(runs)
    ordered = in_order(runs, content)
    recorded = recorded_bytes(ordered)  # more than there are groups
    every = max(1, recorded // (episode_bytes * _COMPRESSION))
    blocks = list(_blocks(ordered, every))
    while every < recorded and sum(len(block.text) for block in blocks) > episode_bytes:
        every *= 2
        blocks = list(_blocks(ordered, every))
    content |= {"every": every, "source": "embedded"}
    return _rendered(ordered, content, blocks, connect="'none'")


def served_page(runs: Sequence[Run], content: Mapping[str, Any]) -> str:
    """Return the page about some runs without any episode: it asks its server for the rest."""
    return _rendered(runs, content, (), connect="'self'")


def served_every(runs: Sequence[Run]) -> int:
    """Return which share of the groups a served page asks for: every n-th."""
    return -(-recorded_bytes(runs) // SERVED_BYTES) or 1


def in_order(runs: Sequence[Run], content: Mapping[str, Any]) -> list[Run]:
    """Return the runs as a summary counts them: grouped by method."""
    by_folder = {str(run.folder): run for run in runs}
    return [by_folder[one["folder"]] for one in content["runs"]]


def compressed(tree: Any) -> bytes:
    """Return values as JSON in gzip, the same at any time."""
    return gzip.compress(json.dumps(tree).encode(), compresslevel=6, mtime=0)


def _blocks(runs: Sequence[Run], every: int) -> Iterator[Block]:
    for number, run in enumerate(runs):
        for step in run.transcripts:
            if found := episodes(run, step, every):
                yield Block(kind="episodes", run=number, step=step, text=_packed(found))
        for step in run.evaluated:
            if found := evaluated(run, step, every):
                yield Block(kind="evaluated", run=number, step=step, text=_packed(found))


def _packed(tree: Any) -> str:
    return base64.b64encode(compressed(tree)).decode()


def _rendered(
    runs: Sequence[Run], content: Mapping[str, Any], blocks: Sequence[Block], *, connect: str
) -> str:
    script = "\n".join(_file(name) for name in _SCRIPTS)
    plotly = _plotly()
    names = distinct_names(runs)
    return _template().render(
        title=", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else ""),
        summary=content,
        blocks=blocks,
        connect=connect,
        style=Markup(_file("page.css")),
        script=Markup(script),
        script_hashes=[_hash(script), plotly.hash],
        plotly=plotly.packed,
    )


def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    return environment.from_string(_file("page.html"))


def _file(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """Return what allows this script, and only this, in a content security policy."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


@dataclass(frozen=True, slots=True)
class _Packed:
    """A script, compressed, and its hash."""

    packed: str
    hash: str


@cache
def _plotly() -> _Packed:
    from plotly.offline import get_plotlyjs

    source: str = get_plotlyjs()
    packed = base64.b64encode(gzip.compress(source.encode(), mtime=0)).decode()
    return _Packed(packed=packed, hash=_hash(source))
