"""A pool of experts behind OpenAI-compatible servers (vLLM, any provider) that survives failures.

Whatever a server does (refuse, fail, hang, hang up, answer nonsense), the reply is `Unavailable`
with a reason, in time. The pool itself is a plain value: connections, the limit on live calls and
the circuit of an endpoint belong to the running event loop (`connections.py`).
"""

from __future__ import annotations

import asyncio
import reprlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from eapo_env.acceptance import REFUSED
from eapo_env.balancing import hedge_after
from eapo_env.call_queue import Queue
from eapo_env.connections import (
    LOST_RACE,
    Connection,
    Failure,
    Payload,
    close_connection,
    open_connection,
)
from eapo_env.endpoints import Endpoint, Thinking
from eapo_env.experts import query_rng, warned
from eapo_env.prompts import CUT_MARK, encodable
from eapo_env.reachability import unreachable
from eapo_env.spending import Budget, read_usage, tokens_to_charge
from eapo_env.types import ExpertReply, Query, Reply, Unavailable
from eapo_env.validation import UserError, positive

_BAD_REQUEST = 400
_PERHAPS = "perhaps inside its reasoning (thinking=none of an endpoint relays such replies)"
SYSTEM_PROMPT = (
    "You are an expert whom a colleague consults on a question that came up in a larger problem."
    " Answer exactly what is asked: reason carefully, be brief, and state the result clearly at"
    " the end. If the question cannot be answered as it stands, say what is missing."
)


def read_reply(content: object, model: str, thinking: Thinking = "maybe") -> ExpertReply:
    """Return the reply in a decoded chat completion, without reasoning; never raises.

    A reply that the token limit cut is marked where it ends. One that was cut inside its reasoning
    is unavailable; without tags or a field of reasoning only `thinking` says that it was not.
    """
    match _read_message(content, model):
        case Unavailable() as unavailable:
            return unavailable
        case reasoning, text:
            answer = without_reasoning(text)
            if not _is_cut(content):
                return Reply(model, answer) if answer else Unavailable("an empty reply", model)
            told_apart = reasoning or "</think>" in text or thinking == "none"
            if answer and told_apart:
                return Reply(model, answer + CUT_MARK)
            where = "inside its reasoning" if told_apart or "<think>" in text else _PERHAPS
            return Unavailable(f"cut by max_tokens after {len(text)} characters, {where}", model)


def read_with_reasoning(content: object, model: str) -> ExpertReply:
    """Return the reply in a decoded chat completion, after its reasoning; never raises.

    Servers send the reasoning within the text, or as `reasoning` or `reasoning_content`. What the
    token limit cut is no solution.
    """
    if _is_cut(content):
        return Unavailable("cut by max_tokens", model)
    match _read_message(content, model):
        case Unavailable() as unavailable:
            return unavailable
        case "", text:
            whole = text.strip()
        case reasoning, text:
            whole = f"<think>\n{reasoning.strip()}\n</think>\n\n{text.strip()}"
    return Reply(model, whole) if whole else Unavailable("an empty reply", model)


def _read_message(content: object, model: str) -> tuple[str, str] | Unavailable:
    """Return the reasoning field of a chat completion, or "", and its text."""
    match content:
        case {
            "choices": [{"message": {"content": str(text)}, "finish_reason": "abort" | "error"}, *_]
        }:
            return Unavailable(f"cut off by the server after {len(text)} characters", model)
        case {"choices": [{"message": {"content": str(text), **rest}}, *_]}:
            fields = [rest.get(name) for name in ("reasoning", "reasoning_content")]
            return next((part for part in fields if isinstance(part, str)), ""), text
        case _:
            return Unavailable(f"not a chat completion: {reprlib.repr(content)}", model)


def _is_cut(content: object) -> bool:
    """Return whether the token limit ended a chat completion."""
    match content:
        case {"choices": [{"finish_reason": "length"}, *_]}:
            return True
        case _:
            return False


def without_reasoning(text: str) -> str:
    """Return the text after its `<think>...</think>` part, open or closed, with or without it."""
    return text.rpartition("</think>")[2].partition("<think>")[0].strip()


def by_slot(query: Query, num_experts: int) -> int:
    """Return the index of an expert by slot (0, 1, ...): parallel queries ask different experts."""
    return query.slot % num_experts


def by_question(query: Query, num_experts: int) -> int:
    """Return the index of an expert by seed, turn and slot: the load is even over the experts.

    With `by_slot`, a policy that mostly asks one question a turn mostly asks the first expert.
    """
    return (query.seed + query.turn + query.slot) % num_experts


