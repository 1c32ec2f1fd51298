"""What the commands print with: the terminal and its progress bars, imported when they are used."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.console import Console
    from rich.progress import Progress


def new_console() -> Console:
    """Return a console that writes to standard output, as wide as the terminal is now."""
    from rich.console import Console

    return Console()


def progress_bars(console: Console, last_column: str = "") -> Progress:
    """Return progress bars: description, bar, count, time, and a column of the caller's.

    Args:
        console: where they are drawn.
        last_column: its text, in which `{task.fields[NAME]}` is a field of the task.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        *([TextColumn(last_column)] if last_column else []),
        console=console,
    )


@contextmanager
def hint_on_interrupt(console: Console, kept: Path | None) -> Iterator[None]:
    """On Ctrl-C or SIGTERM, print that the same command resumes, if results are kept."""
    try:
        yield
    except KeyboardInterrupt:
        hint = "the same command resumes" if kept else "without a file to write, nothing is kept"
        console.print(f"interrupted; {hint}")
        raise
