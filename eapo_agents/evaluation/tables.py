"""Tables as values, for the console and for Markdown; texts escaped for either."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eapo_agents.evaluation.metrics import PairedDifference

if TYPE_CHECKING:
    from rich.table import Table as RichTable

_MARKS = re.compile(r"([\\`*_\[\]<>|&~#!$])")
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A title, a header, and rows of as many cells as the header."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def rich(self) -> RichTable:
        """Return the table for a rich console; the first column is aligned left."""
        from rich.markup import escape
        from rich.table import Table as RichTable

        drawn = RichTable(title=escape(visible(self.title)))
        for number, name in enumerate(self.header):
            drawn.add_column(escape(visible(name)), justify="right" if number else "left")
        for row in self.rows:
            drawn.add_row(*(escape(visible(cell)) for cell in row))
        return drawn

    def markdown(self) -> str:
        """Return the table in Markdown, under its title."""
        bars = ["---", *["--:"] * (len(self.header) - 1)]
        lines = [map(escaped, self.header), bars, *(map(escaped, row) for row in self.rows)]
        return f"{self.title}:\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def first_distinct(*namings: Sequence[str]) -> Sequence[str]:
    """Return the first of several lists of names that has no duplicates, or else the last."""
    return next((one for one in namings if len(set(one)) == len(one)), namings[-1])


def difference_cells(found: PairedDifference) -> tuple[str, str, str]:
    """Return a difference in points, its interval, and its p-value."""
    low, high = (f"{100 * bound:+.1f}" for bound in found.interval)
    p_value = f"{found.p_value:.3f}" if found.p_value >= 0.001 else "< 0.001"
    return f"{100 * found.mean:+.1f}", f"{low} to {high}", p_value


def visible(text: str) -> str:
    """Return a text with its invisible characters written as escapes.

    Control characters, which a terminal executes, and marks that reorder or hide text become
    `\\x1b` or `\\u202e`; tabs and line ends stay.
    """
    return "".join(
        one if one in "\n\t" or unicodedata.category(one) not in _INVISIBLE else _code(one)
        for one in text
    )


def escaped(text: str) -> str:
    """Return a text as one line of Markdown without any markup in effect."""
    return _MARKS.sub(r"\\\1", " ".join(visible(text).split()))


def fenced(text: str) -> str:
    """Return a text as a Markdown code block, whose fence is longer than any in the text."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{visible(text)}\n{fence}\n"


def _code(one: str) -> str:
    number = ord(one)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
