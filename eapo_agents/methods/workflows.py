"""Offline workflows: evaluate a policy with experts, without training (paper 3.1, App. C, E, I).

By default the experts are asked about the whole problem before the policy's first turn, and the
policy answers after it has read their replies; with a turn budget it consults as it decides.

In this order: `Workflow`; the expert pools of its conditions; the recorded solutions they draw on;
and the names of pools (`7B+14B+32B`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from eapo_agents.evaluation import OnAttempts, ProblemResult, Report, evaluate
from eapo_agents.methods.build import text_rollout
from eapo_agents.methods.solutions import Solution
from eapo_agents.policies import ChatModel, Sampling
from eapo_agents.rollouts import gather
from eapo_agents.training import TrainConfig, prompts_of, wording_of
from eapo_env.endpoints import Endpoint
from eapo_env.experts import ExpertPool, MeaninglessExperts, SilentExperts, query_rng
from eapo_env.openai_experts import without_reasoning
from eapo_env.prompts import CUT_MARK, Prompts
from eapo_env.types import NO_ANSWER, ExpertReply, Problem, Query, Reply, Rules, Unavailable
from eapo_env.validation import UserError
from eapo_env.verifier import Status, final_answer

Condition = Literal["alone", "self", "experts", "recorded", "erroneous", "meaningless"]
"""The policy without experts; with copies of itself; with live experts; with recorded solutions of
the experts; with wrong ones among these; with a fixed sentence that says nothing."""

Solutions = Mapping[str, Sequence[Solution]]
"""Recorded solutions by problem id."""

_PART = re.compile(r"\s*(.+?)(?:\s+x\s*([1-9][0-9]?))?\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """An evaluation of a policy with experts, and how it consults them.

    Args:
        num_replies: experts asked in parallel; 3 in the paper.
        turn_budget: turns in which the policy consults as it decides; None asks the experts about
            the whole problem first, and leaves the policy one turn to answer.
        solutions: the experts' recorded solutions, for the conditions that draw on them.

    Raises:
        UserError: no replies, or a turn budget below 2.
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
        on_attempts: OnAttempts = lambda attempts: None,
    ) -> Report:
        """Return the report on `evaluation.samples_per_problem` episodes of each problem.

        The seeds are those of `eapo evaluate`, so "alone" gives its report; `done`, `on_result`
        and `on_attempts` are as in `eapo_agents.evaluate`.

        Raises:
            UserError: the condition needs recorded solutions, and some are missing.
        """
        asked = 0 if self.turn_budget or condition == "alone" else self.num_replies
        rollout = text_rollout(
            config,
            model,
            self.pool(config, model, condition, problems),
            consult_first=asked,
            expert_timeout_s=(
                config.experts.evaluation_timeout_s if condition == "experts" else math.inf
            ),
        )
        return await evaluate(
            rollout,
            problems,
            samples_per_problem=config.evaluation.samples_per_problem,
            rules=Rules.alone() if condition == "alone" else self.rules,
            seed=config.evaluation_seed,
            done=done,
            on_result=on_result,
            on_attempts=on_attempts,
        )

    @property
    def rules(self) -> Rules:
        """The rules of an episode with experts; a consultation by the workflow uses up a turn."""
        return Rules(turn_budget=self.turn_budget or 2, queries_per_turn=self.num_replies)

    def pool(
        self,
        config: TrainConfig,
        model: ChatModel,
        condition: Condition,
        problems: Sequence[Problem],
    ) -> ExpertPool:
        """Return the expert pool of a condition.

        Raises:
            UserError: as `evaluate`.
        """
        brief = wording_of(config) == "terse"
        match condition:
            case "alone":
                return SilentExperts()
            case "self":
                sampling = Sampling(
                    max_tokens=config.rollout.limits.max_response_tokens,
                    temperature=config.rollout.temperature,
                    truncation=config.evaluation.truncation,
                )
                prompts = prompts_of(config)
                return Replicas(model=model, prompts=prompts, sampling=sampling, brief=brief)
            case "experts":
                config.experts.check()
                return config.experts.without_batch_deadline()
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
        """Return the recorded solutions that serve as replies, for each problem.

        They are drawn once per problem, without replacement: from all solutions, or from the wrong
        ones if there are enough ("if fewer than 3 are incorrect, we sample from all").

        Raises:
            UserError: no recording, too few solutions of a problem, or solutions of a different
                problem under the same id.
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


def usual_replies(config: TrainConfig, turn_budget: int | None) -> int:
    """Return the default number of replies: 3, as in the paper.

    It is 1 for models of the terse wording that do not consult by themselves: they were trained to
    read one reply to a whole problem.
    """
    return 1 if wording_of(config) == "terse" and turn_budget is None else 3


@dataclass(frozen=True, kw_only=True)
class Replicas:
    """Copies of the policy as experts, each working alone on a query: self-collaboration.

    Args:
        model: the policy.
        prompts: the policy's wording; a copy reads the prompt without experts.
        sampling: how a reply is sampled.
        brief: reply with the final answer only.
    """

    model: ChatModel
    prompts: Prompts
    sampling: Sampling
    brief: bool = False
    cooperative: ClassVar[bool] = True

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        """Return the copies' replies, in query order.

        Raises:
            PolicyError: the policy cannot be reached.
        """
        return await gather(self._reply(query) for query in queries)

    async def _reply(self, query: Query) -> ExpertReply:
        problem = Problem(id="query", statement=query.text or "?", answer="?")
        messages = (self.prompts.opening(problem, Rules.alone()),)
        seed = int(query_rng(query, 0).integers(2**63))
        turn = await self.model.write(messages, self.sampling, seed)
        text = relayed(turn.text, brief=self.brief)
        if turn.finish == "length":
            if self.brief or not text:
                return Unavailable("cut by the token limit", "replica")
            text += CUT_MARK
        return Reply("replica", text) if text else Unavailable("an empty reply", "replica")


@dataclass(frozen=True, slots=True)
class GivenExperts:
    """Experts with fixed replies to each problem.

    Args:
        replies: by the problem's statement; slot i of a turn gets reply i mod n.
    """

    replies: Mapping[str, Sequence[ExpertReply]]
    cooperative: ClassVar[bool] = True

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        """Return the fixed replies; unavailable ones to a problem that has none."""
        return [self._reply(query) for query in queries]

    def _reply(self, query: Query) -> ExpertReply:
        replies = self.replies.get(query.statement, ())
        return replies[query.slot % len(replies)] if replies else Unavailable("none recorded")


def draw_solutions(
    solutions: Sequence[Solution],
    number: int,
    rng: np.random.Generator,
    *,
    wrong: bool,
    whose: str,
) -> list[Solution]:
    """Return `number` of a problem's recorded solutions, drawn without replacement.

    Args:
        solutions: those of one problem; unavailable ones are never drawn.
        number: how many.
        rng: draws them.
        wrong: draw from the wrong ones only, if there are enough.
        whose: the problem's id, for the error.

    Raises:
        UserError: fewer solutions than `number`.
    """
    available = [solution for solution in solutions if solution.status != "unavailable"]
    if len(available) < number:
        raise UserError(
            f"{len(available)} recorded solutions of problem {whose!r}, of {number} wanted: record"
            " them with eapo record-experts, and name the file with --recording"
        )
    bad = [solution for solution in available if solution.status != Status.CORRECT]
    drawn_from = bad if wrong and len(bad) >= number else available
    return [drawn_from[i] for i in rng.choice(len(drawn_from), number, replace=False)]


def error_rate(chosen: Sequence[Sequence[Solution]]) -> float:
    """Return the share of wrong ones among the solutions drawn for each problem."""
    return float(np.mean([one.status != Status.CORRECT for row in chosen for one in row]))


def _as_reply(solution: Solution, *, brief: bool) -> ExpertReply:
    text = relayed(solution.text, brief=brief)
    return Reply(solution.expert, text) if text else Unavailable(NO_ANSWER, solution.expert)


def relayed(text: str, *, brief: bool) -> str:
    """Return the part of a solution that the policy reads: no reasoning, or the answer alone."""
    return (final_answer(text) or "") if brief else without_reasoning(text)


def with_pool(config: TrainConfig, pool: str) -> TrainConfig:
    """Return the config with the served experts that a pool's name lists, as `pool_endpoints`.

    Raises:
        UserError: a name that fits none of the config's served models, or several.
    """
    endpoints = pool_endpoints(pool, config.experts.endpoints)
    return replace(config, experts=replace(config.experts, kind="openai", endpoints=endpoints))


def pool_endpoints(pool: str, endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    """Return one endpoint per expert of a pool, in the order of the slots of a consultation.

    Args:
        pool: names of models, as in `7B+14B+32B` or `32B x3`. A name is a model's full name or a
            part of it that no other model has, in upper or lower case.
        endpoints: which models are served where.

    Raises:
        UserError: a malformed name, or one that fits no model or several.
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
