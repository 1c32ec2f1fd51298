"""Offline workflows: a policy with experts, without training (paper 3.1, Appendices C, E, I).

By default the experts are asked about the whole problem before the policy's first turn, and the
policy answers after it has read their replies; with a turn budget it consults as it likes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from eapo_agents.evaluation import ProblemResult, Report, evaluate
from eapo_agents.methods.build import text_rollout
from eapo_agents.methods.solutions import Solution
from eapo_agents.policies import ChatModel, Sampling
from eapo_agents.rollouts import MonitoredExperts, derive_seed, gather
from eapo_agents.training import TrainConfig
from eapo_env.endpoints import Endpoint
from eapo_env.experts import ExpertPool, MeaninglessExperts, SilentExperts, query_rng
from eapo_env.openai_experts import without_reasoning
from eapo_env.prompts import Prompts
from eapo_env.types import ExpertReply, Problem, Query, Reply, Rules, Unavailable
from eapo_env.validation import UserError
from eapo_env.verifier import Status, final_answer

Condition = Literal["alone", "self", "experts", "recorded", "erroneous", "meaningless"]
"""The policy alone; with its own replicas; with the experts, live; with solutions of theirs drawn
from a recording; with wrong ones drawn from it; with fixed sentences that say nothing."""

Solutions = Mapping[str, Sequence[Solution]]


@dataclass(frozen=True, kw_only=True)
class Replicas:
    """Experts that are the policy itself, alone with the question: self-collaboration.

    Args:
        model: the policy.
        prompts: of the policy; a replica reads the one for working alone.
        sampling: of a reply.
        brief: reply with the final answer only.
    """

    model: ChatModel
    prompts: Prompts
    sampling: Sampling
    brief: bool = False

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        """Return the replicas' replies, in query order.

        Raises:
            OSError: the policy cannot be reached.
        """
        return await gather(self._reply(query) for query in queries)

    async def _reply(self, query: Query) -> ExpertReply:
        problem = Problem(id="query", statement=query.text or "?", answer="?")
        messages = (self.prompts.opening(problem, Rules.alone()),)
        seed = int(query_rng(query, 0).integers(2**63))
        turn = await self.model.write(messages, self.sampling, seed)
        text = relayed(turn.text, brief=self.brief)
        return Reply("replica", text) if text else Unavailable("an empty reply", "replica")


@dataclass(frozen=True, slots=True)
class GivenExperts:
    """Experts whose replies to each problem were chosen before.

    Args:
        replies: by the problem's statement; slot i of a turn gets reply i mod n.
    """

    replies: Mapping[str, Sequence[ExpertReply]]

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        """Return the chosen replies; a problem without any has no expert."""
        return [self._reply(query) for query in queries]

    def _reply(self, query: Query) -> ExpertReply:
        replies = self.replies.get(query.statement, ())
        return replies[query.slot % len(replies)] if replies else Unavailable("none recorded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """How the policy meets its experts.

    Args:
        num_replies: experts asked in parallel; 3 in the paper.
        turn_budget: turns in which the policy may consult as it likes; None asks the experts about
            the whole problem in its place, and leaves it one turn to answer.
        solutions: the experts' recorded solutions by problem id, for conditions that draw on them.
    """

    num_replies: int = 3
    turn_budget: int | None = None
    solutions: Solutions | None = None

    def __post_init__(self) -> None:
        if self.num_replies < 1:
            raise UserError(f"num_replies must be at least 1, not {self.num_replies}")
        if self.turn_budget is not None and self.turn_budget < 2:
            raise UserError(f"consulting takes a turn budget of 2 or more: {self.turn_budget}")

    async def evaluate(
        self,
        config: TrainConfig,
        model: ChatModel,
        condition: Condition,
        problems: Sequence[Problem],
        *,
        done: Sequence[ProblemResult] = (),
        on_result: Callable[[ProblemResult], None] = lambda result: None,
    ) -> Report:
        """Return the report on the config's number of samples under a condition.

        The seeds are those of `eapo evaluate`, so "alone" gives its report; `done` and `on_result`
        are those of `eapo_agents.evaluation.evaluator.evaluate`.

        Raises:
            UserError: a condition that wants recorded solutions, without them or some of them.
        """
        asked = 0 if self.turn_budget or condition == "alone" else self.num_replies
        rollout = text_rollout(
            config, model, self.pool(config, model, condition, problems), consult_first=asked
        )
        return await evaluate(
            rollout,
            problems,
            samples_per_problem=config.evaluation.samples_per_problem,
            rules=Rules.alone() if condition == "alone" else self.rules,
            seed=derive_seed(config.seed, 2),
            done=done,
            on_result=on_result,
        )

    @property
    def rules(self) -> Rules:
        """The rules of an episode with experts; the workflow's own consultation is a turn."""
        return Rules(turn_budget=self.turn_budget or 2, queries_per_turn=self.num_replies)

    def pool(
        self,
        config: TrainConfig,
        model: ChatModel,
        condition: Condition,
        problems: Sequence[Problem],
    ) -> ExpertPool:
        """Return the experts of a condition."""
        brief = config.rollout.wording == "terse"
        match condition:
            case "alone":
                return SilentExperts()
            case "self":
                sampling = Sampling(
                    max_tokens=config.rollout.limits.max_response_tokens,
                    temperature=config.rollout.temperature,
                    truncation=config.evaluation.truncation,
                )
                prompts = config.rollout.prompts
                return Replicas(model=model, prompts=prompts, sampling=sampling, brief=brief)
            case "experts":
                return MonitoredExperts(inner=config.experts.without_batch_deadline())
            case "recorded" | "erroneous":
                chosen = self.chosen(condition, problems, seed=config.seed)
                return GivenExperts(
                    {
                        problem.statement: [_as_reply(one, brief=brief) for one in solutions]
                        for problem, solutions in zip(problems, chosen, strict=True)
                    }
                )
            case "meaningless":
                return MeaninglessExperts()

    def chosen(
        self, condition: Condition, problems: Sequence[Problem], *, seed: int
    ) -> list[list[Solution]]:
        """Return the recorded solutions that stand in for the experts, for each problem.

        They are drawn once a problem, without replacement: of all solutions, or of the wrong ones
        where there are enough of these ("if fewer than 3 are incorrect, we sample from all").

        Raises:
            UserError: no recording, too few solutions of a problem in it, or those of another
                problem of the same id.
        """
        for problem in problems:
            for solution in (self.solutions or {}).get(problem.id, ()):
                solution.check_is_of(problem)
        return [
            draw_solutions(
                (self.solutions or {}).get(problem.id, ()),
                self.num_replies,
                np.random.default_rng([seed, number]),
                wrong=condition == "erroneous",
                whose=problem.id,
            )
            for number, problem in enumerate(problems)
        ]


