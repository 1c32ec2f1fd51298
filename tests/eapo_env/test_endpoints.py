"""Endpoints against a real HTTP server in another process: limits, deadlines, circuit, keys."""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from programs import run_program
from stub_server import RETRY_AFTER_S, StubServer

from eapo_env import event_loop
from eapo_env.breaker import Breaker
from eapo_env.endpoints import Endpoint
from eapo_env.openai_experts import OpenAIExperts
from eapo_env.types import ExpertReply, Query, Reply, Unavailable
from eapo_env.validation import UserError

KEY, KEY_ENV = "sk-this-must-not-leak", "EAPO_TEST_KEY"
PATIENT = Breaker(max_failures=1000)


@pytest.fixture(scope="module")
def server() -> Iterator[StubServer]:
    with StubServer() as server:
        yield server


@pytest.fixture
def key() -> Iterator[str]:
    os.environ[KEY_ENV] = KEY
    yield KEY
    os.environ.pop(KEY_ENV, None)


def pool_of(
    url: str, *models: str, batch_timeout_s: float = 60.0, **settings: Any
) -> OpenAIExperts:
    settings = {"max_retries": 0, "breaker": PATIENT, **settings}
    endpoint = Endpoint(base_url=url, models=models, **settings)
    return OpenAIExperts(endpoints=[endpoint], batch_timeout_s=batch_timeout_s)


def queries(*texts: str) -> list[Query]:
    return [Query(text=text, slot=slot) for slot, text in enumerate(texts)]


def texts(replies: Sequence[ExpertReply]) -> list[str]:
    return [reply.text for reply in replies if isinstance(reply, Reply)]


def reasons(replies: Sequence[ExpertReply]) -> list[str]:
    return [reply.reason for reply in replies if isinstance(reply, Unavailable)]


def ask(pool: OpenAIExperts, *texts: str) -> list[ExpertReply]:
    return list(asyncio.run(pool.ask(queries(*texts))))


def test_live_calls_stay_within_the_limit_over_all_batches(server: StubServer) -> None:
    pool = pool_of(server.url, "delay:0.02", max_live_calls=5)

    async def several_batches() -> list[Sequence[ExpertReply]]:
        return await asyncio.gather(*(pool.ask(queries(*"abcdefgh")) for _ in range(4)))

    for replies in asyncio.run(several_batches()):
        assert texts(replies) == [f"echo: {text}" for text in "abcdefgh"]
    assert server.max_live("delay:0.02") == 5


def test_equal_endpoints_share_one_limit(server: StubServer) -> None:
    async def two_pools() -> None:
        pools = [pool_of(server.url, "delay:0.021", max_live_calls=3) for _ in range(2)]
        await asyncio.gather(*(pool.ask(queries(*"abcdef")) for pool in pools))

    asyncio.run(two_pools())
    assert server.max_live("delay:0.021") == 3


def test_retry_after_is_honoured(server: StubServer) -> None:
    """The client's own first pause would be at most half a second."""
    (reply,) = ask(pool_of(server.url, "flaky", max_retries=1), "a")
    assert reply == Reply("flaky", "echo: a")
    refused, repeated = server.records("flaky")
    assert repeated["began_s"] - refused["began_s"] >= 0.99 * RETRY_AFTER_S


def test_a_call_has_a_deadline(server: StubServer) -> None:
    hung, fine = ask(pool_of(server.url, "hang:call", "echo", call_timeout_s=1), "a", "b")
    assert hung == Unavailable("no reply within 1 s", "hang:call")
    assert fine == Reply("echo", "echo: b")
    assert server.wait_for("hang:call", 1, disconnected=True)


def test_a_call_that_waits_for_a_retry_keeps_its_deadline(server: StubServer) -> None:
    (late,) = ask(pool_of(server.url, "flaky:late", max_retries=1, call_timeout_s=2), "a")
    assert late == Unavailable("no reply within 2 s", "flaky:late")
    assert len(server.records("flaky:late")) == 1


