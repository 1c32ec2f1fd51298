from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from command import settings_printed, started
from tiny_llama import saved, tiny_llama

from eapo_agents.policies.characters import char_tokenizer
from eapo_agents.rollouts.rollout import Rollout, TokenLimits, gather
from eapo_agents.serving.expert_servers import ExpertServers
from eapo_agents.serving.process import ServerError, free_port, run_server
from eapo_agents.testing import ScriptedPolicy
from eapo_agents.training.config import with_settings
from eapo_agents.training.presets import embedded
from eapo_env.breaker import Breaker
from eapo_env.endpoints import Endpoint
from eapo_env.openai_experts import OpenAIExperts
from eapo_env.types import ExpertReply, Problem, Query, Reply, Rules, Unavailable
from eapo_env.verifier import Verifier

CONSULT = "<consult><query>6*7?</query><query>2+3?</query></consult>"
PROBLEM = Problem(id="p", statement="6*7+2+3", answer="47")


def group_members(group: int) -> list[str]:
    """Return the names of the processes that live in a process group."""
    found = subprocess.run(["ps", "-eo", "pgid=,stat=,comm="], capture_output=True, text=True)
    rows = [line.split(maxsplit=2) for line in found.stdout.splitlines()]
    return [name for pgid, stat, name in rows if int(pgid) == group and stat[0] != "Z"]


def is_gone(group: int) -> bool:
    """Whether nobody is left in a process group; a killed process takes a moment to go."""
    for _ in range(1200):
        if not group_members(group):
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("vllm")
    return str(saved(tiny_llama(max_position_embeddings=512), tmp_path_factory.mktemp("expert")))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"replicas": 0}, "replicas must be at least 1, not 0"),
        ({"port": 65_535, "replicas": 2}, "not 65535"),
        ({"tensor_parallel_size": 0}, "tensor_parallel_size must be at least 1, not 0"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExpertServers(model="m", **wrong)  # type: ignore[arg-type]


def test_the_line_to_paste_makes_a_config_ask_every_replica() -> None:
    line = ExpertServers(model="Qwen/QwQ-32B", replicas=2, port=9000).setting
    words = shlex.split(line)
    assert words[0::2] == ["--set", "--set"]
    pool = with_settings(embedded(), words[1::2]).experts.build()
    assert isinstance(pool, OpenAIExperts)
    assert [endpoint.base_url for endpoint in pool.endpoints] == [
        "http://127.0.0.1:9000/v1",
        "http://127.0.0.1:9001/v1",
    ]
    assert {endpoint.models for endpoint in pool.endpoints} == {("Qwen/QwQ-32B",)}


def test_options_of_ones_own_come_last() -> None:
    command = ExpertServers(model="m", options=("--dtype", "bfloat16")).command(0, on_cpu=False)
    assert command[-2:] == ["--dtype", "bfloat16"]


def test_a_server_that_ends_before_it_answers_is_an_error_with_its_last_words() -> None:
    command = [sys.executable, "-c", "print('no such model'); raise SystemExit(0)"]
    with (
        run_server(command, free_port(), {}) as server,
        pytest.raises(ServerError, match="no such model"),
    ):
        server.wait_until_healthy(60)
    assert not server.alive


def test_a_server_that_stays_silent_is_an_error() -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with (
        run_server(command, free_port(), {}) as server,
        pytest.raises(ServerError, match=r"silent for 0\.1 s"),
    ):
        server.wait_until_healthy(0.1)
    assert not server.alive


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} is taken"):
            run_server([sys.executable, "-c", ""], port, {}).__enter__()


def test_no_orphan_is_left_when_only_the_first_process_died(tmp_path: Path) -> None:
    child = "import time, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}])"
    with run_server([sys.executable, "-c", parent], free_port(), {}) as server:
        group = server._process.pid
        server._process.wait()
        assert not server.alive
        assert len(group_members(group)) == 1
    assert is_gone(group)


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier() as one:
        yield one


@dataclass
class MonitoredExperts:
    """A pool that tells when somebody has been answered."""

    pool: OpenAIExperts
    answered: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        replies = await self.pool.ask(queries)
        self.answered.set()
        return replies


