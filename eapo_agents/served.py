"""[edge] A model served on loopback behind the OpenAI interface, for programs that ask over HTTP.

vLLM's own server where vLLM is installed, else `transformers serve`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec

from eapo_agents.serve_expert import ExpertServers
from eapo_agents.server_process import HOST, free_port, running


@dataclass(frozen=True, slots=True)
class Served:
    """Where a model answers, and under which name."""

    base_url: str
    name: str


@contextmanager
def served(model: str, *, start_timeout_s: float = 1800.0) -> Iterator[Served]:
    """Serve a model folder or hub id on a free port while the context lasts.

    Raises:
        ChildProcessError: the server ended before it answered; the end of its output is in it.
        TimeoutError: it did not answer in time.
    """
    port = free_port()
    address = Served(f"http://{HOST}:{port}/v1", model)
    if find_spec("vllm"):
        with ExpertServers(model=model, port=port, start_timeout_s=start_timeout_s).run():
            yield address
    else:
        with running(_transformers(model, port), port, environment={}) as server:
            server.wait_until_healthy(start_timeout_s)
            yield address


def _transformers(model: str, port: int) -> list[str]:
    serve = [sys.executable, "-m", "transformers.cli.transformers", "serve", model]
    return [*serve, "--host", HOST, "--port", str(port)]
