"""[edge] A server as a process group that is started and ended as a whole.

A server consists of several processes, of which the first may die (or exit with status 0) and leave
the others behind, holding ports and memory. So each server leads its own process group; it is alive
while its process is there, healthy while `/health` answers, and ended together with the group. It
also ends when its parent does, even by kill -9.
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
_WITH_PARENT = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG, which lasts over exec
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes the command in its arguments, which then gets SIGTERM when its parent ends."""


class ServerError(UserError):
    """A server ended, does not answer or refuses a request."""


class ServerProcess:
    """A running server: the leader of a process group that `kill` ends as a whole."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.port = port
        self._process = process
        self._log = log

    @property
    def alive(self) -> bool:
        """Whether the server's process is there."""
        return self._process.poll() is None

    @property
    def healthy(self) -> bool:
        """Whether the server answers and its engine is up."""
        connection = HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    @property
    def last_output(self) -> str:
        """The end of the server's output."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-_LAST_CHARS:]

    def wait_until_healthy(self, timeout_s: float) -> None:
        """Return when the server answers.

        Raises:
            ServerError: it ended before, with the end of its output, or did not answer in time.
        """
        deadline = time.monotonic() + timeout_s
        while not self.healthy:
            if not self.alive:
                raise ServerError(f"the server on port {self.port} ended:\n{self.last_output}")
            if time.monotonic() > deadline:
                raise ServerError(f"the server on port {self.port} is silent for {timeout_s:g} s")
            time.sleep(POLL_S)

    def kill(self) -> None:
        """Kill every process of the group at once."""
        with suppress(ProcessLookupError):  # the group is empty
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def end(self, grace_s: float = 15.0) -> None:
        """Let running calls finish for `grace_s`, then kill the rest of the group."""
        try:
            self._process.terminate()
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.kill()


def ending_with_parent(command: Sequence[str]) -> list[str]:
    """Return a command that does the same, and gets SIGTERM when the thread that starts it ends.

    This is a service of Linux; elsewhere it goes on alone.
    """
    return [sys.executable, "-c", _WITH_PARENT, str(os.getpid()), *command]


def free_port() -> int:
    """Return a port that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


@contextmanager
def run_server(
    command: Sequence[str], port: int, environment: Mapping[str, str]
) -> Iterator[ServerProcess]:
    """Yield a server that is started in its own process group; end the group afterwards.

    The server also ends when the thread that started it does.

    Raises:
        UserError: the port is taken by another server.
    """
    with socket.socket() as probe:
        if probe.connect_ex((HOST, port)) == 0:
            raise UserError(f"port {port} is taken: something answers there")
    with tempfile.TemporaryDirectory(prefix="eapo-expert-") as folder:
        log = Path(folder) / f"{port}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ending_with_parent(command),
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