def test_a_server_that_is_killed_and_restarted_is_left_alone_and_found_again() -> None:
    breaker = Breaker(max_failures=2, cooldown_s=2)

    async def through_it_all(server: StubServer) -> None:
        pool = pool_of(server.url, "echo", "delay:3600", breaker=breaker)
        assert await pool.ask([Query(text="before")]) == [Reply("echo", "echo: before")]
        in_flight = asyncio.create_task(
            pool.ask([Query(text="a", slot=1), Query(text="b", slot=1)])
        )
        await asyncio.to_thread(server.wait_for, "delay:3600", 2)
        server.kill()
        assert all(isinstance(reply, Unavailable) for reply in await in_flight)
        refused = await pool.ask(queries(*"abc"))
        first = reasons(refused)[0]
        assert first.startswith(f"the circuit of {server.url} is open: "), first
        assert "no reply" not in first, "it says what the endpoint did"
        await asyncio.sleep(1.2 * breaker.cooldown_s)
        failed_probe = await pool.ask([Query(text="still dead?")] * 3)
        told = sorted("circuit" in reason for reason in reasons(failed_probe))
        assert told == [False, True, True], "one probe, and nothing else is sent"
        server.start()
        await asyncio.to_thread(server.wait_for_health_checks, 1)
        while isinstance((await pool.ask([Query(text="back?")]))[0], Unavailable):
            await asyncio.sleep(0.01)
        assert await pool.ask([Query(text="after")] * 3) == [Reply("echo", "echo: after")] * 3

    with StubServer(health=200) as server:
        asyncio.run(through_it_all(server))


def test_a_hung_server_costs_one_round_of_calls(server: StubServer) -> None:
    """64 queries, 4 live calls: those sent until the fourth has hung, the others are refused."""
    breaker = Breaker(max_failures=4, cooldown_s=60)
    pool = pool_of(server.url, "hang:round", breaker=breaker, max_live_calls=4, call_timeout_s=2)
    replies = ask(pool, *"a" * 64)
    num_sent = len(server.records("hang:round"))
    assert 4 <= num_sent < 4 + 4
    assert sum("circuit" in reason for reason in reasons(replies)) == 64 - num_sent


def test_a_hung_server_is_noticed_through_the_deadlines_of_batches(server: StubServer) -> None:
    breaker = Breaker(max_failures=2, cooldown_s=60)
    pool = pool_of(server.url, "hang:batch", breaker=breaker, batch_timeout_s=1.5)

    async def three_batches() -> Sequence[ExpertReply]:
        for _ in range(3):
            last = await pool.ask(queries(*"abc"))
        return last

    told = reasons(asyncio.run(three_batches()))
    assert ["circuit" in reason for reason in told] == [True] * 3
    assert len(server.records("hang:batch")) == 6


def test_stragglers_of_a_living_server_do_not_open_the_circuit(server: StubServer) -> None:
    breaker = Breaker(max_failures=1, cooldown_s=60)
    pool = pool_of(server.url, "hang:alive", "delay:0.1", breaker=breaker, batch_timeout_s=2)

    async def twice() -> Sequence[ExpertReply]:
        await pool.ask(queries("a", "b"))
        return await pool.ask(queries("a", "b"))

    assert asyncio.run(twice())[1] == Reply("delay:0.1", "echo: b")


def test_a_server_that_refuses_requests_is_alive(server: StubServer) -> None:
    """A 400 or a garbled body concerns one request; the others go on."""
    breaker = Breaker(max_failures=1, cooldown_s=60)
    for model in ("status:400", "garbage", "html", "abort"):
        _, fine = asyncio.run(_twice(pool_of(server.url, model, "echo", breaker=breaker)))
        assert fine == Reply("echo", "echo: b")


async def _twice(pool: OpenAIExperts) -> Sequence[ExpertReply]:
    await pool.ask(queries("a"))
    return await pool.ask(queries("a", "b"))


def test_one_pool_serves_several_loops(server: StubServer) -> None:
    pool = pool_of(server.url, "delay:0.05")

    async def rollout() -> tuple[Sequence[ExpertReply], Sequence[ExpertReply]]:
        here = asyncio.create_task(pool.ask(queries("here")))
        there = asyncio.to_thread(event_loop.run, pool.ask(queries("there")))
        return await asyncio.gather(here, there)

    for _ in range(2):
        here, there = asyncio.run(rollout())
        assert texts([*here, *there]) == ["echo: here", "echo: there"]


