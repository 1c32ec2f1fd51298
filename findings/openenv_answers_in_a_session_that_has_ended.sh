#!/usr/bin/env bash
# openenv 0.10.0: a session that ended for idleness is still played, beside the one in its place.
#
# A good guess: when `session_timeout` has passed, the client's connection is closed, and its next
# step is an error; with max_concurrent_envs=1 there is never more than one environment in play.
# Behaviour: the environment is closed and its place given away, but the connection stays open and
# steps the closed environment as before. An environment has to refuse that by itself.
# Seen:
#   step 1 of the first session, closed: False
#   a second session opens
#   step 2 of the first session, closed: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "openenv==0.10.0"
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import asyncio
import socket

import uvicorn
from openenv.core import GenericEnvClient
from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, ConcurrencyConfig, Observation, State


class Told(Observation):
    step: int
    closed: bool


class Counter(Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
        super().__init__()
        self.steps, self.closed = 0, False

    def reset(self, seed=None, episode_id=None, **options):
        return Told(step=self.steps, closed=self.closed)

    def step(self, action, timeout_s=None, **options):
        self.steps += 1
        return Told(step=self.steps, closed=self.closed)

    @property
    def state(self):
        return State(step_count=self.steps)

    def close(self):
        self.closed = True


async def admitted(address):
    while True:
        try:
            async with GenericEnvClient(address) as second:
                return await second.reset()
        except RuntimeError:  # at capacity
            await asyncio.sleep(0.2)


async def main():
    limits = ConcurrencyConfig(max_concurrent_envs=1, session_timeout=0.5)
    app = create_fastapi_app(Counter, Action, Told, concurrency_config=limits)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with GenericEnvClient(address) as first:
        await first.reset()
        before = (await first.step({})).observation
        print("step", before["step"], "of the first session, closed:", before["closed"])
        await admitted(address)
        print("a second session opens")
        after = (await first.step({})).observation
        print("step", after["step"], "of the first session, closed:", after["closed"])
    server.should_exit = True
    await serving
    assert not before["closed"], "this finding is out of date"
    assert after["step"] == 2 and after["closed"], "this finding is out of date"


asyncio.run(main())
PY
