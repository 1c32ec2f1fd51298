"""Killable helper processes that check answers: started on first use, replaced when they fail.

The pool is shared by all threads of a process. A helper is leased for one check at a time, and a
batch is spread over the free helpers. A helper that died or does not acknowledge a request is
replaced and the check repeated, so that a lost helper changes no verdict. After a fork the child
starts its own helpers.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path

from eapo_env.verifier_worker import ACKNOWLEDGED, READY, WALL_FACTOR

_START_S = 60.0
_ACKNOWLEDGE_S = 5.0
_GRACE_S = 2.0
_ATTEMPTS = 3
_REMEMBERED = 4096
_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME")


class _HelperError(Exception):
    """A helper died, hung, or could not start, for a reason other than its check."""


class _Helper:
    """One helper process and the two pipes to it."""

    def __init__(self, cpu_s: float, memory_bytes: int) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                str(Path(__file__).with_name("verifier_worker.py")),
                str(cpu_s),
                str(memory_bytes),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=_environment(),
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.requests, self.replies = self.process.stdin, self.process.stdout
        self.wall_s = WALL_FACTOR * cpu_s + _GRACE_S
        self.waiting_for: list[bytes] = [READY]
        self.deadline = time.monotonic() + _START_S
        self.buffer = b""

    def send(self, answer: str, gold: str) -> None:
        """Write a request; a helper whose pipe is broken is noticed when its reply is read."""
        try:
            self.requests.write(json.dumps([answer, gold]).encode() + b"\n")
        except OSError as error:
            raise _HelperError from error
        self.waiting_for.append(ACKNOWLEDGED)
        if self.waiting_for[0] is ACKNOWLEDGED:
            self.deadline = time.monotonic() + _ACKNOWLEDGE_S

    @property
    def has_started(self) -> bool:
        """Whether the helper ever reported that its imports are done."""
        return READY not in self.waiting_for

    def read(self) -> str | None:
        """Read the helper's output; return the status once it is complete."""
        received = os.read(self.replies.fileno(), 4096)
        if not received:
            raise _HelperError
        self.buffer += received
        while b"\n" in self.buffer:
            line, self.buffer = self.buffer.split(b"\n", 1)
            if not self.waiting_for:
                return line.decode()
            if line + b"\n" != self.waiting_for.pop(0):
                raise _HelperError
            wait = _ACKNOWLEDGE_S if self.waiting_for else self.wall_s
            self.deadline = time.monotonic() + wait
        return None

    def stop(self) -> None:
        """Kill the process and close the pipes; its children die with it."""
        self.process.kill()
        self.requests.close()
        self.replies.close()
        self.process.wait()

    def forget(self) -> None:
        """Close this process's copies of the pipes to a helper that belongs to another process."""
        self.requests.close()
        self.replies.close()
        self.process.returncode = 0