def test_closing_frees_the_connections_and_the_next_use_opens_new_ones(server: StubServer) -> None:
    async def use() -> Sequence[ExpertReply]:
        pool = pool_of(server.url, "echo")
        await pool.ask(queries("a"))
        await pool.aclose()
        await pool.aclose()
        return await pool.ask(queries("b"))

    assert asyncio.run(use()) == [Reply("echo", "echo: b")]


def test_nothing_is_left_open_at_exit(server: StubServer) -> None:
    """With every warning an error: an unclosed session would be reported on stderr."""
    done = run_program("experts_left_open.py", server.url, options=("-X", "dev"))
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("Executing <")]
    assert (done.returncode, done.stdout, complaints) == (0, "1 1\n", [])


def test_the_key_is_sent_and_appears_nowhere_else(server: StubServer, key: str) -> None:
    pool = pool_of(server.url, "status:401", api_key_env=KEY_ENV)
    (reply,) = ask(pool, "a")
    assert server.records("status:401")[-1]["authorization"] == f"Bearer {key}"
    assert reply == Unavailable(
        "AuthenticationError: Error code: 401 - you sent Bearer [key]", "status:401"
    )
    for shown in (repr(pool), str(pickle.dumps(pool)), repr(reply)):
        assert key not in shown


def test_a_missing_or_refused_key_is_logged_once_and_never_shown(
    server: StubServer, caplog: pytest.LogCaptureFixture
) -> None:
    refused = pool_of(server.url, "status:403", api_key_env="EAPO_TEST_REFUSED_KEY")
    asyncio.run(refused.ask(queries("a", "b")))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the variable EAPO_TEST_REFUSED_KEY holds no key" in caplog.text
    os.environ["EAPO_TEST_REFUSED_KEY"] = KEY
    asyncio.run(refused.ask(queries("a", "b")))
    os.environ.pop("EAPO_TEST_REFUSED_KEY")
    assert len(caplog.records) == 2
    assert f"{server.url} refuses the key" in caplog.messages[1]
    assert KEY not in caplog.text


def test_a_missing_key_is_an_unavailable_reply_until_it_is_there(server: StubServer) -> None:
    pool = pool_of(server.url, "echo:key", api_key_env=KEY_ENV)

    async def before_and_after() -> list[ExpertReply]:
        replies: list[ExpertReply] = []
        for value in ("", KEY):
            os.environ[KEY_ENV] = value
            replies += await pool.ask(queries("a"))
        os.environ.pop(KEY_ENV)
        return replies

    missing, there = asyncio.run(before_and_after())
    assert missing == Unavailable(f"the variable {KEY_ENV} is not set or empty", "echo:key")
    assert there == Reply("echo:key", "echo: a")
    assert len(server.records("echo:key")) == 1


def test_no_other_key_of_the_environment_is_sent(server: StubServer) -> None:
    os.environ["OPENAI_API_KEY"] = KEY
    ask(pool_of(server.url, "echo:nokey"), "a")
    os.environ.pop("OPENAI_API_KEY")
    assert KEY not in server.records("echo:nokey")[0]["authorization"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": "localhost:8000"}, "base_url must begin with http"),
        ({"base_url": None}, "base_url must begin with http"),
        ({"base_url": "http://[x/v1"}, r"base_url is no address: 'http://\[x/v1'"),
        ({"max_live_calls": "3"}, "max_live_calls must be a whole number, not '3'"),
        ({"models": ()}, r"models must be a non-empty tuple of names, not \(\)"),
        ({"models": "echo"}, "not 'echo'"),
        ({"max_live_calls": 0}, r"max_live_calls must be in \[1, 1000\], not 0"),
        ({"call_timeout_s": 0}, "call_timeout_s must be positive, not 0"),
        ({"max_retries": -1}, "max_retries must be at least 0, not -1"),
        ({"hedged_share": 0.6}, r"hedged_share must be in \[0, 0.5\], not 0.6"),
    ],
)
def test_impossible_endpoints_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Endpoint(**{"base_url": "http://127.0.0.1/v1", "models": ["echo"], **settings})


def test_an_address_with_a_password_is_refused() -> None:
    with pytest.raises(UserError, match="base_url must hold no user and password") as caught:
        Endpoint(base_url="http://me:hunter2@here/v1", models=("m",))
    assert "hunter2" not in str(caught.value)
