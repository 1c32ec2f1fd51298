"""The servers of the soak, each a process: experts, and a stand-in for vLLM's policy server.

A reply of an expert is a function of the query, and a completion one of prompt, seed and weights:
the policy decodes one completion at a time. So a training repeats bit for bit whatever its servers
went through, as long as no reply was lost.

How a server behaves is the text of a file, which it reads at every request.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from aiohttp import web
from policy_routes import Handler, Json, PolicyRoutes

from eapo_agents.policies.huggingface import HFPolicy
from eapo_agents.policies.models import ModelSettings, load_model

HOST = "127.0.0.1"
EXPERTS = ("ada", "emmy")
SLOW_S = 0.3
WELL = "well"
_POLL_S = 0.05
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([__name__])  # torch is imported once, not at every restart


@dataclass
class Server:
    """A server that can be killed, stopped and told to misbehave, and always be cured.

    Args:
        behaviour: the file that says how it behaves.
        serve: (port, behaviour) -> never; runs in the server's process.
    """

    behaviour: Path
    serve: Callable[[int, Path], None]
    port: int = field(default_factory=lambda: free_port())
    ports: list[int] = field(default_factory=list)
    _process: ForkServerProcess | None = None

    @property
    def root(self) -> str:
        """The address, without a path."""
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        """Make it serve, and well; returns once it does."""
        self.behave(WELL)
        if self._process is not None and self._process.is_alive():
            self._signal(signal.SIGCONT)
            return
        self._process = _PROCESSES.Process(
            target=self.serve, args=(self.port, self.behaviour), daemon=True
        )
        self._process.start()
        self.ports.append(self.port)
        _await_listening(self.port)

    def move(self) -> None:
        """Serve at another port from now on."""
        self.kill()
        self.port = free_port()
        self.start()

    def behave(self, how: str) -> None:
        """Answer requests in this way from now on."""
        self.behaviour.write_text(how, encoding="utf-8")

    def kill(self) -> None:
        """Kill it, as the kernel would."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.join()

    def stop(self) -> None:
        """Stop the process: its kernel accepts connections, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def is_listening(port: int) -> bool:
    """Return whether anybody listens at a port."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _await_listening(port: int) -> None:
    while not is_listening(port):
        time.sleep(0.01)


def serve_experts(port: int, behaviour: Path) -> None:
    """Serve the experts: each answers with a number that depends on it and on the question."""

    async def answer(body: Json) -> Json:
        question = f"{body['model']}: {body['messages'][-1]['content']}"
        number = zlib.crc32(question.encode("utf-8", "replace")) % 100
        message = {"role": "assistant", "content": str(number)}
        return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}

    async def models(_: Json) -> Json:
        return {"object": "list", "data": [{"id": name} for name in EXPERTS]}

    _serve(port, behaviour, {"/v1/models": models, "/v1/chat/completions": answer})


@dataclass(frozen=True)
class ServePolicy:
    """Serves a model as `eapo serve-policy` does: token ids over HTTP, weights by a file."""

    model: Path

    def __call__(self, port: int, behaviour: Path) -> None:
        """Serve."""
        policy = HFPolicy(*load_model(ModelSettings(path=str(self.model))), max_batch=1)
        _serve(port, behaviour, PolicyRoutes(policy).routes)


def _serve(port: int, behaviour: Path, routes: Mapping[str, Handler]) -> None:
    """Serve until killed, or until the soak has ended."""

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else {}
        refusal = await _misbehave(request, behaviour)
        return refusal or web.json_response(await routes[request.path](body))

    async def run() -> None:
        app = web.Application(client_max_size=2**26)
        for path in routes:
            app.router.add_route("*", path, answer)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, HOST, port, backlog=1024, reuse_address=True).start()
        soak = multiprocessing.parent_process()
        assert soak is not None
        await asyncio.to_thread(soak.join)

    asyncio.run(run())


_NONSENSE: Mapping[str, bytes] = {
    "no JSON": b'{"choices": [{"mess',
    "no choices": b'{"choices": [], "data": []}',
    "wrong types": b'{"choices": {"message": 7}, "data": 7, "success": 7}',
    "no UTF-8": b'{"choices": "\xff\xfe"}',
    "deep": b"[" * 100_000,
    "nothing": b"",
}


async def _misbehave(request: web.Request, behaviour: Path) -> web.StreamResponse | None:
    """Return the answer of a server that behaves so; None of one that is well.

    One that is silent hangs up on those who wait when it is cured, as a restart does.
    """
    kind, _, what = behaviour.read_text(encoding="utf-8").partition(":")
    assert request.transport is not None
    match kind, what:
        case "silent", _:
            while behaviour.read_text(encoding="utf-8") == kind:
                await asyncio.sleep(_POLL_S)
            request.transport.abort()
            return web.Response()
        case "slow", _:
            await asyncio.sleep(SLOW_S)
            return None
        case "status", _:
            return web.json_response({"error": {"message": "not now"}}, status=int(what))
        case "garble", "a page":
            return web.Response(text="<h1>It works!</h1>", content_type="text/html")
        case "garble", "hanging up":
            request.transport.abort()
            return web.Response()
        case "garble", "no HTTP":
            request.transport.write(b"\x00\xff\x16 this is no HTTP\r\n\r\n")
            request.transport.close()
            return web.Response()
        case "garble", _:
            return web.Response(body=_NONSENSE[what], content_type="application/json")
    return None
