"""OpenEnv's server beside the vector environment: 256 episodes, experts who take 50 ms.

    python benchmarks/served_env.py [--sessions 256]

Both play the same problems: one consultation with three queries, then an answer. The server is a
process of its own (`eapo serve-env`); its clients share one event loop. The vector environment
steps all episodes together in one process. The table has the time of the whole and of one turn,
and the ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import eapo_env
from eapo_agents.adapters import EapoAction, EapoClient
from eapo_env import Rules
from eapo_env.experts import ScriptedExperts

LATENCY_S = 0.05
CONSULT = "<consult>\n<query>1</query>\n<query>2</query>\n<query>3</query>\n</consult>"
ANSWER = r"\boxed{1}"
ROUNDS = 5


async def _slow(query: eapo_env.Query) -> str:
    await asyncio.sleep(LATENCY_S)
    return "1"


def slow_experts() -> ScriptedExperts:
    """Return experts who take 50 ms."""
    return ScriptedExperts(_slow)


def vector_environment(sessions: int) -> float:
    """Return the seconds of the episodes in a vector environment, the best of several rounds."""
    env = eapo_env.EAPOMathVectorEnv(
        sessions, experts=slow_experts(), rules=Rules(turn_budget=2), observation="delta"
    )
    best = float("inf")
    for seed in range(ROUNDS):
        start = time.perf_counter()
        env.reset(seed=seed)
        for action in (CONSULT, ANSWER):
            _, _, over, _, _ = env.step((action,) * sessions)
        best = min(best, time.perf_counter() - start)
        assert over.all()
    env.close()
    return best


async def served(address: str, sessions: int) -> float:
    """Return the seconds of the episodes on a server whose sessions are open."""
    clients = [EapoClient(address) for _ in range(sessions)]

    async def episode(client: EapoClient, seed: int) -> None:
        await client.reset(seed=seed, turn_budget=2)
        await client.step(EapoAction(completion=CONSULT))
        result = await client.step(EapoAction(completion=ANSWER))
        assert result.done

    await asyncio.gather(*(client.connect() for client in clients))
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        await asyncio.gather(*(episode(client, n) for n, client in enumerate(clients)))
        best = min(best, time.perf_counter() - start)
    await asyncio.gather(*(client.close() for client in clients))
    return best


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sessions", type=int, default=256)
    sessions: int = parser.parse_args(arguments).sessions
    command = [sys.executable, "-m", "eapo_agents.cli", "serve-env", "--port", "0"]
    command += ["--sessions", str(sessions), "--set", "experts=python"]
    command += ["--set", "experts.factory=served_env:slow_experts"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent
    ) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split()[2]
        rows = {
            "vector environment": vector_environment(sessions),
            "OpenEnv server": asyncio.run(served(address, sessions)),
        }
        server.terminate()
    print(f"{sessions} episodes of two turns, experts of {1000 * LATENCY_S:.0f} ms")
    for name, seconds in rows.items():
        ratio = seconds / rows["vector environment"]
        print(f"{name:20} {1000 * seconds:8.0f} ms {500 * seconds:8.0f} ms a turn {ratio:6.2f}x")


if __name__ == "__main__":
    main()
