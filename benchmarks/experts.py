"""Overhead of a vector step's expert calls over the experts' own latency.

256 sub-environments with 3 queries each, every expert 50 ms away: the floor is 50 ms, because all
768 calls can be under way at once. In process, and over loopback HTTP to a stub server in another
process on the same machine, beside other clients on the same server.

    python benchmarks/experts.py

With `--earlier` it compares an earlier build of this project with this one, each in a process of
its own, in turn, on the same three servers of one model: two equally fast, the third at a quarter
of their speed. Latencies are log-normal, a function of the query. 256 episodes ask 3 queries each
at once, 64 calls per server: first while no latency is known (cold), then again (warm). The slowest
5% of the calls are hedged in the third row.

    git worktree add --detach ../earlier 92b7088
    python benchmarks/experts.py --earlier ../earlier
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import runpy
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from openai import AsyncOpenAI

from eapo_env import event_loop
from eapo_env.endpoints import Endpoint
from eapo_env.openai_experts import OpenAIExperts
from eapo_env.types import ExpertReply, Query, Reply

LATENCY_S = 0.05
MODEL = f"delay:{LATENCY_S}"
ROUNDS = 7
HERE = Path(__file__).resolve().parents[1]
STUB = HERE / "tests" / "shared" / "stub_server.py"
TAIL = "tail:0.5-0.5"  # median in seconds of a fast server, and sigma
SLOWNESS = (1.0, 1.0, 4.0)
PLAYED = ("cold", "warm")
WHAT = ("p95", "total")
QUERIES = [
    Query(text=f"What is {env} + {slot}?", seed=env, slot=slot)
    for env in range(256)
    for slot in range(3)
]


@dataclass(frozen=True)
class Colleagues:
    """Experts in process with a latency of 50 ms."""

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        return await asyncio.gather(*(self._think(query) for query in queries))

    async def _think(self, query: Query) -> ExpertReply:
        await asyncio.sleep(LATENCY_S)
        return Reply("colleague", query.text)


@dataclass(frozen=True)
class Cost:
    """Medians over the batches: seconds on the clock, and of this process's CPU."""

    wall_s: float
    cpu_s: float


async def cost_of(batch: Callable[[], Awaitable[object]]) -> Cost:
    """Return the cost of a batch; the first one, which connects, does not count."""
    walls, cpus = [], []
    for _ in range(1 + ROUNDS):
        wall, cpu = time.perf_counter(), time.process_time()
        await batch()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return Cost(statistics.median(walls[1:]), statistics.median(cpus[1:]))


async def in_process() -> Cost:
    return await cost_of(lambda: Colleagues().ask(QUERIES))


async def ours(url: str) -> Cost:
    endpoint = Endpoint(base_url=url, models=[MODEL], max_live_calls=len(QUERIES))
    pool = OpenAIExperts(endpoints=[endpoint])

    async def batch() -> None:
        replies = await pool.ask(QUERIES)
        assert all(isinstance(reply, Reply) for reply in replies), replies

    return await cost_of(batch)


async def openai_default(url: str) -> Cost:
    async with AsyncOpenAI(base_url=url, api_key="none") as client:

        async def call(query: Query) -> None:
            await client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": query.text}]
            )

        return await cost_of(lambda: asyncio.gather(*map(call, QUERIES)))


async def bare_aiohttp(url: str) -> Cost:
    connector = aiohttp.TCPConnector(limit=len(QUERIES))
    async with aiohttp.ClientSession(connector=connector) as session:

        async def call(query: Query) -> None:
            body = {"model": MODEL, "messages": [{"role": "user", "content": query.text}]}
            async with session.post(f"{url}/chat/completions", json=body) as response:
                await response.json()

        return await cost_of(lambda: asyncio.gather(*map(call, QUERIES)))


def round_trip_us() -> float:
    """Return the microseconds of one trip to the background loop and back."""

    async def nothing() -> None:
        pass

    event_loop.run(nothing())
    began = time.perf_counter()
    for _ in range(5000):
        event_loop.run(nothing())
    return (time.perf_counter() - began) / 5000 * 1e6


