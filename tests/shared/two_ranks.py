"""Run a program in two processes, as torchrun does: python -m two_ranks (-m MODULE | FILE) ...

Torch is imported once, before the fork; under torchrun three processes import it.
"""

from __future__ import annotations

import os
import runpy
import signal
import socket
import sys

import eapo_agents.training.trainer  # noqa: F401, for all that it imports


def main(program: list[str]) -> int:
    """Return 0 if both ranks do, else the status of the first that failed; it ends the other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = [_forked(rank, port, program) for rank in (0, 1)]
    ended, status = os.wait()
    if status:
        os.kill(next(child for child in children if child != ended), signal.SIGTERM)
    _, other = os.wait()
    return abs(os.waitstatus_to_exitcode(status or other))


def _forked(rank: int, port: int, program: list[str]) -> int:
    child = os.fork()
    if child:
        return child
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ |= {name: str(number) for name, number in place.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if program[0] == "-m":
        sys.argv = program[1:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = program
        runpy.run_path(sys.argv[0], run_name="__main__")
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
