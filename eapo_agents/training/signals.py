"""[edge] Ctrl-C and SIGTERM: work in progress ends in order; the exit status names the signal."""

from __future__ import annotations

import os
import signal
import sys
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Timer, current_thread, main_thread
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

AGAIN_S = 0.01
"""How long after a signal that was lost it is sent again."""

_Handler = Callable[[int, FrameType | None], None]


@contextmanager
def interruption(message: Callable[[], str] = lambda: "") -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether Ctrl-C or SIGTERM came; a second one acts at once.

    The first signal restores the previous handlers of both, and is passed on to its own, whose
    KeyboardInterrupt is suppressed.
    Signals reach the main thread only: in another thread the function always returns False.

    Args:
        message: returns what the first signal prints on standard error, if anything.
    """
    came = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        for each, former in before.items():
            signal.signal(each, former)
        with suppress(KeyboardInterrupt):
            if callable(before[number]):
                before[number](number, frame)
        if text := message():
            os.write(2, f"\n{text}\n".encode())  # a stream may be in the middle of a write

    with _handlers({signal.SIGINT: note, signal.SIGTERM: note}) as before:
        yield lambda: came


def report_all_but_ctrl_c(loop: AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report what a task raised and nobody awaits, as asyncio does, unless it is Ctrl-C.

    A second Ctrl-C is raised in whatever runs at that moment, which may be any task.
    """
    if not isinstance(context.get("exception"), KeyboardInterrupt):
        loop.default_exception_handler(context)


@contextmanager
def termination() -> Iterator[Callable[[], int]]:
    """Treat SIGTERM as Ctrl-C; yield a function that returns the exit status of an interruption.

    It is 128 plus the number of the signal, as in shells: 143 after SIGTERM, else 130.
    A signal whose KeyboardInterrupt Python ignores, since it is raised in a `__del__` or in the
    callback of a weak reference, is sent again a moment later.
    """
    status = 128 + signal.SIGINT

    def terminate(number: int, frame: FrameType | None) -> None:
        nonlocal status
        status = 128 + number
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):
            raise KeyboardInterrupt
        handler(signal.SIGINT, frame)

    def send_again() -> None:
        os.kill(os.getpid(), status - 128)

    def ignored(unraisable: UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            Timer(AGAIN_S, send_again).start()
        else:
            report(unraisable)

    report = sys.unraisablehook
    sys.unraisablehook = ignored
    try:
        with _handlers({signal.SIGTERM: terminate}):
            yield lambda: status
    finally:
        sys.unraisablehook = report


@contextmanager
def _handlers(wanted: dict[signal.Signals, _Handler]) -> Iterator[dict[int, Any]]:
    """Install handlers for the context, in the main thread only; yield the previous ones."""
    before: dict[int, Any] = {}
    try:
        if current_thread() is main_thread():
            for number, handler in wanted.items():
                before[number] = signal.signal(number, handler)
        yield before
    finally:
        for restored, former in before.items():
            signal.signal(restored, former)
