"""[edge] A coroutine that runs in another thread while this one computes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Any, TypeVar

T = TypeVar("T")

_HEAD_START_S = 2.0
"""How long a coroutine may compute before the context is entered."""
_CALM_S, _BUSY_S = 0.01, 0.001
"""A loop waits whose rounds have been shorter than the second for as long as the first."""

_PATIENCE_S = 10.0
"""How long a coroutine may take to end after it was cancelled."""


@contextmanager
def in_background(
    runner: asyncio.Runner, coroutine: Coroutine[Any, Any, T]
) -> Iterator[Callable[[], T]]:
    """Run a coroutine on the runner's event loop, in another thread, during the context.

    Enters the context once the coroutine waits, such as for servers that have got all their first
    prompts: what runs beside it would delay them, and they would have nothing to do. Yields a
    function that waits for the coroutine and returns its result, or raises its error.
    Leaving the context before that cancels the coroutine, and waits until it has ended, for ten
    seconds at most.

    The thread borrows the loop instead of making one, so that connections that the loop's
    coroutines opened stay open. Nothing else may run on the loop meanwhile.
    """
    loop = runner.get_loop()
    task = loop.create_task(coroutine)
    waits = Event()
    ended = Event()  # in Python 3.11, a join that Ctrl-C interrupts takes the thread for stopped

    def finish() -> None:
        try:
            runner.run(_until_it_waits(task))
            waits.set()
            runner.run(asyncio.wait([task]))
        finally:
            waits.set()
            ended.set()

    def result() -> T:
        ended.wait()
        return task.result()

    thread = Thread(target=finish, name="eapo-background", daemon=True)
    thread.start()
    try:
        waits.wait()
        yield result
    finally:
        loop.call_soon_threadsafe(task.cancel)  # does nothing to one that has ended
        _wait_for_end(ended)


async def _until_it_waits(task: asyncio.Task[Any]) -> None:
    """Return once the running loop has had little to do for a moment, or the task has ended."""
    loop = asyncio.get_running_loop()
    latest, calm_since = loop.time() + _HEAD_START_S, loop.time()
    while not task.done() and loop.time() < min(latest, calm_since + _CALM_S):
        before = loop.time()
        await asyncio.sleep(0)  # the loop runs all that is ready
        if loop.time() - before > _BUSY_S:
            calm_since = loop.time()


def _wait_for_end(ended: Event) -> None:
    """Wait for what was told to end; another Ctrl-C does not make that faster."""
    latest = time.monotonic() + _PATIENCE_S
    while not ended.is_set() and time.monotonic() < latest:
        with suppress(KeyboardInterrupt):
            ended.wait(0.1)
