"""OpenAIExperts against a real HTTP server in another process: requests, replies, batches."""

from __future__ import annotations

import asyncio
import copy
import pickle
import re
import signal
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import pytest
from hypothesis import given, strategies as st
from stub_server import HUGE_CHARS, StubServer, completion

from eapo_env.acceptance import REFUSED
from eapo_env.balancing import FEWEST_MEASURED
from eapo_env.breaker import Breaker, Circuit, Closed, Open
from eapo_env.connections import open_connection
from eapo_env.endpoints import Endpoint
from eapo_env.guarded_experts import GuardedExperts
from eapo_env.openai_experts import (
    OpenAIExperts,
    by_question,
    read_reply,
    read_with_reasoning,
    without_reasoning,
)
from eapo_env.prompts import CUT_MARK
from eapo_env.spending import Budget
from eapo_env.testing import check_expert_pool
from eapo_env.types import ExpertReply, Query, Reply, Unavailable
from eapo_env.validation import UserError

PATIENT = Breaker(max_failures=1000)


@pytest.fixture(scope="module")
def server() -> Iterator[StubServer]:
    with StubServer() as server:
        yield server


def pool_of(
    url: str, *models: str, batch_timeout_s: float = 60.0, **settings: Any
) -> OpenAIExperts:
    settings = {"max_retries": 0, "breaker": PATIENT, **settings}
    endpoint = Endpoint(base_url=url, models=models, **settings)
    return OpenAIExperts(endpoints=[endpoint], batch_timeout_s=batch_timeout_s)


def queries(*texts: str) -> list[Query]:
    return [Query(text=text, slot=slot) for slot, text in enumerate(texts)]


def ask(pool: OpenAIExperts, *texts: str) -> list[ExpertReply]:
    return list(asyncio.run(pool.ask(queries(*texts))))


def test_replies_come_in_query_order(server: StubServer) -> None:
    """The later a query, the sooner its expert answers."""
    models = ("delay:0.3", "delay:0.1", "echo")
    replies = ask(pool_of(server.url, *models), "a", "b", "c")
    assert replies == [Reply(m, f"echo: {text}") for m, text in zip(models, "abc", strict=True)]
    latencies = [reply.latency_s or 0.0 for reply in replies]
    assert latencies[0] >= 0.3
    assert latencies[1] >= 0.1
    assert len(set(latencies)) == 3, "each has its own"


def test_the_request_says_what_the_settings_say(server: StubServer) -> None:
    endpoint = Endpoint(base_url=server.url, models=["echo:request"])
    pool = OpenAIExperts(
        endpoints=[endpoint],
        system_prompt="Be right.",
        temperature=0.5,
        max_tokens=99,
        extra_body={"top_k": 20, "top_p": None},
    )
    ask(pool, "∫ \ud800?")
    assert server.records("echo:request")[-1]["body"] == {
        "model": "echo:request",
        "messages": [
            {"role": "system", "content": "Be right."},
            {"role": "user", "content": "∫ \ufffd?"},
        ],
        "temperature": 0.5,
        "max_tokens": 99,
        "top_k": 20,
    }


def test_a_seed_is_sent_per_query_and_is_the_same_again(server: StubServer) -> None:
    endpoint = Endpoint(base_url=server.url, models=["echo:seed"])
    for seed in (1, 1, 2):
        ask(OpenAIExperts(endpoints=[endpoint], seed=seed, system_prompt=""), "a", "b")
    seeds: dict[str, list[int]] = {}
    for call in server.records("echo:seed"):
        seeds.setdefault(call["text"], []).append(call["body"]["seed"])
        assert len(call["body"]["messages"]) == 1
    for first, again, other in seeds.values():
        assert first == again != other
    assert seeds["a"][0] != seeds["b"][0]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("status:500", "500"),
        ("status:503", "503"),
        ("status:400", "400"),
        ("status:429", "429"),
        ("drop", "Error"),
        ("cut-off", "Error"),
        ("not-http", "Bad status line"),
        ("html", "not a chat completion: '<h1>It works!</h1>'"),
        ("garbage", "JSONDecodeError"),
        ("not-utf8", "UnicodeDecodeError"),
        ("deep", "RecursionError"),
        ("no-choices", "not a chat completion"),
        ("wrong-types", "not a chat completion"),
        ("null", "not a chat completion"),
        ("empty", "an empty reply"),
        ("thinking", "an empty reply"),
        ("abort", "cut off by the server"),
    ],
)
def test_every_failure_is_an_unavailable_reply_with_its_reason(
    server: StubServer, model: str, reason: str
) -> None:
    failed, fine = ask(pool_of(server.url, model, "echo"), "a", "b")
    assert isinstance(failed, Unavailable)
    assert failed.expert == model
    assert reason in failed.reason
    assert fine == Reply("echo", "echo: b")


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("think", "42"),
        ("nasty", "null \0, lone \ud800, 🤔, ∫, </reply>"),
        ("huge", "x" * HUGE_CHARS),
    ],
)
def test_strange_replies_come_through(server: StubServer, model: str, text: str) -> None:
    (reply,) = ask(pool_of(server.url, model), "a")
    assert reply == Reply(model, text)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "finish_reason"]), inner, max_size=4
        )
    ),
)