_BUILT_IN = (by_slot, by_question, read_reply, read_with_reasoning)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What became of a query, at which endpoint, and whether two were asked."""

    result: Payload | Failure
    connection: Connection
    hedged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIExperts:
    """A pool of expert models behind one or several OpenAI-compatible endpoints.

    The experts are the models of the endpoints, in order. The endpoints of one model are a group:
    a query goes to the one with the least (calls in flight + 1) x mean latency
    (`eapo_env.balancing.choose`). One that is not reached, hangs up or answers 5xx is passed over,
    and so is one whose circuit is open, until it has cooled down. An expert is never replaced by
    another model, which would change the experiment. Connections close when the event loop shuts
    down; `aclose` closes them earlier.

    Args:
        endpoints: the servers.
        system_prompt: of every request; "" for none. A model without a system role reads it at the
            head of the question.
        temperature: the experts' sampling temperature.
        top_p: the experts' nucleus sampling threshold.
        max_tokens: the most tokens of one reply, reasoning included.
        extra_body: further fields of the request, or other values for these; a field whose value
            is None is not sent.
        seed: derives a sampling seed for each query, sent to the server; None sends no seed.
        batch_timeout_s: timeout of a batch of queries: later replies are unavailable, and their
            calls cancelled; the others are kept. The caller may have a shorter one
            (`GuardedExperts`), and then keeps none of a batch that is late.
        budget: the most that may be spent. Once it is, queries are refused as the gate refuses
            them, those that wait for a free call included. A call whose usage the server does not
            say is charged with the most that it can have used: `max_tokens`, and a token a byte of
            the request. What has no answer (a timeout, a cancelled call) is not charged.
        route: (query, number of experts) -> index of the expert to ask: `by_slot`, `by_question` or
            a custom function.
        read: (decoded chat completion, model) -> the reply in it: `read_reply`,
            `read_with_reasoning` or a custom function.

    Raises:
        UserError: no endpoint, a value out of its range, or a limit on the cost with an endpoint
            that has no price.
    """

    endpoints: Sequence[Endpoint]
    system_prompt: str = SYSTEM_PROMPT
    temperature: float = 0.6
    top_p: float = 0.95
    max_tokens: int = 8192
    extra_body: Mapping[str, object] = field(default_factory=dict)
    seed: int | None = None
    batch_timeout_s: float = 300.0
    budget: Budget = field(default_factory=Budget)
    route: Callable[[Query, int], int] = by_slot
    read: Callable[[object, str], ExpertReply] = read_reply

    def __post_init__(self) -> None:
        object.__setattr__(self, "endpoints", tuple(self.endpoints))
        if not self.endpoints:
            raise UserError("a pool needs at least one endpoint, not ()")
        if other := [one for one in self.endpoints if not isinstance(one, Endpoint)]:
            raise UserError(f"endpoints must be of the class Endpoint, not {other[0]!r:.200}")
        positive(self, "batch_timeout_s")
        unpriced = [e.base_url for e in self.endpoints if e.price is None]
        if unpriced and self.budget.cost_limit is not None:
            raise UserError(f"a limit on the cost needs the price of {unpriced[0]}")

    @property
    def cooperative(self) -> bool:
        """Whether no custom function could block."""
        return self.route in _BUILT_IN and self.read in _BUILT_IN

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        """Return the experts' replies in query order; they are asked in parallel.

        Raises:
            UserError: the folder of an endpoint's `shared_slots` cannot be used; nothing else.
        """
        if not queries:
            return []
        opened = {endpoint: await open_connection(endpoint) for endpoint in self.endpoints}
        tasks = [asyncio.create_task(self._timed(query, opened)) for query in queries]
        try:
            await asyncio.wait(tasks, timeout=self.batch_timeout_s)
        finally:
            await _cancel(tasks)
        late = Unavailable(f"no reply within {self.batch_timeout_s:g} s (the batch's deadline)")
        return [late if task.cancelled() else task.result() for task in tasks]

    async def check(self) -> None:
        """Ask every endpoint which models it serves.

        Raises:
            UserError: one does not answer, refuses the key, or does not serve one of its models.
        """
        reasons = await asyncio.gather(*map(unreachable, self.endpoints))
        found = [f"{e.base_url}: {r}" for e, r in zip(self.endpoints, reasons, strict=True) if r]
        if found:
            raise UserError(f"experts that cannot be asked: {'; '.join(found)}")

    async def aclose(self) -> None:
        """Close the running loop's connections to the endpoints; the next use opens new ones."""
        for endpoint in self.endpoints:
            await close_connection(endpoint)

    async def _timed(
        self, query: Query, opened: Mapping[Endpoint, Connection | None]
    ) -> ExpertReply:
        """Return the reply to a query with its latency, the wait for a free slot included."""
        asked_s = time.monotonic()
        reply = await self._ask_one(query, opened)
        return replace(reply, latency_s=time.monotonic() - asked_s)

    async def _ask_one(
        self, query: Query, opened: Mapping[Endpoint, Connection | None]
    ) -> ExpertReply:
        experts = [(model, endpoint) for endpoint in self.endpoints for model in endpoint.models]
        try:
            chosen = self.route(query, len(experts)) % len(experts)
        except Exception as error:
            return warned(error, "")
        model = experts[chosen][0]
        group = dict.fromkeys(e for name, e in experts[chosen:] + experts[:chosen] if name == model)
        connections = [there for endpoint in group if (there := opened[endpoint]) is not None]
        if not connections:
            unset = experts[chosen][1].api_key_env
            return Unavailable(f"the variable {unset} is not set or empty", model)
        return await self._ask_group(connections, self._request(query, model))

    async def _ask_group(
        self, connections: Sequence[Connection], body: Mapping[str, object]
    ) -> ExpertReply:
        """Return the reply of one of the endpoints of a model; those that fail are passed over."""
        model = str(body["model"])
        queue = min(connections, key=lambda one: one.endpoint.base_url).queue(model)
        first = connections[0]
        why = f"the circuit of {first.endpoint.base_url} is open: {first.last_failure}"
        while connections:
            async with queue.slot(connections) as connection:
                if self.budget.is_spent:
                    return REFUSED
                if connection is None:
                    break
                others = [one for one in connections if one is not connection]
                asked = await self._hedged(queue, connection, others, body)
            match asked.result:
                case Payload(content):
                    endpoint = asked.connection.endpoint
                    reply = self._read(content, model, endpoint.thinking)
                    usage = reply.usage or read_usage(content, endpoint.price)
                    return replace(reply, hedged=asked.hedged, usage=usage)
                case Failure(reason, lost=False):
                    return Unavailable(reason, model, hedged=asked.hedged)
                case Failure(why):
                    connections = others
        return Unavailable(why, model)

    def _read(self, content: object, model: str, thinking: Thinking) -> ExpertReply:
        if self.read is read_reply:
            return read_reply(content, model, thinking)
        try:
            reply = self.read(content, model)
            if not isinstance(reply, ExpertReply):
                raise TypeError(f"read must return a Reply or an Unavailable, not {reply!r:.80}")
        except Exception as error:
            return warned(error, model)
        return reply

    async def _hedged(
        self,
        queue: Queue,
        connection: Connection,
        others: Sequence[Connection],
        body: Mapping[str, object],
    ) -> _Asked:
        """Return the answer of an endpoint or, if that is slow, the first of two."""
        sent_s = time.monotonic()
        after_s = hedge_after(queue.recent_s, connection.endpoint.hedged_share)
        if after_s is None or not others:
            asked = _Asked(await self._called(connection, body), connection)
        else:
            again_sent = asyncio.Event()
            call = asyncio.create_task(self._called(connection, body))
            again = asyncio.create_task(self._again(after_s, queue, others, body, again_sent))
            try:
                await asyncio.wait([call, again], return_when=asyncio.FIRST_COMPLETED)
                if not call.done() and isinstance(again.result().result, Payload):
                    asked = again.result()
                else:
                    asked = _Asked(await call, connection, again_sent.is_set())
                    await _cancel([again], LOST_RACE)
            finally:
                await _cancel([call, again])
        if isinstance(asked.result, Payload):
            queue.recent_s.append(time.monotonic() - sent_s)
        return asked

    async def _again(
        self,
        after_s: float,
        queue: Queue,
        others: Sequence[Connection],
        body: Mapping[str, object],
        sent: asyncio.Event,
    ) -> _Asked:
        """Return the answer of a second endpoint, asked after a time."""
        await asyncio.sleep(after_s)
        async with queue.spare_slot(others) as second:
            sent.set()
            return _Asked(await self._called(second, body), second, hedged=True)

    async def _called(
        self, connection: Connection, body: Mapping[str, object]
    ) -> Payload | Failure:
        """Return the endpoint's answer, the instruction put into the question where it must be.

        Some models have no system role, and their servers refuse the request (400). The first time
        a model does, it is asked again without; if it answers then, it is so asked from then on.
        """
        model = str(body["model"])
        if connection.system_role.get(model, True):
            result = await self._sent(connection, body)
            refused = isinstance(result, Failure) and result.status == _BAD_REQUEST
            if not (refused and self.system_prompt) or model in connection.system_role:
                return result
            joined = await self._sent(connection, _without_system_role(body))
            connection.system_role[model] = not isinstance(joined, Payload)
            return joined if isinstance(joined, Payload) else result
        return await self._sent(connection, _without_system_role(body))

    async def _sent(self, connection: Connection, body: Mapping[str, object]) -> Payload | Failure:
        """Return the endpoint's answer, which is charged to the budget."""
        result = await connection.send(body)
        if isinstance(result, Payload):
            tokens = tokens_to_charge(body, result.content)
            self.budget.charge(*tokens, connection.endpoint.price)
        return result

    def _request(self, query: Query, model: str) -> dict[str, object]:
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        body = {
            "model": model,
            "messages": [*system, {"role": "user", "content": encodable(query.text)}],
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "seed": None if self.seed is None else int(query_rng(query, self.seed).integers(2**31)),
            **self.extra_body,
        }
        return {name: value for name, value in body.items() if value is not None}


def _without_system_role(body: Mapping[str, object]) -> dict[str, object]:
    """Return a request with the system prompt at the head of the question."""
    match body["messages"]:
        case [{"role": "system", "content": str(system)}, {"role": "user", "content": str(text)}]:
            return {**body, "messages": [{"role": "user", "content": f"{system}\n\n{text}"}]}
        case _:
            return dict(body)


async def _cancel(tasks: Sequence[asyncio.Task[Any]], why: str | None = None) -> None:
    stragglers = [task for task in tasks if task.cancel(why)]
    if stragglers:
        await asyncio.wait(stragglers)
