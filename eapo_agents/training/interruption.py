"""[edge] Ctrl-C and SIGTERM: what is under way ends in order; the exit status says which came."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

_Handler = Callable[[int, FrameType | None], None]


@contextmanager
def interruption() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether Ctrl-C or SIGTERM came; a second one acts at once.

    The handlers from before hear of the first one too, without stopping anything. Signals reach
    the main thread only: in another one, nothing ever came.
    """
    came = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        signal.signal(number, before[number])
        with suppress(KeyboardInterrupt):
            if callable(before[number]):
                before[number](number, frame)

    with _handlers({signal.SIGINT: note, signal.SIGTERM: note}) as before:
        yield lambda: came


@contextmanager
def termination() -> Iterator[Callable[[], int]]:
    """Let SIGTERM do what Ctrl-C does; yield a function that returns the status to exit with.

    That is 128 and the signal's number, as shells have it: 143 after SIGTERM, else 130.
    """
    status = 128 + signal.SIGINT

    def terminate(number: int, frame: FrameType | None) -> None:
        nonlocal status
        status = 128 + number
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):
            raise KeyboardInterrupt
        handler(signal.SIGINT, frame)

    with _handlers({signal.SIGTERM: terminate}):
        yield lambda: status


@contextmanager
def _handlers(wanted: dict[signal.Signals, _Handler]) -> Iterator[dict[int, Any]]:
    """Install handlers meanwhile, if this is the main thread; yield those from before."""
    before: dict[int, Any] = {}
    try:
        if current_thread() is main_thread():
            for number, handler in wanted.items():
                before[number] = signal.signal(number, handler)
        yield before
    finally:
        for restored, former in before.items():
            signal.signal(restored, former)
