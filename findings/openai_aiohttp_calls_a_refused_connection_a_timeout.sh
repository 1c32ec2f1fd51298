#!/usr/bin/env bash
# openai 3.57.0 with aiohttp 3.14.5: a server that is not there looks like one that is slow.
#
# A good guess: `AsyncOpenAI` raises `APIConnectionError` where nothing listens, and its subclass
# `APITimeoutError` where an answer does not come in time, so a caller can tell a dead server of
# experts from a slow one, with `DefaultAioHttpClient` as with the default client.
# Behaviour: with `DefaultAioHttpClient` a refused connection is an `APITimeoutError`, "Request timed
# out.", at once and with any timeout; only its `__cause__` says that the connection was refused. The
# default client, httpx, raises `APIConnectionError`.
# Seen:
#   httpx: APIConnectionError: Connection error.
#   aiohttp: APITimeoutError: Request timed out. <- Cannot connect to host 127.0.0.1:PORT ...
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "openai[aiohttp]==3.57.0" "aiohttp==3.14.5"
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import asyncio
import socket
import time

from openai import APIConnectionError, APITimeoutError, AsyncOpenAI, DefaultAioHttpClient

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]  # nothing listens there


async def refused(**how):
    client = AsyncOpenAI(
        base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=60, **how
    )
    start = time.monotonic()
    try:
        await client.models.list()
    except APIConnectionError as error:
        return error, time.monotonic() - start
    finally:
        await client.close()


async def main():
    plain, _ = await refused()
    other, seconds = await refused(http_client=DefaultAioHttpClient())
    print(f"httpx: {type(plain).__name__}: {plain}")
    print(f"aiohttp: {type(other).__name__}: {other} <- {other.__cause__}")
    assert type(plain) is APIConnectionError, plain
    assert type(other) is APITimeoutError, "this finding is out of date"
    assert "Cannot connect to host" in str(other.__cause__)
    assert seconds < 30, "it did wait"


asyncio.run(main())
PY
