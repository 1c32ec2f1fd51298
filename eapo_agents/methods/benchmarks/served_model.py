"""[edge] A model served on loopback behind the OpenAI interface, for programs that ask over HTTP.

vLLM's own server where vLLM is installed, else `transformers serve`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from eapo_agents.policies import Truncation
from eapo_agents.serving import HOST, ExpertServers, free_port, run_server


@dataclass(frozen=True, slots=True)
class ServedModel:
    """Address and name of a served model, and the software that serves it."""

    base_url: str
    name: str
    software: Literal["vllm", "transformers"] = "vllm"

    def sampling_fields(self, temperature: float, truncation: Truncation) -> dict[str, object]:
        """Return the fields of a request on sampling that OpenAI's interface does not have.

        Every field is set, because missing ones come from the model's generation config: vLLM takes
        its `top_k`, and `transformers serve` would decode greedily at any temperature.
        """
        if self.software == "vllm":
            return {"top_k": truncation.top_k, "min_p": truncation.min_p}
        config = {
            "do_sample": temperature > 0,
            "temperature": temperature,
            "top_p": truncation.top_p,
            "top_k": max(0, truncation.top_k),
            "min_p": truncation.min_p or None,
        }
        return {"generation_config": json.dumps(config)}


@contextmanager
def serve_model(model: str, *, start_timeout_s: float = 1800.0) -> Iterator[ServedModel]:
    """Serve a model folder or hub id on a free port while the context lasts.

    Raises:
        ServerError: the server ended before it answered, with the end of its output, or did not
            answer in time.
    """
    port = free_port()
    software: Literal["vllm", "transformers"] = "vllm" if find_spec("vllm") else "transformers"
    address = ServedModel(f"http://{HOST}:{port}/v1", model, software)
    if software == "vllm":
        with ExpertServers(model=model, port=port, start_timeout_s=start_timeout_s).run():
            yield address
    else:
        with run_server(_transformers(model, port), port, environment={}) as server:
            server.wait_until_healthy(start_timeout_s)
            yield address


def _transformers(model: str, port: int) -> list[str]:
    serve = [sys.executable, "-m", "transformers.cli.transformers", "serve", model]
    return [*serve, "--host", HOST, "--port", str(port)]
