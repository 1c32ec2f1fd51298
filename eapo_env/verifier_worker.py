"""The helper process of the verifier: imports sympy once, forks a child that does the checks.

Run by path as a program (`verifier.py` does); never imported by the package. A line of JSON on
standard input, `[answer, gold]`, is acknowledged at once and answered by one line with a status.
The child has limits on address space, and for each check on CPU time and wall time (ten times the
CPU time); it may open no file. A check that reaches a limit ends the child, and the next one gets a
new child. It dies with this process, and this process with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

Check = Callable[[str, str], bool | None]

READY, ACKNOWLEDGED = b"ready\n", b"ack\n"
WALL_FACTOR = 10
"""Wall time of a check at most, in its CPU times: a loaded machine changes no verdict."""
CHECKS_PER_CHILD = 200
_GOES_ON = ("correct", "wrong")
_POLL_S = 0.5
_PR_SET_PDEATHSIG = 1
_WARM_UP = (
    ("\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt{2}}"),
    ("\\sin^{-1}(x)+\\ln|x|+e^{x}+i", "x^{2/3}-\\log_2 x+\\binom{n}{2}+5!"),
    ("\\begin{vmatrix}1&2\\\\3&4\\end{vmatrix}+x", "\\int_0^1 x^2 dx+\\sum_{k=1}^{3} k+x"),
    ("x^2<3y", "3y>x^2"),
    ("\\lfloor x\\rfloor+\\tan 2", "f(x)+|x|+\\lim_{t\\to 0} t+\\max(x,2)"),
    ("\\{1,2\\}\\cap A", "A\\cap\\{2,1\\}"),
)


def answer_requests(
    check: Check, *, cpu_s: float, wall_s: float, memory_bytes: int, channel: int
) -> None:
    """Answer requests from standard input on `channel` until the parent closes it or is gone."""
    parent = os.getppid()
    os.write(channel, READY)
    buffer = b""
    child: _Child | None = None
    while os.getppid() == parent:
        if not select.select([0], [], [], _POLL_S)[0]:
            continue
        received = os.read(0, 65_536)
        if not received:
            break
        buffer += received
        if buffer.endswith(b"\n"):
            os.write(channel, ACKNOWLEDGED)
            if child is None:
                child = _Child(check, cpu_s, memory_bytes)
            status, goes_on = child.check(buffer, wall_s)
            buffer = b""
            if not goes_on:
                child = None
            os.write(channel, status.encode() + b"\n")
    if child is not None:
        child.end()


class _Child:
    """A confined process that does check after check, until one of them ends it."""

    def __init__(self, check: Check, cpu_s: float, memory_bytes: int) -> None:
        requests, self._requests = os.pipe()
        self._statuses, statuses = os.pipe()
        self._left = CHECKS_PER_CHILD
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._requests)
                os.close(self._statuses)
                _confine(cpu_s, memory_bytes)
                _serve(check, cpu_s, requests, statuses)
            finally:
                os._exit(0)
        os.close(requests)
        os.close(statuses)

    def check(self, request: bytes, wall_s: float) -> tuple[str, bool]:
        """Return the status of a request, and whether the child goes on; at most `wall_s` long."""
        self._left -= 1
        deadline = time.monotonic() + wall_s
        parent = os.getppid()
        os.write(self._requests, request)
        while (left := deadline - time.monotonic()) > 0:
            ready = select.select([self._statuses, 0], [], [], min(left, _POLL_S))[0]
            if 0 in ready or os.getppid() != parent:
                os.kill(self._pid, signal.SIGKILL)
                os._exit(0)
            if self._statuses in ready:
                status = os.read(self._statuses, 64).decode()
                if status in _GOES_ON and self._left > 0:
                    return status, True
                return status or _cause_of_death(self.end()), False
        self.end()
        return "timeout", False

    def end(self) -> int:
        """Leave no process behind; return how it ended."""
        os.close(self._requests)
        os.close(self._statuses)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        return os.waitpid(self._pid, 0)[1]


def _serve(check: Check, cpu_s: float, requests: int, statuses: int) -> None:
    """Check what is requested; the timer's signal, by its default action, ends the process."""
    buffer = b""
    while received := os.read(requests, 65_536):
        buffer += received
        if not buffer.endswith(b"\n"):
            continue
        status = "wrong"
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        try:
            answer, gold = json.loads(buffer)
            status = "correct" if check(answer, gold) else "wrong"
        except MemoryError:
            status = "memory"
        except RecursionError:
            status = "too_complex"
        except Exception:
            status = "wrong"
        signal.setitimer(signal.ITIMER_PROF, 0)
        buffer = b""
        os.write(statuses, status.encode())


def _cause_of_death(code: int) -> str:
    if os.WIFSIGNALED(code) and os.WTERMSIG(code) in (signal.SIGSEGV, signal.SIGBUS):
        return "too_complex"
    if os.WIFSIGNALED(code) and os.WTERMSIG(code) == signal.SIGABRT:
        return "memory"
    return "timeout"


def _confine(cpu_s: float, memory_bytes: int) -> None:
    """Limit this process for good: memory, files, and the processor time of all its checks."""
    _die_with_parent()
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    _limit(resource.RLIMIT_CPU, int(cpu_s * CHECKS_PER_CHILD) + 2)
    _limit(resource.RLIMIT_AS, memory_bytes)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, 0)


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


def _die_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _load_check() -> Check:
    """Import the checker without the package's own `__init__`, which would import gymnasium."""
    package = ModuleType("eapo_env")
    package.__path__ = [str(Path(__file__).parent)]
    sys.modules["eapo_env"] = package
    from eapo_env.canonical import canonical
    from eapo_env.structure import equivalent
    from eapo_env.symbolic import symbolic_scalar

    def check(answer: str, gold: str) -> bool | None:
        return equivalent(canonical(answer), canonical(gold), symbolic_scalar)

    for answer, gold in _WARM_UP:
        with contextlib.suppress(Exception):
            check(answer, gold)
    return check


def _main() -> None:
    cpu_s, memory_bytes = float(sys.argv[1]), int(sys.argv[2])
    channel = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    check = _load_check()
    ctypes.CDLL(None)
    gc.collect()
    gc.freeze()
    answer_requests(
        check,
        cpu_s=cpu_s,
        wall_s=WALL_FACTOR * cpu_s,
        memory_bytes=memory_bytes,
        channel=channel,
    )


if __name__ == "__main__":
    _main()
