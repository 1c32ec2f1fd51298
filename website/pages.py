"""The pages of the site as Markdown: those of `docs/`, and those made from other files and code."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from website import generated
from website.tooltips import definitions, meanings

ROOT = Path(__file__).parents[1]

_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"(?<!\[)`((?:eapo_env|eapo_agents)(?:\.\w+)+)`")
_WITHOUT_TOOLTIPS = ("glossary.md", "settings.md", "commands.md", "CHANGELOG.md")


def pages() -> dict[str, str]:
    """Return the text of each page by its path in the site's source."""
    public = generated.public_names()
    anchors = generated.anchors(public)
    sources = _sources()
    words = definitions(meanings((ROOT / "docs/glossary.md").read_text(encoding="utf-8")))
    made = {
        "environment.md": generated.environment(),
        "settings.md": generated.settings(),
        "commands.md": generated.commands(),
        **generated.reference(public),
    }
    read = {
        page: linked(generated.page_of(ROOT / source), source, sources)
        for source, page in sources.items()
    }
    return {
        page: with_names(text, anchors) + (f"\n\n{words}\n" if has_tooltips(page) else "")
        for page, text in {**read, **made}.items()
    }


def has_tooltips(page: str) -> bool:
    """Return whether words of the glossary have tooltips on a page."""
    folder = page.partition("/")[0]
    return page not in _WITHOUT_TOOLTIPS and folder not in ("reference", "examples")


def linked(text: str, source: str, sources: Mapping[str, str]) -> str:
    """Return a page whose links between files of the repository are links between pages.

    Args:
        text: its Markdown.
        source: the file it comes from; links are relative to it. Paths are the repository's.
        sources: the page of each file that has one.

    Raises:
        ValueError: a link to a Markdown file, a program or a folder that has no page.
    """
    here = PurePosixPath(source).parent
    there = PurePosixPath(sources[source]).parent

    def moved(match: re.Match[str]) -> str:
        path, mark, anchor = match[2].partition("#")
        if "://" in path or not path:
            return match[0]
        target = os.path.normpath(here / path)
        if target in sources:
            page = sources[target]
        elif target.startswith("docs/") and not target.endswith(".md"):
            page = target.removeprefix("docs/")
        else:
            raise ValueError(f"{source} links to {path}, which has no page in the site")
        return f"{match[1]}{os.path.relpath(page, there)}{mark}{anchor}{match[3]}"

    return outside_code(text, lambda prose: _LINK.sub(moved, prose))


def with_names(text: str, anchors: Mapping[str, str]) -> str:
    """Return a page in which the first mention of each public name leads to the reference."""
    seen: set[str] = set()

    def led(match: re.Match[str]) -> str:
        name = match[1]
        while name and name not in anchors:
            name = name.rpartition(".")[0]
        if not name or match[1] in seen:
            return match[0]
        seen.add(match[1])
        return f"[{match[0]}][{anchors[name]}]"

    return outside_code(text, lambda prose: _NAME.sub(led, prose))


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Return a page with a change made outside its fenced code."""
    parts, end = [], 0
    for fence in _FENCE.finditer(text):
        parts += [change(text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(text[end:])])


def _sources() -> dict[str, str]:
    """Return the page of each file that is one, by the file's path in the repository."""
    docs = {
        path.relative_to(ROOT).as_posix(): path.relative_to(ROOT / "docs").as_posix()
        for path in sorted((ROOT / "docs").rglob("*.md"))
        if path.name != "template.md"
    }
    programs = {
        path.relative_to(ROOT).as_posix(): f"{path.parent.name}/{path.stem}.md"
        for pattern in ("examples/*.py", "examples/*.sh", "notebooks/*.ipynb")
        for path in sorted(ROOT.glob(pattern))
    }
    others = {
        "CHANGELOG.md": "CHANGELOG.md",
        "CONTRIBUTING.md": "CONTRIBUTING.md",
        "benchmarks/README.md": "benchmarks.md",
    }
    return docs | programs | others
