"""An OpenAI-compatible server that misbehaves on request: the model's name says how.

Run as a program it serves; `StubServer` starts it in a process of its own, kills and restarts it.
GET /v1/records returns what the server saw: one record per call, and the most calls live at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

RETRY_AFTER_S = 3
HUGE_CHARS = 10_000_000
Json = dict[str, Any]


class StubServer:
    """The server in another process, on a port that stays the same over restarts."""

    def __init__(self, *models: str, slowness: float = 1.0, health: int | None = None) -> None:
        """With models named, GET /v1/models lists them; else there is no such list.

        GET /health has this status and an empty body, as vLLM's; None for no such page.
        The delays of `delay` and `tail` are multiplied by the slowness.
        """
        self.models = models
        self.slowness = slowness
        self.health = health
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> StubServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start serving; returns once the server listens."""
        self.process = subprocess.Popen(
            [
                *(sys.executable, str(Path(__file__)), "--port", str(self.port)),
                *("--slowness", str(self.slowness)),
                *(() if self.health is None else ("--health", str(self.health))),
                *self.models,
            ],
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == b"ready"

    def kill(self) -> None:
        """Kill the server as the kernel would: no farewell to anybody."""
        if self.process is not None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.communicate()
            self.process = None

    def records(self, model: str) -> list[Json]:
        """Return the records of the calls to a model, in order of arrival."""
        return [call for call in self._seen()["calls"] if call["model"] == model]

    def max_live(self, model: str) -> int:
        """Return the most calls to a model that were live at the same time."""
        return int(self._seen()["max_live"].get(model, 0))

    def wait_for_health_checks(self, count: int) -> None:
        """Wait until so many requests for its health have come."""
        while self._seen()["health_checks"] < count:
            time.sleep(0.01)

    def wait_for(self, model: str, num_calls: int, **properties: object) -> list[Json]:
        """Return the records of a model, once so many of them have these properties."""
        while True:
            calls = self.records(model)
            fits = [c for c in calls if all(c[k] == v for k, v in properties.items())]
            if len(fits) >= num_calls:
                return fits
            time.sleep(0.01)

    def _seen(self) -> Json:
        with urllib.request.urlopen(f"{self.url}/records") as response:
            seen: Json = json.load(response)
            return seen


def completion(content: object, finish_reason: object = "stop") -> Json:
    message = {"role": "assistant", "content": content}
    return {
        "id": "stub",
        "object": "chat.completion",
        "created": 0,
        "model": "stub",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
    }


def interrupted(body: Json, answer: str) -> Json:
    """Be cut off in a first thought, sum up a wrong one, answer once peers have been heard."""
    last = body["messages"][-1]["content"]
    if "<peers>" in last:
        text, finish = f"\\boxed{{{answer}}}", "stop"
    elif last.startswith("Sum up"):
        text, finish = "I think \\boxed{9}", "stop"
    else:
        text, finish = "half a thought", "length"
    return {**completion(text, finish), "usage": {"completion_tokens": 3}}


def solved(body: Json, answer: str) -> Json:
    """Consult once where consulting is allowed, then answer; cut stop texts off, as servers do."""
    asks = "stop" in body and "<reply" not in body["messages"][-1]["content"]
    text = "<consult>\n<query>what is it?</query>\n" if asks else f"\\boxed{{{answer}}}"
    return {**completion(text), "usage": {"completion_tokens": 7 if asks else 5}}


def too_long(body: Json, context: int, prompt: int) -> Json | None:
    """Refuse prompt + max_tokens > context, in OpenAI's words."""
    reply = body["max_tokens"]
    if prompt + reply <= context:
        return None
    message = (
        f"This model's maximum context length is {context} tokens. However, you requested"
        f" {prompt + reply} tokens ({prompt} in the messages, {reply} in the completion)."
        " Please reduce the length of the messages or completion."
    )
    return {"error": {"message": message, "type": "invalid_request_error"}}


TEXTS = {
    "abort": json.dumps(completion("half a thought", "abort")),
    "empty": json.dumps(completion("")),
    "null": json.dumps(completion(None)),
    "no-choices": json.dumps({"choices": []}),
    "wrong-types": json.dumps({"choices": {"message": 7}}),
    "garbage": '{"choices": [{"mess',
    "deep": "[" * 100_000,
    "nasty": json.dumps(completion("null \0, lone \ud800, 🤔, ∫, </reply>")),
    "think": json.dumps(completion("<think>\nseven times six\n</think>\n\n42")),
    "thinking": json.dumps(completion("<think>\nseven times")),
    "huge": json.dumps(completion("x" * HUGE_CHARS)),
}
BODIES = {
    "not-utf8": b'{"choices": "\xff\xfe"}',
    **{kind: text.encode("utf-8", "surrogatepass") for kind, text in TEXTS.items()},
}


def main() -> None:
    from aiohttp import web

    calls: list[Json] = []
    live: dict[str, int] = {}
    max_live: dict[str, int] = {}
    health_checks = 0

    async def complete(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        model = body["model"]
        call = {
            "model": model,
            "text": body["messages"][-1]["content"],
            "body": body,
            "authorization": request.headers.get("Authorization"),
            "retry": int(request.headers.get("x-stainless-retry-count", "0")),
            "began_s": time.monotonic(),
            "disconnected": False,
        }
        calls.append(call)
        live[model] = live.get(model, 0) + 1
        max_live[model] = max(max_live.get(model, 0), live[model])
        try:
            return await behave(request, call)
        except asyncio.CancelledError:
            call["disconnected"] = True
            raise
        finally:
            live[model] -= 1

    async def behave(request: web.Request, call: Json) -> web.StreamResponse:
        model, text = call["model"], call["text"]
        kind, _, parameter = model.partition(":")
        match kind:
            case "echo":
                return web.json_response(completion(f"echo: {text}"))
            case "delay":
                await asyncio.sleep(float(parameter) * options.slowness)
                return web.json_response(completion(f"echo: {text}"))
            case "tail":  # a log-normal delay: its median in seconds, and sigma
                median_s, sigma = map(float, parameter.split("-"))
                delay_s = median_s * random.Random(text).lognormvariate(0, sigma)
                await asyncio.sleep(delay_s * options.slowness)
                return web.json_response(completion(f"echo: {text}"))
            case "usage":  # tokens of prompt and completion
                prompt, completed = map(int, parameter.split("-"))
                usage = {"prompt_tokens": prompt, "completion_tokens": completed}
                return web.json_response(completion(f"echo: {text}") | {"usage": usage})
            case "cut":
                return web.json_response(completion("The sum of 2", "length"))
            case "no-system-role":
                if call["body"]["messages"][0]["role"] == "system":
                    no_role = {"error": {"message": "Conversation roles must alternate"}}
                    return web.json_response(no_role, status=400)
                return web.json_response(completion(f"echo: {text}"))
            case "text-decides":
                await asyncio.sleep(3600 if "hang" in text else 0)
                return web.json_response(completion(f"echo: {text}"))
            case "peer":
                return web.json_response(interrupted(body=call["body"], answer=parameter))
            case "solve":
                return web.json_response(solved(body=call["body"], answer=parameter))
            case "outgrown":
                long = len(call["body"]["messages"]) > int(parameter)
                told = "This model's maximum context length is 8 tokens. However, your messages"
                error = {"message": f"{told} resulted in 9 tokens."}
                content = {"error": error} if long else solved(body=call["body"], answer="3")
                return web.json_response(content, status=400 if long else 200)
            case "context":
                refusal = too_long(call["body"], *map(int, parameter.split("-")))
                content = refusal or solved(body=call["body"], answer="3")
                return web.json_response(content, status=400 if refusal else 200)
            case "hang":
                await asyncio.sleep(3600)
            case "status":
                message = f"you sent {call['authorization']}"
                refused = {"error": {"message": message}}
                return web.json_response(refused, status=int(parameter))
            case "flaky" if call["retry"] == 0:
                headers = {"Retry-After": str(RETRY_AFTER_S)}
                return web.json_response({"error": {}}, status=429, headers=headers)
            case "flaky":
                return web.json_response(completion(f"echo: {text}"))
            case "drop":
                connection(request).abort()
            case "not-http":
                connection(request).write(b"\x00\xff\x16 this is no HTTP\r\n\r\n")
                connection(request).close()
            case "cut-off":
                response = web.StreamResponse(headers={"Content-Type": "application/json"})
                response.content_length = 1000
                await response.prepare(request)
                await response.write(b'{"choices": [')
                connection(request).close()
                return response
            case "html":
                return web.Response(text="<h1>It works!</h1>", content_type="text/html")
            case _:
                return web.Response(body=BODIES[kind], content_type="application/json")
        return web.Response()

    def connection(request: web.Request) -> asyncio.Transport:
        assert request.transport is not None
        return request.transport

    async def records(_: web.Request) -> web.Response:
        seen = {"calls": calls, "max_live": max_live, "health_checks": health_checks}
        return web.json_response(seen)

    async def health(_: web.Request) -> web.Response:
        nonlocal health_checks
        health_checks += 1
        return web.Response(status=options.health)

    async def list_models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": m} for m in options.models]})

    async def serve(port: int) -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", complete)
        app.router.add_get("/v1/records", records)
        if options.health is not None:
            app.router.add_get("/health", health)
        if options.models:
            app.router.add_get("/v1/models", list_models)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
        print("ready", flush=True)
        await asyncio.Event().wait()

    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slowness", type=float, default=1.0)
    parser.add_argument("--health", type=int)
    parser.add_argument("models", nargs="*")
    options = parser.parse_args()
    asyncio.run(serve(options.port))


if __name__ == "__main__":
    main()
