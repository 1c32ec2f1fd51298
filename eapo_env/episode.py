"""An episode as a frozen value, advanced by pure functions: the rules of the game.

    begin -> act -> receive -> act -> ... -> act (a stop reason is set)

`act` takes a completion of the policy. If it consults, the episode then waits for replies
(`pending`), which `receive` writes into the history. Nothing here asks, waits or verifies.
`driver.py` plays whole episodes; the environments play single turns. Both ask `queries_to_send`,
write `receive_replies`, and grade `pairs_to_grade`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from eapo_env.acceptance import (
    draw_acceptance,
    queries_to_ask,
    replies_in_slots,
    still_accepted,
)
from eapo_env.actions import Action, Answer, Consult, Malformed, end_of_turn, parse_action
from eapo_env.prompts import Prompts, encodable
from eapo_env.spending import Spent
from eapo_env.types import (
    Consultation,
    ExpertReply,
    Gate,
    Message,
    Problem,
    Query,
    Reply,
    Rules,
    StopReason,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """An episode so far.

    Args:
        problem: what is being solved.
        rules: what the episode allows; fixed while it lasts.
        prompts: the wording of the environment's messages.
        seed: part of every query, so that an expert's randomness can be a function of it.
        messages: the history; it only grows.
        actions: what each turn did, in order.
        consultations: those whose replies were received, and last the pending one, if any.
        stop_reason: why the episode ended; None until then.
    """

    problem: Problem
    rules: Rules
    prompts: Prompts
    seed: int
    messages: tuple[Message, ...]
    actions: tuple[Action, ...] = ()
    consultations: tuple[Consultation, ...] = ()
    stop_reason: StopReason | None = None

    @property
    def turn(self) -> int:
        """The number of turns used."""
        return len(self.actions)

    @property
    def turns_left(self) -> int:
        """The number of turns the policy may still take."""
        return 0 if self.stop_reason else self.rules.turn_budget - len(self.actions)

    @property
    def pending(self) -> Consultation | None:
        """The consultation that waits for its replies; None when it is the policy's turn."""
        last = self.consultations[-1] if self.consultations else None
        return None if last is None or last.replies else last

    @property
    def num_queries(self) -> int:
        """The number of queries put to the gate so far."""
        return sum(len(consultation.queries) for consultation in self.consultations)

    @property
    def num_accepted(self) -> int:
        """The number of replies that were read: the gate accepted them, and they came."""
        return sum(
            accepted and isinstance(reply, Reply)
            for consultation in self.consultations
            for accepted, reply in zip(consultation.accepted, consultation.replies, strict=False)
        )

    @property
    def spent(self) -> Spent:
        """What its replies have cost, as far as it is known."""
        return Spent.of(reply.usage for one in self.consultations for reply in one.replies)

    @property
    def num_malformed(self) -> int:
        """The number of turns that neither consulted nor answered, though no limit cut them."""
        malformed = [isinstance(action, Malformed) for action in self.actions]
        cut_off = self.stop_reason is not None and self.stop_reason.truncated
        return sum(malformed[:-1] if cut_off else malformed)

    @property
    def response(self) -> str:
        """What the policy wrote last: the text that the verifier grades; empty before any turn."""
        last = self.messages[-1]
        return last.content if last.role == "assistant" else ""

    def transcript(self, start: int = 0) -> str:
        """Return the messages from number `start` on as one text, each headed by its role."""
        return "\n\n".join([f"[{m.role}]\n{m.content}" for m in self.messages[start:]])


def begin(
    problem: Problem, rules: Rules, prompts: Prompts | None = None, *, seed: int = 0
) -> Episode:
    """Return a fresh episode: its history is the opening prompt."""
    prompts = prompts or Prompts()
    opening = prompts.opening(problem, rules)
    return Episode(problem=problem, rules=rules, prompts=prompts, seed=seed, messages=(opening,))


def act(episode: Episode, completion: str, rng: np.random.Generator) -> Episode:
    """Return the episode after one completion of the policy; total in the completion.

    A consultation draws one uniform number per query slot from `rng`, in query order; nothing
    else draws. The episode ends on an answer, and on anything else in the last turn.
    """
    assert episode.stop_reason is None, "the episode is over"
    assert episode.pending is None, "the episode waits for replies"
    experts = not episode.rules.is_alone
    completion = encodable(completion)
    action = parse_action(completion, experts=experts)
    spoken = Message("assistant", end_of_turn(completion) if experts else completion)
    messages, actions = (*episode.messages, spoken), (*episode.actions, action)
    consultations, stop_reason = episode.consultations, None
    turns_left = episode.turns_left - 1
    match action:
        case Answer():
            stop_reason = StopReason.ANSWERED
        case _ if turns_left == 0:
            stop_reason = StopReason.TURN_BUDGET
        case Consult():
            consultations = (*consultations, _consultation(episode, action, rng))
        case Malformed():
            messages = (*messages, episode.prompts.notice(turns_left=turns_left))
    # dataclasses.replace would take a quarter of the whole step.
    return Episode(
        problem=episode.problem,
        rules=episode.rules,
        prompts=episode.prompts,
        seed=episode.seed,
        messages=messages,
        actions=actions,
        consultations=consultations,
        stop_reason=stop_reason,
    )