@given(json_values)
def test_any_json_is_a_reply_or_unavailable(content: object) -> None:
    assert isinstance(read_reply(content, "m"), Reply | Unavailable)


@given(json_values, st.text(min_size=1))
def test_a_completion_is_its_text(extra: object, text: str) -> None:
    reply = read_reply(completion(text) | {"usage": extra}, "m")
    answer = without_reasoning(text)
    assert reply == (Reply("m", answer) if answer else Unavailable("an empty reply", "m"))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("42", "42"),
        ("<think>a</think> 42\n", "42"),
        ("a</think>42", "42"),
        ("<think>a</think>b<think>c</think>42", "42"),
        ("<think>a", ""),
        ("42 <think>or 43", "42"),
    ],
)
def test_reasoning_is_no_part_of_the_reply(text: str, answer: str) -> None:
    assert without_reasoning(text) == answer


def test_a_batch_keeps_what_is_there_at_its_deadline_and_cancels_the_rest(
    server: StubServer,
) -> None:
    pool = pool_of(server.url, "text-decides", batch_timeout_s=3)
    replies = ask(pool, "a", "hang", "c", "hang")
    late = Unavailable("no reply within 3 s (the batch's deadline)")
    assert replies == [
        Reply("text-decides", "echo: a"),
        late,
        Reply("text-decides", "echo: c"),
        late,
    ]
    assert len(server.wait_for("text-decides", 2, disconnected=True)) == 2


def test_a_batch_deadline_also_ends_the_queue(server: StubServer) -> None:
    """Two hang, the others never get to be sent."""
    pool = pool_of(server.url, "hang:queue", max_live_calls=2, batch_timeout_s=2)
    replies = ask(pool, *"abcdef")
    assert all(isinstance(reply, Unavailable) for reply in replies)
    assert len(server.records("hang:queue")) == 2


def test_cancelling_the_asker_cancels_its_calls(server: StubServer) -> None:
    async def change_of_mind() -> set[asyncio.Task[Any]]:
        asking = asyncio.create_task(pool_of(server.url, "hang:cancel").ask(queries("a", "b")))
        await asyncio.to_thread(server.wait_for, "hang:cancel", 2)
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(change_of_mind()) == set()
    assert server.wait_for("hang:cancel", 2, disconnected=True)


def test_a_query_goes_to_another_endpoint_with_the_same_model(server: StubServer) -> None:
    breaker = Breaker(max_failures=1, cooldown_s=60)
    with StubServer() as dead:
        nobody = dead.url
    replica = Endpoint(
        base_url=nobody, models=["echo", "echo:alone"], breaker=breaker, max_retries=0
    )
    living = Endpoint(base_url=server.url, models=["other", "echo"])
    pool = OpenAIExperts(endpoints=[replica, living])

    async def twice() -> Sequence[ExpertReply]:
        await pool.ask([Query(text="a", slot=0)])
        return await pool.ask([Query(text="a", slot=0), Query(text="a", slot=1)])

    replaced, alone = asyncio.run(twice())
    assert replaced == Reply("echo", "echo: a")
    assert isinstance(alone, Unavailable), "no other model answers in its place"


def test_a_slow_endpoint_of_a_model_gets_fewer_queries() -> None:
    """Two endpoints 20 times as fast as the third; the queries come in three batches."""
    with StubServer() as one, StubServer() as two, StubServer(slowness=20) as slow:
        group = [Endpoint(base_url=s.url, models=["delay:0.05"]) for s in (slow, one, two)]
        pool = OpenAIExperts(endpoints=group)

        async def batches() -> None:
            for _ in range(3):
                await pool.ask(queries(*"abcdefghijklmnopqrstuvwx"))

        asyncio.run(batches())
        counts = [len(server.records("delay:0.05")) for server in (one, two, slow)]
    assert sum(counts) == 3 * 24
    assert counts[2] < min(counts[:2])


