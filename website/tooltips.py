"""Tooltips: the first mention of a word of the glossary on a page says what the word means.

The extension `abbr` of Python-Markdown finds all mentions; the one here leaves the first of each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree.ElementTree import Element

from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor

_ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \| `[^|]*\|$", re.MULTILINE)
_EVERYDAY = {"algorithm", "event", "kind", "problem", "report", "run", "step", "table", "turn"}
"""Words that pages also use in their everyday sense."""
_WITHOUT = {"a", "em", "h1", "h2", "h3", "h4", "h5", "h6"}


def meanings(glossary: str) -> dict[str, str]:
    """Return words of a glossary's tables with their meanings as plain text; no everyday words."""
    found = {
        word.strip(): re.sub(r"[`*]", "", meaning).strip()
        for word, meaning in _ROW.findall(glossary)
    }
    return {word: meaning for word, meaning in found.items() if word not in _EVERYDAY}


def definitions(words: Mapping[str, str]) -> str:
    """Return what tells the extension `abbr` of words, their plurals and capitals."""
    return "\n".join(
        f"*[{form}{plural}]: {meaning}"
        for word, meaning in words.items()
        for form in dict.fromkeys((word, word[:1].upper() + word[1:]))
        for plural in ("", "s")
    )


class FirstMentions(Treeprocessor):
    """Removes the tooltips of later mentions, and those in headings, links and titles."""

    def run(self, root: Element) -> None:
        """Turn the superfluous `abbr` elements of a page into `span`s."""
        self._clear(root, set(), wanted=True)

    def _clear(self, element: Element, seen: set[str], *, wanted: bool) -> None:
        for child in element:
            if child.tag == "abbr":
                title = child.get("title", "")
                if not wanted or title in seen:
                    child.tag = "span"
                    del child.attrib["title"]
                else:
                    seen.add(title)
                    child.set("tabindex", "0")  # for keys, and for screens that are touched
            self._clear(child, seen, wanted=wanted and child.tag not in _WITHOUT)


class Tooltips(Extension):
    """The Markdown extension that adds the tooltips."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Run after `abbr`, whose priority is 7."""
        md.treeprocessors.register(FirstMentions(md), "first_mentions", 6)


def makeExtension(**settings: object) -> Tooltips:
    """Return the extension; Markdown calls this."""
    return Tooltips(**settings)