class TurnText(Protocol):
    """What the policy wrote in one turn, and whether it came to an end."""

    @property
    def text(self) -> str:
        """The completion, as the environment reads it."""

    @property
    def finish(self) -> Literal["stop", "length"]:
        """ "length" when a token limit cut the completion off, else "stop"."""


def take_turn(episode: Episode, turn: TurnText, rng: np.random.Generator) -> Episode:
    """Return the episode after a turn that a token limit may have cut off.

    As `act`, except that a completion that was cut off before it answered or consulted truncates
    the episode: the policy had no chance to finish it. An answer that touches the cut, the `2` of
    `Answer: 21`, is none.
    """
    after = act(episode, turn.text, rng)
    action = after.actions[-1]
    if turn.finish == "length" and (isinstance(action, Malformed) or _may_go_on(action, turn.text)):
        return truncate(episode, StopReason.LENGTH, turn.text)
    return after


def _may_go_on(action: Action, completion: str) -> bool:
    """Return whether the answer of a completion would be another if a digit followed."""
    return isinstance(action, Answer) and parse_action(f"{completion}0", experts=False) != action


def queries_to_send(episode: Episode, gate: Gate) -> tuple[Query, ...]:
    """Return the queries that go to the experts now, in order; empty unless replies are awaited."""
    return queries_to_ask(episode.pending, gate) if episode.pending else ()


def receive_replies(episode: Episode, gate: Gate, replies: Sequence[ExpertReply]) -> Episode:
    """Return the episode after the replies to `queries_to_send`; as it is if none are awaited.

    Raises:
        ValueError: the pool returned more or fewer replies than queries, or something else.
    """
    pending = episode.pending
    return receive(episode, replies_in_slots(pending, gate, replies)) if pending else episode


def pairs_to_grade(episode: Episode) -> tuple[tuple[str, str], ...]:
    """Return what a grader must check: one (response, gold answer) if there is an answer."""
    if episode.stop_reason is not StopReason.ANSWERED:
        return ()
    return ((episode.response, episode.problem.answer),)


def receive(episode: Episode, replies: Sequence[ExpertReply]) -> Episode:
    """Return the episode with its pending consultation answered: one reply per query slot.

    Raises:
        ValueError: more or fewer replies than slots.
    """
    pending = episode.pending
    assert pending is not None, "the episode waits for no replies"
    if len(replies) != len(pending.queries):
        raise ValueError(f"{len(replies)} replies for {len(pending.queries)} queries")
    accepted = still_accepted(pending, replies)
    answered = Consultation(pending.queries, accepted, tuple(replies))
    relay = episode.prompts.relay(
        answered,
        num_surplus=_num_surplus(episode),
        turns_left=episode.turns_left,
        rules=episode.rules,
    )
    return replace(
        episode,
        messages=(*episode.messages, relay),
        consultations=(*episode.consultations[:-1], answered),
    )


def truncate(episode: Episode, reason: StopReason, completion: str | None = None) -> Episode:
    """Return the episode cut off by an outside limit; a pending consultation is dropped.

    A completion that the limit cut short, if there is one, is kept in the history as the last,
    malformed turn, even without a text: special tokens have none.

    Raises:
        ValueError: the reason is not a truncation.
    """
    if not reason.truncated:
        raise ValueError(f"an outside limit truncates with LENGTH or WALL_CLOCK, not {reason!r}")
    assert episode.stop_reason is None, "the episode is over"
    if episode.pending:
        return replace(episode, consultations=episode.consultations[:-1], stop_reason=reason)
    if completion is None:
        return replace(episode, stop_reason=reason)
    return replace(
        episode,
        messages=(*episode.messages, Message("assistant", encodable(completion))),
        actions=(*episode.actions, Malformed(f"cut off: {reason}")),
        stop_reason=reason,
    )


def _consultation(episode: Episode, action: Consult, rng: np.random.Generator) -> Consultation:
    asked = action.queries[: episode.rules.queries_per_turn]
    statement, seed, turn = episode.problem.statement, episode.seed, episode.turn + 1
    queries = tuple(
        [
            Query(text=text, statement=statement, seed=seed, turn=turn, slot=slot)
            for slot, text in enumerate(asked)
        ]
    )
    return Consultation(queries, draw_acceptance(len(queries), episode.rules.acceptance_rate, rng))


def _num_surplus(episode: Episode) -> int:
    action = episode.actions[-1]
    assert isinstance(action, Consult)
    return max(len(action.queries) - episode.rules.queries_per_turn, 0)