def draw_solutions(
    solutions: Sequence[Solution],
    number: int,
    rng: np.random.Generator,
    *,
    wrong: bool,
    whose: str,
) -> list[Solution]:
    """Return some of a problem's recorded solutions, wrong ones if wanted and there are enough.

    Raises:
        UserError: fewer solutions than wanted; the problem is named.
    """
    there = [solution for solution in solutions if solution.status != "unavailable"]
    if len(there) < number:
        raise UserError(
            f"{len(there)} recorded solutions of problem {whose!r}, of {number} wanted: record them"
            " with eapo record-experts, and name the file with --recording"
        )
    bad = [solution for solution in there if solution.status != Status.CORRECT]
    drawn_from = bad if wrong and len(bad) >= number else there
    return [drawn_from[i] for i in rng.choice(len(drawn_from), number, replace=False)]


def error_rate(chosen: Sequence[Sequence[Solution]]) -> float:
    """Return the share of chosen solutions that are wrong."""
    return float(np.mean([one.status != Status.CORRECT for row in chosen for one in row]))


def relayed(text: str, *, brief: bool) -> str:
    """Return what the policy reads of a solution: without its reasoning, or its answer alone."""
    return (final_answer(text) or "") if brief else without_reasoning(text)


def usual_replies(config: TrainConfig, turn_budget: int | None) -> int:
    """Return how many experts are asked unless somebody says otherwise: 3, as in the paper.

    The models of the terse wording have learned to read one reply to a whole problem, and are lost
    with more; where they consult as they like, they ask about its parts.
    """
    return 1 if config.rollout.wording == "terse" and turn_budget is None else 3


def with_pool(config: TrainConfig, pool: str) -> TrainConfig:
    """Return the config with served experts named like `7B+14B+32B` or `32B x3`.

    Raises:
        UserError: a name that fits none of the config's served models, or several.
    """

    endpoints = pool_endpoints(pool, config.experts.endpoints)
    return replace(config, experts=replace(config.experts, kind="openai", endpoints=endpoints))


def _as_reply(solution: Solution, *, brief: bool) -> ExpertReply:
    text = relayed(solution.text, brief=brief)
    return Reply(solution.expert, text) if text else Unavailable("no answer", solution.expert)


_PART = re.compile(r"\s*(.+?)(?:\s+x\s*([1-9][0-9]?))?\s*")


def pool_endpoints(pool: str, endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    """Return an endpoint per expert of a pool: parallel queries meet them in this order.

    Args:
        pool: names of models joined by "+", each with " x3" behind it for three of them. A name is
            a model's own, or a part of it that only one model has, in any case of letters.
        endpoints: which models are served where.

    Raises:
        UserError: a name that fits no model, or several.
    """
    experts: list[Endpoint] = []
    for part in pool.split("+"):
        match = _PART.fullmatch(part)
        if match is None:
            raise UserError(f"a pool reads NAME+NAME or NAME x3, not {pool!r}")
        experts += [_served(match[1], endpoints)] * int(match[2] or 1)
    return tuple(experts)


def _served(name: str, endpoints: Sequence[Endpoint]) -> Endpoint:
    homes = {model: endpoint for endpoint in endpoints for model in endpoint.models}
    fits = [name] if name in homes else [m for m in homes if name.lower() in m.lower()]
    if len(fits) != 1:
        raise UserError(f"{name!r} fits {fits or 'none'} of the served models {sorted(homes)}")
    return replace(homes[fits[0]], models=(fits[0],))
