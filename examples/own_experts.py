"""Plug in experts of your own: a pool, a test that it keeps its promises, an episode, a training.

    python examples/own_experts.py                  # check the pool, and ask it in an episode
    cd examples && eapo train embedded --set experts.kind=python \\
      --set experts.factory=own_experts:pool --set 'experts.arguments={"latency_s": 0.01}' \\
      --set steps=4 --set learner.warmup_steps=0 --set rollout.sampling.groups_per_step=4 \\
      --set rollout.sampling.problems_per_round=4 --set evaluation.problems.limit=8

The pool `Office` has two experts. A calculator works out a question that is an expression, with a
name before it or not; so does a colleague, who takes a while, and otherwise says how to go on.
Questions are shared out by their place in the turn. An expert without an answer says
`Unavailable(NO_ANSWER)`; what it raised would cost its reply, not the run. `Mixed` makes several
pools one, here a function and a model that `eapo serve-expert MODEL` serves:

    --set experts.factory=own_experts:with_a_model \\
    --set 'experts.arguments={"base_url": "http://127.0.0.1:8000/v1", "model": "MODEL"}'
"""

from __future__ import annotations

import ast
import asyncio
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import gymnasium as gym

import eapo_env  # registers EAPO-Math-v0
from eapo_env import (
    NO_ANSWER,
    Endpoint,
    ExpertPool,
    ExpertReply,
    OpenAIExperts,
    Query,
    Reply,
    ScriptedExperts,
    Unavailable,
)
from eapo_env.testing import check_expert_pool

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}


@dataclass(frozen=True)
class Office:
    """A calculator and a colleague.

    Args:
        latency_s: how long the colleague takes.
    """

    latency_s: float = 0.1

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        """Return one reply per query, in order; all are worked on at the same time."""
        return await asyncio.gather(*(self._answer(query) for query in queries))

    async def _answer(self, query: Query) -> ExpertReply:
        value = told(query)
        if query.slot == 0:
            return Unavailable(NO_ANSWER) if value is None else Reply("calculator", value)
        await asyncio.sleep(self.latency_s)  # a call of your client would stand here
        return Reply("colleague", value or "Work the brackets out first, then add them.")


def calculated(text: str) -> int | None:
    """Return the value of an expression of whole numbers, modulo 100; None if it is none."""
    try:
        return value_of(ast.parse(text.strip(), mode="eval").body) % 100
    except (SyntaxError, ValueError, KeyError, TypeError, RecursionError, MemoryError):
        return None


def value_of(node: ast.expr) -> int:
    """Return the value of a parsed expression."""
    match node:
        case ast.Constant(value=int(number)) if not isinstance(number, bool):
            return number
        case ast.BinOp(left, symbol, right):
            value: int = OPERATORS[type(symbol)](value_of(left), value_of(right))
            return value % 100
        case _:
            raise ValueError(ast.dump(node))


@dataclass(frozen=True)
class Mixed:
    """Several pools as one, each of which answers the questions at its places in the turn.

    All replies of a turn wait for the slowest pool: give each a timeout below the environment's.
    """

    pools: tuple[ExpertPool, ...]

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        """Return one reply per query, in order; all pools are asked at the same time."""
        asked = [self.pools[query.slot % len(self.pools)].ask([query]) for query in queries]
        return [reply for [reply] in await asyncio.gather(*asked)]


def with_a_model(base_url: str, model: str) -> Mixed:
    """Return a function and a served model in one pool; they take the questions in turn."""
    served = OpenAIExperts(
        endpoints=[Endpoint(base_url=base_url, models=(model,), call_timeout_s=60)]
    )
    return Mixed((ScriptedExperts(told, names=("calculator",)), served))


def told(query: Query) -> str | None:
    """Return the value of a question that is an expression; None, which is no answer, if not."""
    name, _, expression = query.text.rpartition(":")  # "a:((32+8)*3)" of the embedded model
    value = calculated(expression)
    if value is None:
        return None
    return f"{name}={value}" if name else str(value)


def pool(latency_s: float = 0.1) -> Office:
    """Return the pool; `experts.factory` names this function, `experts.arguments` its arguments."""
    return Office(latency_s=latency_s)


def main() -> None:
    """Check the pool, and ask it in an episode."""
    asyncio.run(check_expert_pool(Office()))
    print("the pool keeps what ExpertPool promises")
    env = gym.make("EAPO-Math-v0", experts=Office(), observation="delta")
    env.reset(seed=0)
    asked = eapo_env.Consult(("(47+38)*6", "How do I begin?"))
    observation, *_ = env.step(eapo_env.render_consult(asked))
    print(observation)
    env.close()


if __name__ == "__main__":
    main()
