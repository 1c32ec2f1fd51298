"""What experts cost: counts, prices, and a spent budget that closes the gate and nothing else."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from stub_server import StubServer, completion

from eapo_env.acceptance import REFUSED
from eapo_env.actions import Consult, render_consult
from eapo_env.endpoints import Endpoint
from eapo_env.env import EAPOMathEnv
from eapo_env.episode import act, begin, receive
from eapo_env.experts import ErroneousExperts
from eapo_env.guarded_experts import GuardedExperts
from eapo_env.openai_experts import OpenAIExperts
from eapo_env.spending import Budget, Price, Spent, budget_of, read_usage, tokens_to_charge
from eapo_env.types import ExpertReply, Problem, Query, Reply, Rules, Unavailable, Usage
from eapo_env.validation import UserError

PRICE = Price(prompt=2.0, completion=8.0)
PROBLEM = Problem(id="p", statement="What is $1+1$?", answer="2")


@pytest.fixture(scope="module")
def server() -> Iterator[StubServer]:
    with StubServer() as server:
        yield server


def pool_of(server: StubServer, *models: str, budget: Budget, **settings: Any) -> OpenAIExperts:
    endpoint = Endpoint(base_url=server.url, models=models, max_retries=0, **settings)
    return OpenAIExperts(endpoints=[endpoint], budget=budget)


def queries(count: int) -> list[Query]:
    return [Query(text="2+2?", slot=slot) for slot in range(count)]


def test_a_price_is_per_million_tokens() -> None:
    assert PRICE.of(1_000, 500) == pytest.approx(0.002 + 0.004)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50))), st.integers(1, 300))
def test_a_budget_is_spent_once_its_limit_is_reached(
    calls: list[tuple[int, int]], limit: int
) -> None:
    budget = Budget(token_limit=limit)
    for prompt, completed in calls:
        budget.charge(prompt, completed, PRICE)
    total = sum(map(sum, calls))
    assert budget.spent.tokens == total
    assert budget.spent.cost == pytest.approx(sum(PRICE.of(*call) for call in calls))
    assert budget.is_spent == (total >= limit)
    assert budget.metrics()["expert_budget_used"] == pytest.approx(total / limit)


def test_the_limit_that_is_reached_first_counts_and_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    budget = Budget(cost_limit=0.01, token_limit=10**9)
    for _ in range(4):
        budget.charge(1_000, 250, PRICE)  # 0.004 each
    assert budget.is_spent
    assert caplog.messages == [
        "THE EXPERTS' BUDGET IS SPENT (3750 tokens, cost 0.012): the gate refuses all further"
        " queries"
    ]
    assert Budget().metrics() == {}
    assert not Budget().is_spent
    assert Budget(token_limit=0).is_spent


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        ({"prompt_tokens": 1_000, "completion_tokens": 500}, Usage(1_000, 500, 0.006)),
        ({"prompt_tokens": 1_000}, Usage()),
        ({"prompt_tokens": -1, "completion_tokens": 5}, Usage()),
        ({"prompt_tokens": "1", "completion_tokens": 5}, Usage()),
        (None, Usage()),
    ],
)
def test_usage_is_what_the_server_says_or_unknown(usage: object, read: Usage) -> None:
    assert read_usage(completion("2") | {"usage": usage}, PRICE) == read


def test_unknown_usage_is_charged_with_the_most_that_it_can_be() -> None:
    messages = [{"role": "user", "content": "∫?"}]
    num_bytes = len('[{"role": "user", "content": "∫?"}]') + 2  # the integral sign has three bytes
    told = completion("2") | {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}
    body = {"messages": messages, "max_tokens": 99}
    assert tokens_to_charge(body, told) == (3, 4)
    assert tokens_to_charge(body, completion("2")) == (num_bytes, 99)
    without_limit = {"messages": messages}
    assert tokens_to_charge(without_limit, completion("éa")) == (
        num_bytes,
        len("éa".encode()) + len("assistant"),
    )
    assert tokens_to_charge(body, "<h1>It works!</h1>") == (0, 0)


def test_the_gate_closes_for_queries_that_wait_for_a_free_call(server: StubServer) -> None:
    """15 tokens a call, one at a time: the third reaches the limit of 40."""
    budget = Budget(token_limit=40)
    pool = pool_of(server, "usage:10-5", budget=budget, max_live_calls=1, price=PRICE)
    replies = asyncio.run(pool.ask(queries(6)))
    assert replies == [Reply("usage:10-5", "echo: 2+2?")] * 3 + [REFUSED] * 3
    assert [reply.usage for reply in replies[:3]] == [Usage(10, 5, PRICE.of(10, 5))] * 3
    assert len(server.records("usage:10-5")) == 3
    spent = budget.spent
    assert (spent.prompt_tokens, spent.completion_tokens) == (30, 15)
    assert spent.cost == pytest.approx(0.00018)
    assert asyncio.run(pool.ask(queries(1))) == [REFUSED]
    assert pickle.loads(pickle.dumps(pool)).budget.spent == Spent()


def test_a_server_that_counts_nothing_uses_the_budget_up_all_the_same(server: StubServer) -> None:
    pool = pool_of(server, "echo", budget=Budget(token_limit=8192), max_live_calls=1)
    replies = asyncio.run(pool.ask(queries(2)))
    assert replies == [Reply("echo", "echo: 2+2?"), REFUSED]
    assert replies[0].usage == Usage()


def test_a_limit_on_the_cost_needs_prices(server: StubServer) -> None:
    with pytest.raises(UserError, match=f"a limit on the cost needs the price of {server.url}"):
        pool_of(server, "echo", budget=Budget(cost_limit=1.0))
    with pytest.raises(UserError, match="cost_limit must be at least 0, not -1"):
        Budget(cost_limit=-1)
    with pytest.raises(UserError, match="prompt must be at least 0, not -2"):
        Price(prompt=-2, completion=1)


def test_the_budget_of_a_pool_is_found_inside_of_others(server: StubServer) -> None:
    budget = Budget(token_limit=40)
    pool = pool_of(server, "echo", budget=budget)
    assert budget_of(ErroneousExperts(inner=pool, error_rate=0.5)) is budget
    assert budget_of(object()).metrics() == {}


@given(st.lists(st.integers(1, 3), min_size=1, max_size=3), st.integers(0, 2**32), st.data())
def test_what_a_pool_refuses_is_refused_and_moves_no_draw(
    turns: list[int], seed: int, data: st.DataObject
) -> None:
    """The same episode twice, answered in full and with some queries refused."""
    answered = refused = begin(PROBLEM, Rules(turn_budget=9, acceptance_rate=0.5), seed=seed)
    rngs = [np.random.default_rng(seed) for _ in range(2)]
    for count in turns:
        text = render_consult(Consult(("2+2?",) * count))
        answered, refused = act(answered, text, rngs[0]), act(refused, text, rngs[1])
        whole: list[ExpertReply] = [Reply("ada", "4")] * count
        some: list[ExpertReply] = [data.draw(st.sampled_from([reply, REFUSED])) for reply in whole]
        answered, refused = receive(answered, whole), receive(refused, some)
        drawn, decided = answered.consultations[-1].accepted, refused.consultations[-1].accepted
        assert decided == tuple(
            accepted and reply != REFUSED for accepted, reply in zip(drawn, some, strict=True)
        )
    assert rngs[0].bit_generator.state == rngs[1].bit_generator.state


def test_the_environment_goes_on_with_a_closed_gate(server: StubServer) -> None:
    """The policy reads what it reads of experts that are not available."""
    consult = render_consult(Consult(("2+2?",)))

    def play(budget: Budget) -> tuple[str, dict[str, Any], dict[str, float]]:
        pool = pool_of(server, "usage:8-2", budget=budget)
        env = EAPOMathEnv(problems=[PROBLEM], experts=pool)
        env.reset(seed=0)
        env.step(consult)
        observation, _, _, _, info = env.step(consult)
        metrics = env.expert_monitor.metrics()
        assert env.episode.spent.tokens == budget.spent.tokens
        env.close()
        return observation, dict(info), metrics

    observation, info, metrics = play(Budget(token_limit=10))
    assert (info["queries"], info["accepted"]) == (2, 1)
    assert observation.count("No expert is available for this.") == 1
    assert metrics["expert_failure_rate"] == 0.0
    assert metrics["expert_prompt_tokens"] == 8.0
    observation, info, metrics = play(Budget(token_limit=0))
    assert (info["queries"], info["accepted"], metrics) == (2, 0, {})
    assert observation.count("No expert is available for this.") == 2


class Counted:
    """Replies whose usage is known, unknown, or not counted at all."""

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        return [
            Reply("ada", "4", usage=Usage(10, 5, 0.25)),
            Reply("ada", "4", usage=Usage(20, 5, 0.5)),
            Unavailable("cut", "bob", usage=Usage(1, 2)),
            Reply("eve", "4", usage=Usage()),
            Reply("carl", "4"),
            REFUSED,
        ]


def test_tokens_and_costs_are_metrics_and_unknown_ones_are_no_zeros() -> None:
    guarded = GuardedExperts(inner=Counted())
    asyncio.run(guarded.ask(queries(6)))
    found = guarded.monitor.metrics()
    assert found["expert_prompt_tokens"] == 31
    assert found["expert_completion_tokens"] == 12
    assert found["expert_cost"] == 0.75
    assert found["expert_unknown_usage_rate"] == 0.25
    assert found["expert_failure_rate"] == 0.2
    assert guarded.monitor.metrics() == {}
