"""One background event loop per process: for synchronous callers, and for code that may block.

It works from any thread, also from one that is itself running an event loop (Jupyter), because the
coroutine runs in a separate thread. The thread is a daemon, started at the first use; a forked
child starts another; at exit the loop shuts down, so that everything opened in it closes. A loop
that a coroutine blocks is abandoned for another one.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_EXIT_PATIENCE_S = 2.0

_lock = threading.Lock()
_current: _BackgroundLoop | None = None
_inherited: list[_BackgroundLoop] = []


class _BackgroundLoop:
    """An event loop and the daemon thread that runs it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._serve, name="eapo-event-loop", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(_EXIT_PATIENCE_S)

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


@dataclass(frozen=True, slots=True)
class Submitted(Generic[T]):
    """A coroutine on the background event loop.

    Args:
        future: its result; cancelling it cancels the coroutine.
    """

    future: Future[T]
    _background: _BackgroundLoop

    def abandon_loop(self) -> None:
        """Leave the loop to what blocks it: later coroutines run on another one."""
        global _current
        with _lock:
            if _current is self._background:
                _current = None


def submit(coroutine: Coroutine[Any, Any, T]) -> Submitted[T]:
    """Start a coroutine on this process's background event loop.

    Raises:
        RuntimeError: called from a coroutine that already runs on the background loop: await there.
    """
    background = _background()
    if threading.current_thread() is background.thread:
        coroutine.close()
        raise RuntimeError("event_loop.run would wait for itself here: await the coroutine instead")
    return Submitted(asyncio.run_coroutine_threadsafe(coroutine, background.loop), background)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine, run on this process's background event loop.

    Blocks the calling thread only. Exceptions of the coroutine are raised here; interrupting the
    wait (Ctrl-C) cancels the coroutine.

    Raises:
        RuntimeError: as `submit`.
    """
    future = submit(coroutine).future
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _background() -> _BackgroundLoop:
    global _current
    with _lock:
        if _current is None:
            _current = _BackgroundLoop()
        return _current


def _forget_after_fork() -> None:
    # The child has the loop but not its thread. The loop is kept, not closed: closing it would
    # unregister the wake-up pipe from the epoll instance that it still shares with the parent.
    global _lock, _current
    _lock = threading.Lock()
    if _current is not None:
        _inherited.append(_current)
    _current = None


def _stop_at_exit() -> None:
    if _current is not None:
        _current.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
atexit.register(_stop_at_exit)
