"""What the commands print with: the terminal and its progress bars, imported when they are used."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from rich.console import Console
    from rich.progress import Progress


def new_console() -> Console:
    """Return a console that writes to standard output, as wide as the terminal is now."""
    from rich.console import Console

    return Console()


def progress_bars(console: Console, last_column: str = "") -> Progress:
    """Return progress bars: description, bar, count, time, and a column of the caller's.

    In a narrow terminal that column wraps, and leaves the others their room.

    Args:
        console: where they are drawn.
        last_column: its text, in which `{task.fields[NAME]}` is a field of the task.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=min(40, console.width // 8)),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        *([TextColumn(last_column, table_column=Column())] if last_column else []),
        console=console,
    )


def step_display(
    progress: Progress,
    name: str,
    num_steps: int,
    in_brief: Callable[[Mapping[str, float]], str],
    in_full: Callable[[Mapping[str, float]], str],
) -> Callable[[int, Mapping[str, float]], None]:
    """Return a function that shows a training step, given its number and metrics.

    On a terminal they are shown `in_brief` after a progress bar; elsewhere, such as in a log file,
    `in_full` on a line of their own, with the step's time and an estimate of what is left.
    """
    if progress.console.is_terminal:
        bar = progress.add_task(name, total=num_steps, metrics="")
        return lambda step, metrics: progress.update(bar, completed=step, metrics=in_brief(metrics))
    times_s = [time.perf_counter()]

    def show(step: int, metrics: Mapping[str, float]) -> None:
        times_s.append(time.perf_counter())
        left_s = (num_steps - step) * (times_s[-1] - times_s[0]) / (len(times_s) - 1)
        print(
            f"step {step} of {num_steps}: {in_full(metrics)};"
            f" {times_s[-1] - times_s[-2]:.1f} s, about {duration(left_s)} left",
            flush=True,
        )

    return show


def loss_of(metrics: Mapping[str, float]) -> str:
    """Return the loss of a step as text."""
    return f"loss {metrics['loss']:.3f}"


def duration(seconds: float) -> str:
    """Return a time as text, in its two largest units: `42 s`, `7 min 30 s`, `2 h 5 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


@contextmanager
def hint_on_interrupt(console: Console, kept: Path | None) -> Iterator[None]:
    """On Ctrl-C or SIGTERM, print that the same command resumes, if results are kept."""
    try:
        yield
    except KeyboardInterrupt:
        hint = "the same command resumes" if kept else "without a file to write, nothing is kept"
        console.print(f"interrupted; {hint}")
        raise
