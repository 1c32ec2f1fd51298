"""[edge] One server as a process: the leader of a group that is started and ended as a whole.

A server is a family of processes, of which the first may die (or exit with status 0) and leave the
others behind, holding ports and memory. So each server leads a process group of its own, what
counts is whether its process is there and `/health` answers, and its end is the end of the group.
It is told to end when its parent ends, even by kill -9.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from eapo_env.validation import UserError

HOST = "127.0.0.1"
POLL_S = 0.2
_LAST_CHARS = 2000
_TETHERED = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG, which lasts over exec
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes the command that follows it, which then gets SIGTERM when its parent has ended."""


class ServerProcess:
    """A running server: the leader of a process group that `kill` ends as a whole."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.port = port
        self._process = process
        self._log = log

    @property
    def alive(self) -> bool:
        """Whether the server's process is there; its exit status says nothing about why not."""
        return self._process.poll() is None

    @property
    def healthy(self) -> bool:
        """Whether the engine behind the server is up."""
        connection = HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    @property
    def last_words(self) -> str:
        """The end of the server's output."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-_LAST_CHARS:]

    def wait_until_healthy(self, timeout_s: float) -> None:
        """Return when the server answers.

        Raises:
            ChildProcessError: it ended before.
            TimeoutError: it did not in time.
        """
        deadline = time.monotonic() + timeout_s
        while not self.healthy:
            if not self.alive:
                raise ChildProcessError(f"the server on port {self.port} ended:\n{self.last_words}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the server on port {self.port} is silent for {timeout_s:g} s")
            time.sleep(POLL_S)

    def kill(self) -> None:
        """End every process of the group at once, as a machine that fails would."""
        with suppress(ProcessLookupError):  # nobody is left in the group
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def end(self, grace_s: float = 15.0) -> None:
        """Let calls under way finish, then end the whole group, whatever is left of it."""
        try:
            self._process.terminate()
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.kill()


def free_port() -> int:
    """Return a port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str], port: int, environment: Mapping[str, str]
) -> Iterator[ServerProcess]:
    """Start a server in a process group of its own; end the group afterwards.

    The server also ends when the thread that started it does.

    Raises:
        UserError: the port answers already: another server would be taken for this one.
    """
    with socket.socket() as probe:
        if probe.connect_ex((HOST, port)) == 0:
            raise UserError(f"port {port} is taken: something answers there")
    with tempfile.TemporaryDirectory(prefix="eapo-expert-") as folder:
        log = Path(folder) / f"{port}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", _TETHERED, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "VLLM_NO_USAGE_STATS": "1", **environment},
            )
        server = ServerProcess(process, port, log)
        try:
            yield server
        finally:
            server.end()