def test_a_full_group_keeps_the_limit_of_each_endpoint() -> None:
    with StubServer() as one, StubServer() as two:
        group = [
            Endpoint(base_url=server.url, models=["delay:0.02"], max_live_calls=limit)
            for server, limit in ((one, 2), (two, 3))
        ]
        replies = asyncio.run(OpenAIExperts(endpoints=group).ask(queries(*"a" * 40)))
        assert replies == [Reply("delay:0.02", "echo: a")] * 40
        assert [server.max_live("delay:0.02") for server in (one, two)] == [2, 3]


@pytest.mark.parametrize(
    ("health", "listed", "cooldown_s"),
    [(200, (), 3600), (None, ("delay:0.1",), 3600), (None, (), 3600), (503, (), 0.5)],
    ids=["healthy", "list of models", "neither page", "cooled down"],
)
def test_nothing_is_lost_when_one_of_three_servers_is_killed_and_restarted(
    health: int | None, listed: tuple[str, ...], cooldown_s: float
) -> None:
    """It dies with calls in flight; it is asked again once it is healthy, or has cooled down."""
    breaker = Breaker(max_failures=2, cooldown_s=cooldown_s)
    model = "delay:0.1"

    async def through_it_all(victim: StubServer, *others: StubServer) -> list[ExpertReply]:
        pool = OpenAIExperts(
            endpoints=[
                Endpoint(
                    base_url=server.url,
                    models=[model],
                    max_live_calls=4,
                    max_retries=0,
                    breaker=breaker,
                )
                for server in (victim, *others)
            ]
        )
        replies: list[ExpertReply] = []
        asking = asyncio.create_task(pool.ask(queries(*"a" * 60)))
        await asyncio.to_thread(victim.wait_for, model, 4)
        victim.kill()
        replies += await asking
        replies += await pool.ask(queries(*"a" * 30))
        victim.start()
        while not victim.records(model):
            replies += await pool.ask(queries(*"a" * 12))
        return replies

    with StubServer(*listed, health=health) as victim, StubServer() as one, StubServer() as two:
        replies = asyncio.run(through_it_all(victim, one, two))
    assert set(replies) == {Reply(model, "echo: a")}
    assert len(replies) > 90


def test_a_server_that_is_back_and_not_healthy_is_not_asked() -> None:
    async def back_but_ill(server: StubServer) -> ExpertReply:
        breaker = Breaker(max_failures=1, cooldown_s=3600)
        pool = pool_of(server.url, "echo", breaker=breaker)
        server.kill()
        await pool.ask(queries("a"))
        server.start()
        await asyncio.to_thread(server.wait_for_health_checks, 2)
        return (await pool.ask(queries("a")))[0]

    with StubServer("echo", health=503) as server:
        reply = asyncio.run(back_but_ill(server))
        assert isinstance(reply, Unavailable)
        assert re.search("the circuit of .* is open: .", reply.reason)
        assert server.records("echo") == []


@pytest.mark.parametrize("hedged_share", [0.05, 0.0])
def test_calls_to_a_server_that_hangs_are_answered_by_another(hedged_share: float) -> None:
    """A server is stopped with SIGSTOP; what was sent to it is cancelled once another answers."""

    async def warm_then_hang(hangs: StubServer, fine: StubServer) -> Sequence[ExpertReply]:
        endpoints = [
            Endpoint(base_url=server.url, models=["delay:0.1"], hedged_share=hedged_share)
            for server in (hangs, fine)
        ]
        pool = OpenAIExperts(endpoints=endpoints, batch_timeout_s=30 if hedged_share else 3)
        await pool.ask(queries(*"a" * 2 * FEWEST_MEASURED))
        assert hangs.process is not None
        hangs.process.send_signal(signal.SIGSTOP)
        guarded = GuardedExperts(inner=pool)
        replies = await guarded.ask(queries(*"b" * 8))
        hedge_rate = guarded.monitor.metrics().get("expert_hedge_rate", 0.0)
        assert (hedge_rate > 0) == (hedged_share > 0)
        for endpoint in endpoints:
            connection = await open_connection(endpoint)
            assert connection is not None
            assert connection.load.in_flight == 0
        return replies

    with StubServer() as fine, StubServer() as hangs:
        replies = asyncio.run(warm_then_hang(hangs, fine))
    num_answered = sum(isinstance(reply, Reply) for reply in replies)
    assert num_answered == 8 if hedged_share else num_answered < 8


