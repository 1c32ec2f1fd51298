"""What a policy server answers, in place of what vLLM does: an error in words, whatever it is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from eapo_agents.policies.policy import PolicyError, Sampling
from eapo_agents.policies.vllm_server import VLLMServerEngine, VLLMServerPolicy
from eapo_agents.serving.process import ServerError

MODELS = b'{"data": [{"id": "policy", "max_model_len": 99}]}'
NO_ANSWERS = [
    b"",
    b"<h1>It works!</h1>",
    b'{"choices": [{"mess',
    b'{"choices": [], "data": []}',
    b'{"choices": {"message": 7}, "data": 7}',
    b'{"choices": [{"finish_reason": "stop"}], "data": [{"id": 7}]}',
    b'{"data": "\xff\xfe"}',
    b"[" * 100_000,
]


@contextmanager
def answering(models: bytes, completion: bytes = b"") -> Iterator[VLLMServerEngine]:
    """A server that lists models and completes prompts with these bytes."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(models)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(completion)

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = Thread(target=http.serve_forever)
        thread.start()
        yield VLLMServerEngine(base_urls=(f"http://127.0.0.1:{http.server_port}",))
        http.shutdown()
        thread.join()


@pytest.mark.parametrize("body", NO_ANSWERS, ids=range(len(NO_ANSWERS)))
def test_a_server_that_lists_no_model_is_refused(body: bytes, tiny_model: Path) -> None:
    with (
        answering(models=body) as server,
        pytest.raises(ServerError, match=r"answered to v1/models with .* `eapo serve-policy`"),
    ):
        VLLMServerPolicy(str(tiny_model), server)


@pytest.mark.parametrize("body", NO_ANSWERS, ids=range(len(NO_ANSWERS)))
def test_what_is_no_completion_is_the_servers_failure(body: bytes, tiny_model: Path) -> None:
    with (
        answering(MODELS, completion=body) as server,
        closing(VLLMServerPolicy(str(tiny_model), server)) as policy,
        pytest.raises(PolicyError, match=f"the policy server {server.base_urls[0]}"),
    ):
        asyncio.run(policy.complete([1, 2], Sampling(max_tokens=4), 0))


def test_a_completion_that_was_aborted_says_so(tiny_model: Path) -> None:
    aborted = b'{"choices": [{"finish_reason": "abort", "token_ids": []}]}'
    with (
        answering(MODELS, completion=aborted) as server,
        closing(VLLMServerPolicy(str(tiny_model), server)) as policy,
        pytest.raises(PolicyError, match="ended a completion with 'abort'"),
    ):
        asyncio.run(policy.complete([1, 2], Sampling(max_tokens=4), 0))
