"""What becomes of the episodes that a command plays: a file keeps all, two are printed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eapo_agents import evaluation

if TYPE_CHECKING:
    from rich.console import Console

MAX_SHOWN_CHARS = 1000
"""The most characters of a message that are printed."""


def add_transcripts(parser: argparse.ArgumentParser) -> None:
    """Add `--transcripts`."""
    parser.add_argument(
        "--transcripts", type=Path, metavar="FILE", help="write every episode here, a line each"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcripts:
    """Collects episodes.

    Args:
        file: where all of them go, in JSON lines; None for nowhere.
        label: what each row of the file holds beside its episode.
    """

    file: Path | None = None
    label: evaluation.EpisodeRow = field(default_factory=dict)
    _examples: list[evaluation.EpisodeRow] = field(default_factory=list)

    def add(self, set_name: str, attempts: Sequence[Any]) -> None:
        """Add the episodes of one problem."""
        from eapo_env.json_lines import JsonLines

        rows = [{"set": set_name, **self.label, **evaluation.episode_row(one)} for one in attempts]
        if self.file:
            JsonLines(self.file).append(*rows)
        self._examples[:] = evaluation.two_examples([*self._examples, *rows])

    def show(self, console: Console) -> None:
        """Print two of them."""
        for row in self._examples:
            show_episode(console, row)


def show_episode(console: Console, row: evaluation.EpisodeRow) -> None:
    """Print an episode: its verdict and its messages, long ones cut, nothing interpreted."""
    given = f", given {row['given']!r}" if row.get("given") is not None else ""
    console.rule(
        f"example: problem {row['problem_id']}, {row['status']} ({row['stop_reason']}),"
        f" gold answer {row['answer']!r}{given}".replace("[", r"\["),
        align="left",
    )
    for message in row["messages"]:
        _print(console, f"{message['role']}:", style="bold")
        _print(console, _shortened(message["content"]))
    if row["stop_reason"] == "length":
        _print(console, "(cut here by a token limit)", style="bold")


def _print(console: Console, text: str, style: str | None = None) -> None:
    console.print(evaluation.visible(text), style=style, markup=False, highlight=False)


def _shortened(text: str) -> str:
    left_out = len(text) - MAX_SHOWN_CHARS
    return text if left_out <= 0 else f"{text[:MAX_SHOWN_CHARS]} ... ({left_out} characters more)"