def test_an_expert_is_killed_and_restarted_mid_rollout_and_nothing_is_lost(
    model: str, verifier: Verifier
) -> None:
    alice = ExpertServers(model=model, name="alice", port=free_port(), max_num_seqs=16)
    bob = ExpertServers(model=model, name="bob", port=free_port(), max_num_seqs=16)
    pool = OpenAIExperts(
        endpoints=[
            Endpoint(
                base_url=f"http://127.0.0.1:{servers.port}/v1",
                models=[str(servers.name)],
                max_retries=0,
                thinking="none",
                breaker=Breaker(max_failures=2, cooldown_s=0.2),
            )
            for servers in (alice, bob)
        ],
        max_tokens=8,
        extra_body={"allowed_token_ids": char_tokenizer().encode("0123456789")},  # never empty
        seed=0,
    )

    watched = MonitoredExperts(pool)

    def write(prompt: str, _rng: np.random.Generator) -> str:
        return r"\boxed{47}" if prompt.count("</consult>") > 5 else CONSULT

    rollout = Rollout(
        policy=ScriptedPolicy(char_tokenizer(), write),
        experts=watched,
        verifier=verifier,
        limits=TokenLimits(max_reply_tokens=16),
    )
    rules = Rules(turn_budget=8, queries_per_turn=2)

    async def play(number: int) -> list[tuple[str, bool]]:
        """Return who was asked in one round of episodes, and whether there was a reply."""
        played = await gather(rollout.play(PROBLEM, rules, seed=100 * number + n) for n in range(8))
        assert [one.correct for one in played] == [True] * 8
        replies = [
            reply
            for one in played
            for consultation in one.episode.consultations
            for reply in consultation.replies
        ]
        assert len(replies) == 2 * sum(len(one.episode.consultations) for one in played)
        assert all(isinstance(reply, Reply | Unavailable) for reply in replies)
        return [(str(reply.expert), isinstance(reply, Reply)) for reply in replies]

    async def run() -> None:
        with ExitStack() as stack:
            starts = [asyncio.to_thread(stack.enter_context, one.run()) for one in (alice, bob)]
            _, [server] = await asyncio.gather(*starts)
            assert set(await play(0)) == {("alice", True), ("bob", True)}
            watched.answered.clear()
            rounds = asyncio.ensure_future(play(1))
            await watched.answered.wait()
            server.kill()
            assert not rounds.done()
            assert ("alice", True) in await rounds
            found = set(await play(2))
            assert ("alice", True) in found
            assert ("bob", False) in found
            assert ("alice", False) not in found
            assert ("bob", True) not in found
            await asyncio.to_thread(stack.enter_context, bob.run())
            async with asyncio.timeout(120):
                while ("bob", True) not in await play(3):  # the first call probes the circuit
                    pass
            assert set(await play(4)) == {("alice", True), ("bob", True)}

    asyncio.run(run())


def children_groups(process: subprocess.Popen[str]) -> set[int]:
    """Return the process groups of a process's children, but its own."""
    listed = subprocess.run(["ps", "-eo", "ppid=,pgid="], capture_output=True, text=True)
    rows = [row.split() for row in listed.stdout.splitlines()]
    return {int(group) for parent, group in rows if int(parent) == process.pid} - {
        os.getpgid(process.pid)
    }


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_the_command_serves_until_it_ends_and_leaves_nobody_behind(
    model: str, end: signal.Signals
) -> None:
    port = free_port()
    with started("serve-expert", model, "--port", str(port), stderr=None) as process:
        _, endpoints = settings_printed(process)
        [endpoint] = json.loads(endpoints.partition("=")[2])
        assert endpoint == {"base_url": f"http://127.0.0.1:{port}/v1", "models": [model]}
        [group] = children_groups(process)
        assert "VLLM::EngineCor" in group_members(group)
        assert "VLLM::Worker" not in group_members(group)  # for which the engine would spin
        process.send_signal(end)
        assert process.wait(120) == (0 if end == signal.SIGTERM else -signal.SIGKILL)
    assert is_gone(group)
