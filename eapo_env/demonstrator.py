"""Demonstrations for the supervised cold start of the embedded model, with errors in the steps.

The demonstrator knows the format perfectly (solve step by step, consult about the whole or about
the parts, use the replies, continue without them, answer), but each step of its own work on a part
is wrong with probability `step_error_rate`; adding up the parts is right. A model that imitates it
starts reinforcement learning able to use experts and weak at working alone, with rewards that are
rare but not absent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from eapo_env.acceptance import replies_in_slots
from eapo_env.actions import Consult, render_consult
from eapo_env.episode import Episode, act, begin, receive
from eapo_env.prompts import Prompts
from eapo_env.synthetic import (
    MODULUS,
    Bracket,
    BracketSum,
    apply,
    mistaken_apply,
    random_sum,
    read_sum,
    work_out,
)
from eapo_env.types import ExpertReply, Problem, Query, Reply, Rules, Unavailable
from eapo_env.validation import at_least, probability

TOTAL = ""
"""The key of the value of the whole problem, beside the names of its parts."""

_VALUE = re.compile(r"(?:([a-z])=)?([0-9]{2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisyDemonstrator:
    """A scripted policy on the procedural problems: right format, random errors in the steps.

    Args:
        step_error_rate: probability that the result of a step within a part is replaced.
        error: by what: a "random" result, or that of somebody who mixes up what is written and what
            is to "carry" (`mistaken_apply`), which is right where nothing is carried. A model that
            imitates random errors is most often right; one that imitates these, from a rate above
            one half on, is most often wrong.
        alone: probability that an episode is played under the evaluation prompt.
        consult: probability that otherwise the first turn consults rather than solves.
        whole: probability that a consultation asks one question about the whole problem rather
            than one about each part.
        again: probability that parts that no expert answered are asked about once more while turns
            remain.
        queries_per_turn: of the rules of its episodes; where that is fewer than the parts, it asks
            about the next ones in its next turn.
        max_brackets: the number of brackets of a problem is uniform on 1 to `max_brackets`.
        operations: of each bracket.
        carry_rate: of its problems, as in `synthetic_problems`.

    Raises:
        UserError: a probability outside [0, 1], or a number below 1.
    """

    step_error_rate: float = 0.35
    error: Literal["random", "carry"] = "random"
    alone: float = 0.5
    consult: float = 0.95
    whole: float = 0.1
    again: float = 0.1
    queries_per_turn: int = 3
    max_brackets: int = 3
    operations: int = 2
    carry_rate: float | None = None

    def __post_init__(self) -> None:
        probability(self, "step_error_rate", "alone", "consult", "whole", "again")
        at_least(1, self, "queries_per_turn", "max_brackets", "operations")

    def demonstrate(self, rng: np.random.Generator) -> Episode:
        """Return one finished episode on a random problem."""
        total = random_sum(
            rng,
            brackets=int(rng.integers(1, self.max_brackets + 1)),
            operations=self.operations,
            carry_rate=self.carry_rate,
        )
        return self.demonstrate_on(total, self.rules(rng), Prompts.terse(), rng)

    def demonstrate_on(
        self, total: BracketSum, rules: Rules, prompts: Prompts, rng: np.random.Generator
    ) -> Episode:
        """Return one finished episode on a problem."""
        problem = Problem(id="demonstration", statement=total.statement, answer=str(total.value))
        episode = begin(problem, rules, prompts)
        while not episode.stop_reason:
            episode = act(episode, self._completion(episode, total, rng), rng)
            if episode.pending:
                episode = receive(episode, _answers(episode))
        return episode

    def solve(
        self,
        total: BracketSum,
        rng: np.random.Generator,
        known: Mapping[str, int] | None = None,
    ) -> str:
        """Return a written solution of a problem; `known` holds values from experts' replies."""
        known = known or {}
        if TOTAL in known:
            return f"\\boxed{{{known[TOTAL]:02}}}"
        lines, values = [], []
        for name, part in total.parts.items():
            steps, value = ([], known[name]) if name in known else self._work(part, rng)
            values.append(value)
            lines.append(",".join([*steps, f"{name}={value:02}"]))
        steps, value = _added(values)
        lines += [",".join(steps)] if steps else []
        return ";".join(lines) + f" \\boxed{{{value:02}}}"

    def _work(self, part: Bracket, rng: np.random.Generator) -> tuple[list[str], int]:
        """Return the written steps of a chain and the value they end in."""
        value, steps = part.start, []
        for operation, operand in part.steps:
            result = apply(operation, value, operand)
            if rng.random() < self.step_error_rate:
                match self.error:
                    case "random":
                        result = int(rng.integers(MODULUS))
                    case "carry":
                        result = mistaken_apply(operation, value, operand)
            steps.append(f"{value:02}{operation}{operand}={result:02}")
            value = result
        return steps, value

    def rules(self, rng: np.random.Generator) -> Rules:
        """Return the rules of an episode, drawn at random."""
        if rng.random() < self.alone:
            return Rules.alone()
        return Rules(
            turn_budget=int(rng.integers(2, 5)),
            acceptance_rate=float(rng.random()),
            queries_per_turn=self.queries_per_turn,
        )

    def _completion(self, episode: Episode, total: BracketSum, rng: np.random.Generator) -> str:
        known = known_values(episode)
        missing = [name for name in total.parts if name not in known and TOTAL not in known]
        questions = [f"{name}:{total.parts[name]}" for name in missing]
        asked = {query.text for past in episode.consultations for query in past.queries}
        fresh = [q for q in questions if not asked & {q, total.statement}]
        may_consult = not episode.rules.is_alone and episode.turns_left > 1
        if may_consult and missing and rng.random() < (self.consult if fresh else self.again):
            whole = len(missing) > 1 and episode.turn == 0 and rng.random() < self.whole
            questions = [total.statement] if whole else fresh or questions
            return render_consult(Consult(tuple(questions[: self.queries_per_turn])))
        return self.solve(total, rng, known)


def _added(values: list[int]) -> tuple[list[str], int]:
    """Return the written steps of adding up the parts, and the sum."""
    total, steps = values[0], []
    for value in values[1:]:
        result = apply("+", total, value)
        steps.append(f"{total:02}+{value:02}={result:02}")
        total = result
    return steps, total


def known_values(episode: Episode) -> dict[str, int]:
    """Return the values in accepted replies, by the name of the part or `TOTAL`; never raises."""
    values = [
        _VALUE.fullmatch(reply.text)
        for consultation in episode.consultations
        for accepted, reply in zip(consultation.accepted, consultation.replies, strict=True)
        if accepted and isinstance(reply, Reply)
    ]
    return {value[1] or TOTAL: int(value[2]) for value in values if value}


def _answers(episode: Episode) -> tuple[ExpertReply, ...]:
    pending = episode.pending
    assert pending is not None
    return replies_in_slots(pending, "post", [_answer(query) for query in pending.queries])


def _answer(query: Query) -> ExpertReply:
    text = work_out(query)
    return Unavailable("no expression") if text is None else Reply("calculator", text)


def worked_solution(query: Query) -> str | None:
    """Return the demonstrator's solution of the query's problem, without errors.

    This is the expert whose trajectories the embedded model is distilled from. None for a
    problem that is not procedural.
    """
    total = read_sum(query.statement)
    return (
        None
        if total is None
        else NoisyDemonstrator(step_error_rate=0.0).solve(total, np.random.default_rng(0))
    )