async def consultations(urls: Sequence[str], **settings: Any) -> list[list[float]]:
    """Return p95 of a consultation and the total time (s), of each time the episodes are played."""
    endpoints = [Endpoint(base_url=url, models=[TAIL], **settings) for url in urls]
    pool = OpenAIExperts(endpoints=endpoints)

    async def episode(number: int) -> float:
        began = time.perf_counter()
        replies = await pool.ask(QUERIES[3 * number : 3 * number + 3])
        assert all(isinstance(reply, Reply) for reply in replies), replies
        return time.perf_counter() - began

    measured = []
    for _ in PLAYED:
        began = time.perf_counter()
        latencies = await asyncio.gather(*map(episode, range(len(QUERIES) // 3)))
        measured.append([float(np.quantile(latencies, 0.95)), time.perf_counter() - began])
    return measured


@dataclass(frozen=True)
class Build:
    """A build of this project, and settings of its endpoints."""

    name: str
    folder: Path
    settings: str = "{}"

    def played(self, urls: Sequence[str]) -> list[list[float]]:
        """Return what `consultations` measures in this build, in a process of its own."""
        command = [sys.executable, __file__, "--settings", self.settings, "--consult", *urls]
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        measured: list[list[float]] = json.loads(done.stdout)
        return measured


def compare(earlier: Path, repeats: int) -> None:
    """Print p95 and total time of the builds, medians over the repeats; ratios to the earlier."""
    builds = [
        Build("earlier", earlier),
        Build("this", HERE),
        Build("this, hedged", HERE, '{"hedged_share": 0.05}'),
    ]
    stub = runpy.run_path(str(STUB))["StubServer"]
    with ExitStack() as stack:
        servers = [stack.enter_context(stub(slowness=slowness)) for slowness in SLOWNESS]
        urls = [server.url for server in servers]
        runs = [[build.played(urls) for build in builds] for _ in range(repeats)]
    medians = np.median(runs, axis=0)  # build x played x (p95, total)
    heads = [f"{played} {what} s" for played in PLAYED for what in WHAT]
    print(f"{'':16}" + "".join(f"{head:>12}{'ratio':>8}  " for head in heads))
    for build, seconds in zip(builds, medians, strict=True):
        ratios = seconds / medians[0]
        cells = zip(seconds.flat, ratios.flat, strict=True)
        print(f"{build.name:16}" + "".join(f"{s:12.2f}{ratio:8.2f}  " for s, ratio in cells))


def overhead() -> None:
    rows = [("in process, one asyncio batch", asyncio.run(in_process()))]
    with runpy.run_path(str(STUB))["StubServer"]() as server:
        rows += [
            ("HTTP, OpenAIExperts", asyncio.run(ours(server.url))),
            ("HTTP, bare aiohttp", asyncio.run(bare_aiohttp(server.url))),
            ("HTTP, openai, default transport", asyncio.run(openai_default(server.url))),
        ]
    print(f"{len(QUERIES)} expert calls of {LATENCY_S * 1000:.0f} ms, median of {ROUNDS} batches")
    print(f"{'':34}{'ms':>8}{'x floor':>10}{'CPU ms':>9}")
    for name, cost in rows:
        ratio = cost.wall_s / LATENCY_S
        print(f"{name:34}{cost.wall_s * 1000:8.0f}{ratio:10.2f}{cost.cpu_s * 1000:9.0f}")
    print(f"event_loop.run, round trip: {round_trip_us():.0f} us")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--earlier", type=Path, help="the folder of an earlier build")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--consult", nargs="+", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--settings", type=json.loads, default={}, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.consult:
        print(json.dumps(asyncio.run(consultations(options.consult, **options.settings))))
    elif options.earlier:
        compare(options.earlier.resolve(), options.repeats)
    else:
        overhead()


if __name__ == "__main__":
    main()
