"""[edge] What the doctor finds of the experts: whether they answer a question, and rightly."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from eapo_agents.methods.doctor.finding import Finding, Findings, Grade, how_to_start
from eapo_agents.rollouts import gather
from eapo_agents.training import TrainConfig, strangers
from eapo_env.endpoints import Endpoint
from eapo_env.experts import ExpertPool, SilentExperts
from eapo_env.guarded_experts import GuardedExperts
from eapo_env.prompts import cut
from eapo_env.reachability import NoAnswerError, endpoint_at, reached
from eapo_env.types import ExpertReply, Problem, Query, Reply, Unavailable
from eapo_env.verifier import Grader, Verdict

_SUM = Problem(id="sum", statement="What is 6 * 7?", answer="42")
_EXPERT_PORT = 8000


def experts_at(urls: Sequence[str]) -> Findings[tuple[Endpoint, ...]]:
    """Yield which servers of experts do not answer; return the endpoints of the others.

    Raises:
        UserError: one lists no models.
    """
    found = []
    for url in urls:
        try:
            found.append(asyncio.run(endpoint_at(url)))
        except NoAnswerError as error:
            told = f"{error}; {_start_expert(url, 'MODEL')}"
            yield Finding(part="experts", text=told, verdict="bad")
    return tuple(found)


def ask_experts(
    config: TrainConfig, problems: Sequence[Problem], runner: asyncio.Runner
) -> Findings[ExpertPool]:
    """Yield whether the experts answer a question, and rightly; return those that can be asked."""
    settings = config.experts
    if config.is_alone:
        yield Finding(part="experts", text="none: the run is alone from its first step")
        return SilentExperts()
    match settings.kind:
        case "silent":
            yield Finding(part="experts", text="experts.kind=silent: none replies", verdict="look")
            return settings.build()
        case "replay":  # which answers the questions of its recording alone
            pool = settings.build()
            yield Finding(part="experts", text=f"replies are those of {settings.recording}")
            return pool
    if problems and (told := strangers(config, problems)):
        yield Finding(part="experts", text=told, verdict="look")
    with closing(config.verifier.build()) as grader:
        test = _test(config, problems, grader)
        if settings.kind != "openai":
            pool = settings.build()
            slots = max(1, config.schedule.rules_at(1).queries_per_turn)
            yield from runner.run(test.asked(pool, slots)) if test else ()
            return pool
        asked = runner.run(gather(_endpoint(config, one, test) for one in settings.endpoints))
    for _, findings in asked:
        yield from findings
    endpoints = tuple(endpoint for endpoint, _ in asked if endpoint)
    return replace(settings, endpoints=endpoints).build() if endpoints else SilentExperts()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Test:
    """A problem that experts are asked, and what grades their replies."""

    problem: Problem
    grader: Grader
    timeout_s: float

    async def asked(self, pool: ExpertPool, slots: int) -> list[Finding]:
        """Return what each expert replies to the question."""
        text = self.problem.statement
        guarded = GuardedExperts(inner=pool, timeout_s=self.timeout_s)
        replies = await guarded.ask([Query(text=text, slot=slot) for slot in range(slots)])
        by_name = {reply.expert: reply for reply in reversed(replies)}
        return [await self._graded(reply) for reply in reversed(by_name.values())]

    async def _graded(self, reply: ExpertReply) -> Finding:
        text = reply.text if isinstance(reply, Reply) else ""
        [verdict] = await self.grader.averify([(text, self.problem.answer)])
        return _answer(self.problem, reply, verdict)


def _test(config: TrainConfig, problems: Sequence[Problem], grader: Grader) -> _Test | None:
    """Return a sum for servers, unless answers are words; the first problem for other experts."""
    is_sum = config.experts.kind == "openai" and config.verifier.kind == "math"
    if not (is_sum or problems):
        return None
    problem = _SUM if is_sum else problems[0]
    return _Test(problem=problem, grader=grader, timeout_s=config.experts.batch_timeout_s)


def _answer(problem: Problem, reply: ExpertReply, verdict: Verdict) -> Finding:
    part, question = f"expert {reply.expert}".rstrip(), cut(problem.statement, 200)
    match reply:
        case Reply(text=text) if verdict.correct:
            told = f"answers {question!r} with {cut(text, 200)!r}, which is right"
            return Finding(part=part, text=told)
        case Reply(text=text):
            told = (
                f"answers {question!r} with {cut(text, 200)!r}, and the answer is"
                f" {problem.answer!r}; an expert on parts need not know the whole"
            )
            return Finding(part=part, text=told, verdict="look")
        case Unavailable() if not reply.is_failure:
            told = f"has no answer to {question!r}; an expert on parts need not know the whole"
            return Finding(part=part, text=told, verdict="look")
        case Unavailable(reason=reason):
            told = f"does not answer {question!r}: {reason}"
            return Finding(part=part, text=told, verdict="bad")


async def _endpoint(
    config: TrainConfig, endpoint: Endpoint, test: _Test | None
) -> tuple[Endpoint | None, list[Finding]]:
    """Return the endpoint with the models that it serves, None if it serves none; what is found."""
    reach = await reached(endpoint)
    named = tuple(dict.fromkeys(endpoint.models))
    there = tuple(model for model in named if not reach.failure and model not in reach.missing)
    prevented: Grade = "bad" if config.experts.preflight == "required" else "look"
    told = f"serves {', '.join(named)}"
    if reach.failure:
        started = "" if endpoint.api_key_env else f"; {_start_expert(endpoint.base_url, *named)}"
        told = reach.failure + started
    elif reach.missing:
        told = f"{reach.reason}: name one that it serves in experts.endpoints"
    verdict = prevented if reach.reason else "good"
    findings = [Finding(part=endpoint.base_url, text=told, verdict=verdict)]
    if not there:
        return None, findings
    if test:
        once = replace(config.experts, endpoints=(replace(endpoint, models=there),))
        findings += await test.asked(once.build(), len(there))
    served = tuple(model for model in endpoint.models if model in there)
    return replace(endpoint, models=served), findings


def _start_expert(url: str, *models: str) -> str:
    """Return how a server of experts is started; each has one model."""
    return "; ".join(how_to_start(f"eapo serve-expert {one}", url, _EXPERT_PORT) for one in models)