def test_an_endpoint_that_loses_races_is_not_taken_for_dead() -> None:
    """Each call is repeated at a slower server, which never answers before it is cancelled."""

    async def circuit_of_slower(*servers: StubServer) -> Circuit:
        model = "delay:0.15"
        endpoints = [
            Endpoint(base_url=one.url, models=[model], hedged_share=0.5) for one in servers
        ]
        found = [await open_connection(endpoint) for endpoint in endpoints]
        connections = [one for one in found if one is not None]
        for connection in connections:
            connection.queue(model).recent_s.extend([0.05] * FEWEST_MEASURED)
        pool = OpenAIExperts(endpoints=endpoints)
        for n in range(connections[1].endpoint.breaker.max_failures + 1):
            [reply] = await pool.ask(queries(str(n)))
            assert isinstance(reply, Reply)
            assert reply.hedged
        return connections[1].circuit

    with StubServer() as faster, StubServer(slowness=40) as slower:
        assert asyncio.run(circuit_of_slower(faster, slower)) == Closed(0)


def test_a_probe_that_was_never_sent_leaves_the_circuit_open() -> None:
    """The money is spent just when the circuit would let a call through."""

    async def circuit_after(pool: OpenAIExperts, endpoint: Endpoint) -> Circuit:
        connection = await open_connection(endpoint)
        assert connection is not None
        connection.circuit = Open(until_s=0.0)
        assert await pool.ask(queries("a")) == [REFUSED]
        assert connection.admits, "the next call may probe"
        return connection.circuit

    endpoint = Endpoint(base_url="http://127.0.0.1:9/v1", models=["m"])
    budget = Budget(token_limit=1)
    budget.charge(1, 1, None)
    pool = OpenAIExperts(endpoints=[endpoint], budget=budget)
    assert isinstance(asyncio.run(circuit_after(pool, endpoint)), Open)


def test_a_group_of_dead_servers_says_why() -> None:
    with StubServer() as one, StubServer() as two:
        urls = [one.url, two.url]
    dead = [Endpoint(base_url=url, models=["echo"], max_retries=0) for url in urls]
    (reply,) = ask(OpenAIExperts(endpoints=dead), "a")
    assert isinstance(reply, Unavailable)
    assert "Connect" in reply.reason


def test_the_route_is_the_users(server: StubServer) -> None:
    endpoint = Endpoint(base_url=server.url, models=["echo:0", "echo:1"])
    pool = OpenAIExperts(endpoints=[endpoint], route=by_question)
    asked = [Query(text="?", seed=seed) for seed in range(4)]
    replies = asyncio.run(pool.ask(asked))
    assert [reply.expert for reply in replies] == ["echo:0", "echo:1"] * 2


def test_a_route_or_reader_that_fails_loses_its_own_reply_alone(server: StubServer) -> None:
    def route(query: Query, num_experts: int) -> int:
        return {"far": 1, "near": 0, "odd": 0}[query.text]

    def read(content: Any, model: str) -> Any:
        text = content["choices"][0]["message"]["content"]
        return text if "odd" in text else Reply(model, text)

    endpoint = Endpoint(base_url=server.url, models=["echo:0", "echo:1"])
    pool = OpenAIExperts(endpoints=[endpoint], route=route, read=read)
    asked = [Query(text=text) for text in ("near", "lost", "odd", "far")]
    with pytest.warns(RuntimeWarning, match="failed: "):
        near, lost, odd, far = asyncio.run(pool.ask(asked))
    assert [reply.expert for reply in (near, far)] == ["echo:0", "echo:1"]
    assert isinstance(near, Reply)
    assert isinstance(far, Reply)
    assert isinstance(lost, Unavailable)
    assert isinstance(odd, Unavailable)
    assert "KeyError('lost')" in lost.reason
    assert "read must return a Reply or an Unavailable, not 'echo: odd'" in odd.reason


def test_a_model_that_is_not_served_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """Some servers answer with the model they have, whatever its name."""
    with StubServer("echo:there") as server:
        pool = pool_of(server.url, "echo:there", "echo:misspelt")

        async def used() -> Sequence[ExpertReply]:
            replies = await pool.ask([Query(text="a", slot=1)])
            while not caplog.messages:
                await asyncio.sleep(0.01)
            return replies

        assert asyncio.run(used()) == [Reply("echo:misspelt", "echo: a")]
    assert caplog.messages == [
        f"{server.url} serves echo:there, not echo:misspelt: what it answers may be another model's"
    ]


