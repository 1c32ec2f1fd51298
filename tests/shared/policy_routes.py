"""What `eapo serve-policy` answers, by a policy in this process; and a server of it in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

from aiohttp import web
from safetensors.torch import load_file

from eapo_agents.policies.policy import Policy, Sampling, Truncation

Json = dict[str, Any]
Handler = Callable[[Json], Awaitable[Json]]


@dataclass(frozen=True)
class PolicyRoutes:
    """The routes of a policy's server: token ids over HTTP, weights by a file.

    Args:
        policy: completes the prompts.
        name: of the served model.
        workers: the server says that it has so many.
        asked: the bodies of the requests, by route.
    """

    policy: Policy
    name: str = "policy"
    workers: int = 1
    asked: dict[str, list[Json]] = field(default_factory=dict)

    @property
    def routes(self) -> Mapping[str, Handler]:
        """The routes by their paths."""
        return {
            "/v1/models": self.models,
            "/v1/completions": self.complete,
            "/get_world_size": self.world_size,
            "/init_weight_transfer_engine": self.accept,
            "/start_weight_update": self.accept,
            "/update_weights": self.update_weights,
            "/finish_weight_update": self.accept,
            "/reset_prefix_cache": self.accept,
        }

    async def models(self, _: Json) -> Json:
        return {"data": [{"id": self.name, "max_model_len": self.policy.max_context_tokens}]}

    async def world_size(self, _: Json) -> Json:
        return {"world_size": self.workers}

    async def complete(self, body: Json) -> Json:
        sampling = Sampling(
            max_tokens=body["max_tokens"],
            temperature=body["temperature"],
            stop=tuple(body["stop"] or ()),
            truncation=Truncation(**{name: body[name] for name in ("top_p", "top_k", "min_p")}),
        )
        done = await self.policy.complete(body["prompt"], sampling, body["seed"])
        logprobs = {"token_logprobs": done.logprobs}
        choice = {
            "finish_reason": done.finish,
            "token_ids": done.token_ids,
            "logprobs": logprobs,
        }
        return {"choices": [choice]}

    async def update_weights(self, body: Json) -> Json:
        self.policy.load_weights(load_file(body["update_info"]["path"]))
        return {}

    async def accept(self, _: Json) -> Json:
        return {"success": True}

    async def answer(self, request: web.Request) -> web.Response:
        """Answer a request, and record it."""
        body = await request.json() if request.can_read_body else {}
        self.asked.setdefault(request.path, []).append(body)
        return web.json_response(await self.routes[request.path](body))


@contextmanager
def served(routes: PolicyRoutes) -> Iterator[str]:
    """Yield the address of a server in a thread, which ends with the context."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()

    def do(work: Awaitable[None]) -> None:
        async def wait() -> None:
            await work

        asyncio.run_coroutine_threadsafe(wait(), loop).result()

    app = web.Application(client_max_size=2**26)
    for path in routes.routes:
        app.router.add_route("*", path, routes.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    try:
        do(runner.setup())
        do(web.TCPSite(runner, "127.0.0.1", 0).start())
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        do(runner.cleanup())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
