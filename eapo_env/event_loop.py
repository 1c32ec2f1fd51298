"""One background event loop per process: for synchronous callers, and for code that may block.

It works from any thread, also from one that is itself running an event loop (Jupyter), because the
coroutine runs in a separate thread. The thread is a daemon, started at the first use; a forked
child starts another; at exit the loop shuts down, so that everything opened in it closes. While a
coroutine blocks the loop, another one takes its place.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar

from eapo_env.validation import UserError

T = TypeVar("T")
P = ParamSpec("P")

_EXIT_PATIENCE_S = 2.0

_lock = threading.Lock()
_loops: list[_BackgroundLoop] = []
"""The oldest one that answers is used: what coroutines made on a loop, they find there again."""
_inherited: list[_BackgroundLoop] = []


class _DaemonThreads(ThreadPoolExecutor):
    """Runs each call in a daemon thread of its own, for which the process does not wait at exit."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=work, name="eapo-blocking-call", daemon=True).start()
        return future


class _BackgroundLoop:
    """An event loop and the daemon thread that runs it.

    Attributes:
        answers: whether nothing is known to block the loop.
    """

    def __init__(self) -> None:
        self.answers = True
        self._stopping = False
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(_DaemonThreads())
        self.thread = threading.Thread(target=self._serve, name="eapo-event-loop", daemon=True)
        self.thread.start()

    def abandon(self) -> None:
        """Leave the loop to what blocks it, until it answers again."""
        self.answers = False
        self.loop.call_soon_threadsafe(setattr, self, "answers", True)

    def stop(self) -> None:
        self._stopping = True
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(_EXIT_PATIENCE_S)

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        while not self._stopping:
            with suppress(BaseException):  # asyncio hands a task's SystemExit to its loop as well
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
        """Run later coroutines on another loop, until what blocks this one has ended."""
        self._background.abandon()


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


def check_no_loop_runs(call: str) -> None:
    """Check that no event loop runs in this thread, for what has a loop of its own.

    Args:
        call: the function and its arguments, for the advice.

    Raises:
        UserError: one runs, as in a notebook; the message says how to call the function there.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise UserError(
        "an event loop runs in this thread, as in a notebook, and this call has a loop of its own;"
        f" call it in a thread: await asyncio.to_thread({call})"
    )


def _background() -> _BackgroundLoop:
    with _lock:
        for background in _loops:
            if background.answers:
                return background
        _loops.append(_BackgroundLoop())
        return _loops[-1]


def _forget_after_fork() -> None:
    # The child has the loops but not their threads. They are kept, not closed: closing one would
    # unregister the wake-up pipe from the epoll instance that it still shares with the parent.
    global _lock
    _lock = threading.Lock()
    _inherited.extend(_loops)
    _loops.clear()


def _stop_at_exit() -> None:
    for background in _loops:
        if background.answers:
            background.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
atexit.register(_stop_at_exit)