def test_the_pool_is_a_value_before_and_after_use(server: StubServer) -> None:
    pool = pool_of(server.url, "echo")
    before = pickle.dumps(pool)

    async def use() -> None:
        await check_expert_pool(pool)
        assert pickle.dumps(pool) == before
        assert copy.deepcopy(pool) == pool == pickle.loads(before)

    asyncio.run(use())


def test_an_empty_batch_connects_to_nothing() -> None:
    assert ask(pool_of("http://127.0.0.1:9/v1", "echo")) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"endpoints": []}, "at least one endpoint"),
        ({"batch_timeout_s": 0}, "batch_timeout_s must be positive, not 0"),
    ],
)
def test_impossible_pools_are_refused(settings: dict[str, Any], message: str) -> None:
    endpoint = Endpoint(base_url="http://127.0.0.1/v1", models=["echo"])
    with pytest.raises(ValueError, match=message):
        OpenAIExperts(**{"endpoints": [endpoint], **settings})


THOUGHT = "Okay, so I need to find the sum. Let me think. " * 20


@pytest.mark.parametrize(
    ("content", "fields", "thinking", "reply"),
    [
        (THOUGHT, {}, "maybe", None),  # QwQ: its template wrote <think> into the prompt
        (f"<think>{THOUGHT}", {}, "maybe", None),
        (f"<think>{THOUGHT}", {}, "none", None),
        (f"{THOUGHT}</think>The sum of 2", {}, "maybe", f"The sum of 2{CUT_MARK}"),
        (f"{THOUGHT}</think>", {}, "maybe", None),
        ("The sum of 2", {}, "none", f"The sum of 2{CUT_MARK}"),
        ("The sum of 2", {"reasoning": THOUGHT}, "maybe", f"The sum of 2{CUT_MARK}"),
        ("", {"reasoning_content": THOUGHT}, "maybe", None),
    ],
)
def test_a_reply_that_was_cut_is_marked_or_unavailable(
    content: str, fields: dict[str, str], thinking: Literal["maybe", "none"], reply: str | None
) -> None:
    """vllm#12468: reasoning that max_tokens cut must not pass for an answer."""
    body = completion(content, "length")
    body["choices"][0]["message"] |= fields
    read = read_reply(body, "m", thinking)
    assert (read.text if isinstance(read, Reply) else None) == reply
    if isinstance(read, Unavailable):
        assert read.reason.startswith("cut by max_tokens after")
    assert isinstance(read_with_reasoning(body, "m"), Unavailable)
    whole = read_reply(completion(content or "5"), "m", thinking)
    assert isinstance(whole, Reply) or not without_reasoning(content)


def test_an_endpoint_says_how_its_models_think(server: StubServer) -> None:
    for thinking, kind in (("maybe", Unavailable), ("none", Reply)):
        (reply,) = ask(pool_of(server.url, "cut", thinking=thinking), "2+2?")
        assert isinstance(reply, kind)
    with pytest.raises(UserError, match="thinking must be maybe or none, not 'often'"):
        Endpoint(base_url=server.url, models=["m"], thinking="often")  # type: ignore[arg-type]


def test_a_model_without_a_system_role_reads_the_instruction_in_the_question(
    server: StubServer,
) -> None:
    """mistral.rs#506, vllm#6862: its template refuses the role, and the server answers 400."""
    pool = pool_of(server.url, "no-system-role")

    async def twice() -> list[ExpertReply]:
        first = await pool.ask(queries("2+2?"))
        return [*first, *await pool.ask(queries("3+3?"))]

    replies = asyncio.run(twice())
    assert all(isinstance(reply, Reply) for reply in replies)
    roles = [
        [m["role"] for m in call["body"]["messages"]] for call in server.records("no-system-role")
    ]
    assert roles == [["system", "user"], ["user"], ["user"]]
    assert pool.system_prompt in server.records("no-system-role")[1]["text"]


def test_a_model_that_refuses_for_another_reason_is_asked_twice_at_most(
    server: StubServer,
) -> None:
    pool = pool_of(server.url, "status:400")
    before = len(server.records("status:400"))

    async def thrice() -> list[ExpertReply]:
        return [(await pool.ask(queries("2+2?")))[0] for _ in range(3)]

    assert all(isinstance(reply, Unavailable) for reply in asyncio.run(thrice()))
    assert len(server.records("status:400")) - before == 4
