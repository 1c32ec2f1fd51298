"""The helper process of the verifier: imports sympy once, forks one child for every check.

Run by path as a program (`verifier.py` does); never imported by the package. A line of JSON on
standard input, `[answer, gold]`, is acknowledged at once and answered by one line with a status.
The child that does the work has limits on CPU time, address space and wall time (twice the CPU
time), and may open no file; it dies with this process, and this process with its parent.
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


def answer_requests(check: Check, *, cpu_s: float, memory_bytes: int, channel: int) -> None:
    """Answer requests from standard input on `channel` until the parent closes it or is gone."""
    parent = os.getppid()
    os.write(channel, READY)
    buffer = b""
    while os.getppid() == parent:
        if not select.select([0], [], [], _POLL_S)[0]:
            continue
        received = os.read(0, 65_536)
        if not received:
            return
        buffer += received
        if buffer.endswith(b"\n"):
            os.write(channel, ACKNOWLEDGED)
            answer, gold = json.loads(buffer)
            buffer = b""
            status = _checked_in_child(check, answer, gold, cpu_s, memory_bytes)
            os.write(channel, status.encode() + b"\n")


def _checked_in_child(check: Check, answer: str, gold: str, cpu_s: float, memory_bytes: int) -> str:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = b"wrong"
        try:
            _confine(cpu_s, memory_bytes)
            status = b"correct" if check(answer, gold) else b"wrong"
        except MemoryError:
            status = b"memory"
        except RecursionError:
            status = b"too_complex"
        except BaseException:
            status = b"wrong"
        finally:
            os.write(writer, status)
            os._exit(0)
    os.close(writer)
    outcome = _outcome(child, reader, 2 * cpu_s)
    os.close(reader)
    return outcome


def _outcome(child: int, reader: int, wall_s: float) -> str:
    """Wait for the child's status, at most `wall_s`, and leave no process behind."""
    deadline = time.monotonic() + wall_s
    written, parent = b"", os.getppid()
    while not written and (left := deadline - time.monotonic()) > 0:
        ready = select.select([reader, 0], [], [], min(left, _POLL_S))[0]
        if 0 in ready or os.getppid() != parent:
            os.kill(child, signal.SIGKILL)
            os._exit(0)
        if reader in ready:
            written = os.read(reader, 64)
            break
    else:
        os.kill(child, signal.SIGKILL)
    _, code = os.waitpid(child, 0)
    if written:
        return written.decode()
    if os.WIFSIGNALED(code) and os.WTERMSIG(code) in (signal.SIGSEGV, signal.SIGBUS):
        return "too_complex"
    if os.WIFSIGNALED(code) and os.WTERMSIG(code) == signal.SIGABRT:
        return "memory"
    return "timeout"


def _confine(cpu_s: float, memory_bytes: int) -> None:
    """Limit this process; the default action of the timer's signal ends it."""
    _die_with_parent()
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    seconds = int(cpu_s) + 2
    _limit(resource.RLIMIT_CPU, seconds)
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
    answer_requests(check, cpu_s=cpu_s, memory_bytes=memory_bytes, channel=channel)


if __name__ == "__main__":
    _main()
