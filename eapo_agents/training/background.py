"""[edge] A coroutine that runs in another thread while this one computes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Any, TypeVar

T = TypeVar("T")

_PATIENCE_S = 10.0
"""How long a coroutine may take to end after it was cancelled."""


@contextmanager
def in_background(
    runner: asyncio.Runner, coroutine: Coroutine[Any, Any, T]
) -> Iterator[Callable[[], T]]:
    """Run a coroutine on the runner's event loop, in another thread, during the context.

    Yields a function that waits for the coroutine and returns its result, or raises its error.
    Leaving the context before that cancels the coroutine, and waits until it has ended, for ten
    seconds at most.

    The thread borrows the loop instead of making one, so that connections that the loop's
    coroutines opened stay open. Nothing else may run on the loop meanwhile.
    """
    loop = runner.get_loop()
    task = loop.create_task(coroutine)
    ended = Event()  # in Python 3.11, a join that Ctrl-C interrupts takes the thread for stopped

    def finish() -> None:
        try:
            runner.run(asyncio.wait([task]))
        finally:
            ended.set()

    def result() -> T:
        ended.wait()
        return task.result()

    thread = Thread(target=finish, name="eapo-background", daemon=True)
    thread.start()
    try:
        yield result
    finally:
        loop.call_soon_threadsafe(task.cancel)  # does nothing to one that has ended
        _wait_for_end(ended)


def _wait_for_end(ended: Event) -> None:
    """Wait for what was told to end; another Ctrl-C does not make that faster."""
    latest = time.monotonic() + _PATIENCE_S
    while not ended.is_set() and time.monotonic() < latest:
        with suppress(KeyboardInterrupt):
            ended.wait(0.1)
