"""[edge] A coroutine that runs in another thread while this one computes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


@contextmanager
def in_background(
    runner: asyncio.Runner, coroutine: Coroutine[Any, Any, T]
) -> Iterator[Callable[[], T]]:
    """Run a coroutine on the runner's event loop, in another thread, during the context.

    Yields a function that waits for the coroutine and returns its result, or raises its error.
    Leaving the context before that cancels the coroutine, and waits until it has ended.

    The thread borrows the loop instead of making one, so that connections that the loop's
    coroutines opened stay open. Nothing else may run on the loop meanwhile.
    """
    loop = runner.get_loop()
    task = loop.create_task(coroutine)
    thread = Thread(
        target=runner.run, args=(asyncio.wait([task]),), name="eapo-background", daemon=True
    )
    thread.start()

    def result() -> T:
        thread.join()
        return task.result()

    try:
        yield result
    finally:
        loop.call_soon_threadsafe(task.cancel)  # does nothing to one that has ended
        thread.join()