class WorkerPool:
    """A pool of at most `num_workers` helper processes, shared by threads.

    A verdict that holds for good (right or wrong) is remembered: the members of a group often give
    the same answer.
    """

    def __init__(self, *, cpu_s: float, memory_bytes: int, num_workers: int) -> None:
        self._cpu_s, self._memory_bytes, self._num_workers = cpu_s, memory_bytes, num_workers
        self._reset()
        _POOLS.add(self)

    def _reset(self) -> None:
        self._free = threading.Condition()
        self._idle: list[_Helper] = []
        self._helpers: set[_Helper] = set()
        self._num_leased = 0
        self._known: dict[tuple[str, str], str] = {}
        self._finalizer = weakref.finalize(self, _stop_all, self._helpers)

    def check(self, pairs: Sequence[tuple[str, str]]) -> list[str]:
        """Return one status per (answer, gold) pair.

        Raises:
            RuntimeError: no helper process can be started.
        """
        statuses = [self._known.get(pair, "") for pair in pairs]
        first = {pair: index for index, pair in reversed([*enumerate(pairs)])}
        attempts = [0] * len(pairs)
        pending = sorted((i for i in first.values() if not statuses[i]), reverse=True)
        running: dict[_Helper, int] = {}
        try:
            while pending or running:
                while pending and (helper := self._lease(wait=not running)):
                    index = pending.pop()
                    running[helper] = index
                    attempts[index] += 1
                    _send(helper, *pairs[index])
                for helper, status in _ready(list(running)):
                    index = running.pop(helper)
                    self._release(helper, alive=status is not None)
                    if status is not None:
                        statuses[index] = status
                        self._remember(pairs[index], status)
                    elif attempts[index] < _ATTEMPTS:
                        pending.append(index)
                    elif helper.has_started:
                        statuses[index] = "timeout"
                    else:
                        raise RuntimeError(_CANNOT_START)
        finally:
            for helper in running:
                self._release(helper, alive=False)
        return [statuses[first[pair]] for pair in pairs]

    def _remember(self, pair: tuple[str, str], status: str) -> None:
        if status in ("correct", "wrong"):
            self._known[pair] = status
            if len(self._known) > _REMEMBERED:
                self._known.pop(next(iter(self._known)), None)

    def close(self) -> None:
        """Stop every helper; running checks continue with new ones."""
        with self._free:
            idle, self._idle = self._idle, []
            leased = self._helpers.difference(idle)
            self._helpers.clear()
        for helper in idle:
            helper.stop()
        for helper in leased:
            helper.process.kill()

    def forget(self) -> None:
        """Drop what a fork inherited: the helpers, and locks that other threads held."""
        for helper in list(self._helpers):
            helper.forget()
        self._finalizer.detach()
        self._reset()

    def _lease(self, *, wait: bool) -> _Helper | None:
        with self._free:
            while self._num_leased >= self._num_workers:
                if not wait:
                    return None
                self._free.wait()
            self._num_leased += 1
            try:
                helper = self._idle.pop() if self._idle else self._started()
            except BaseException:
                self._num_leased -= 1
                raise
        return helper

    def _started(self) -> _Helper:
        helper = _Helper(self._cpu_s, self._memory_bytes)
        self._helpers.add(helper)
        return helper

    def _release(self, helper: _Helper, *, alive: bool) -> None:
        with self._free:
            self._num_leased -= 1
            kept = alive and helper in self._helpers
            if kept:
                self._idle.append(helper)
            else:
                self._helpers.discard(helper)
            self._free.notify()
        if not kept:
            helper.stop()


def _send(helper: _Helper, answer: str, gold: str) -> None:
    try:
        helper.send(answer, gold)
    except _HelperError:
        helper.deadline = 0.0


def _ready(helpers: list[_Helper]) -> list[tuple[_Helper, str | None]]:
    """Wait for news; return the helpers that finished, with None for those that failed."""
    now = time.monotonic()
    left = max(0.0, min(helper.deadline for helper in helpers) - now)
    poll = select.poll()
    for helper in helpers:
        poll.register(helper.replies.fileno(), select.POLLIN)
    readable = {descriptor for descriptor, _ in poll.poll(left * 1000)}
    finished: list[tuple[_Helper, str | None]] = []
    for helper in helpers:
        try:
            if helper.replies.fileno() in readable:
                status = helper.read()
                if status is not None:
                    finished.append((helper, status))
            elif time.monotonic() >= helper.deadline:
                raise _HelperError
        except (_HelperError, OSError, ValueError):
            finished.append((helper, None))
    return finished


def _stop_all(helpers: set[_Helper]) -> None:
    for helper in list(helpers):
        helper.stop()
    helpers.clear()


def _environment() -> dict[str, str]:
    """Return what a helper needs of the environment: where modules are, and no secrets."""
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    paths = [os.path.abspath(path or ".") for path in sys.path]
    return kept | {"PYTHONPATH": os.pathsep.join(paths), "SYMPY_GROUND_TYPES": "python"}


def _forget_after_fork() -> None:
    for pool in list(_POOLS):
        pool.forget()


_CANNOT_START = (
    "the verifier's helper process cannot be started; "
    f"run `{sys.executable} -P {Path(__file__).with_name('verifier_worker.py')} 2 1073741824` "
    "to see why"
)
_POOLS: weakref.WeakSet[WorkerPool] = weakref.WeakSet()
os.register_at_fork(after_in_child=_forget_after_fork)
