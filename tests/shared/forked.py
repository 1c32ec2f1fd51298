"""Python programs in processes of their own that start at once: forked from one that has torch.

Such a process has all that `python -m MODULE` and `python FILE` have: arguments, environment,
folder, pipes, signals, an exit status. Only the start is another: what a new interpreter imports,
and what it prints meanwhile, is a matter for `command.started` and `programs.py`.

Run as a program, it is the process that the others are forked from: python -m forked SOCKET.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from programs import ENVIRONMENT, ROOT

MAX_REQUEST = 1 << 17
"""Bytes; the environment is the most of it."""
IMPORTED = (
    "eapo_agents.cli",
    "eapo_agents.training.trainer",
    "matplotlib.pyplot",
    "torch.utils.tensorboard",
    "transformers.models.llama.modeling_llama",
)


class Forked:
    """A program that runs, with the part of `subprocess.Popen` that the tests use."""

    def __init__(
        self,
        *program: str | Path,
        env: Mapping[str, str] = ENVIRONMENT,
        cwd: Path = ROOT,
        warnings: str = "default",
    ) -> None:
        """Start `-m MODULE ARGUMENT...` or `FILE ARGUMENT...`; warnings may be an "error"."""
        self.args = [str(word) for word in program]
        request = {"program": self.args, "env": dict(env), "cwd": str(cwd), "warnings": warnings}
        streams = [os.pipe() for _ in range(3)]
        socket.send_fds(_server(), [json.dumps(request).encode()], [write for _, write in streams])
        for _, write in streams:
            os.close(write)
        self._status, self.stdout, self.stderr = (os.fdopen(read) for read, _ in streams)
        self.pid = int(self._status.readline())
        self.returncode: int | None = None

    def __enter__(self) -> Forked:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is not None and self.poll() is None:
            self.kill()
        self.wait()
        for stream in (self._status, self.stdout, self.stderr):
            stream.close()

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.returncode = int(self._status.readline())
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status; minus a signal's number, if that ended it."""
        if self.returncode is None and not select.select([self._status], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        status = self.poll()
        assert status is not None
        return status

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; return what it printed."""
        with ThreadPoolExecutor() as pool:
            output, errors = (pool.submit(one.read) for one in (self.stdout, self.stderr))
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        return output.result(), errors.result()

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as the kernel would."""
        self.send_signal(signal.SIGKILL)


def run_forked(*program: str | Path, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, as `Forked` with `how`."""
    with Forked(*program, **how) as process:
        output, errors = process.communicate()
        return subprocess.CompletedProcess(process.args, process.wait(), output, errors)


@cache
def _server() -> socket.socket:
    """Return the socket of the process that forks; it ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "forked", str(theirs.fileno())]
    process = subprocess.Popen(
        command,
        env=ENVIRONMENT | {"HF_HUB_OFFLINE": "1"},
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# --- in the other processes


def serve(requests: socket.socket) -> None:
    """Fork for each request, until the tests have ended."""
    while True:
        request, streams, _, _ = socket.recv_fds(requests, MAX_REQUEST, 3)
        if not request:
            break
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if os.fork() == 0:
            requests.close()
            run_watched(json.loads(request), *streams)
            return
        for stream in streams:
            os.close(stream)
    with suppress(ChildProcessError):
        while os.wait():
            pass


def run_watched(request: dict[str, Any], told: int, output: int, errors: int) -> None:
    """Run the program in a child; tell its process id, and how it ended."""
    child = os.fork()
    if child == 0:
        os.dup2(output, 1)
        os.dup2(errors, 2)
        for stream in (told, output, errors):
            os.close(stream)
        run(request)
        return
    os.close(output)
    os.close(errors)
    os.write(told, f"{child}\n".encode())
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.write(told, f"{status}\n".encode())
    os._exit(0)


def run(request: dict[str, Any]) -> None:
    """Be the program; its exit or error is this process's."""
    os.setsid()  # a session of its own, by which what it leaves behind is found
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["env"])
    tempfile.tempdir = None  # TMPDIR decides
    os.chdir(request["cwd"])
    if request["warnings"] != "default":
        warnings.simplefilter(request["warnings"])
    match request["program"]:
        case ["-m", module, *arguments]:
            sys.argv, sys.path[0] = [module, *arguments], request["cwd"]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case [file, *arguments]:
            sys.argv, sys.path[0] = [file, *arguments], str(Path(file).parent)
            runpy.run_path(file, run_name="__main__")


def import_all() -> None:
    """Import what trainings import, with the environment that the command does it in."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    for name in IMPORTED:
        import_module(name)


if __name__ == "__main__":
    requests = socket.socket(fileno=int(sys.argv[1]))
    import_all()
    gc.freeze()  # the forked ones would copy what the collector touches
    serve(requests)
