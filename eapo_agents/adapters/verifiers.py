"""[edge] EAPO for verifiers and prime-rl (verifiers 0.4): a taskset, and the harness that plays it.

The harness plays whole episodes in the evaluating process. Every turn of the policy goes through
the endpoint that verifiers gives it, which records the trace; experts and verifier are this
process's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal
from zlib import crc32

import verifiers.v1 as vf
from openai import AsyncOpenAI
from pydantic import Field

from eapo_agents.policies import ChatTurn, PolicyError, Sampling, read_turn, truncation_fields
from eapo_agents.rollouts import TextRollout
from eapo_agents.training import TrainConfig, presets, prompts_of, with_settings, without
from eapo_env.experts import ExpertPool
from eapo_env.prompts import encodable
from eapo_env.reward import Reward, earned
from eapo_env.types import Message, Problem, Rules
from eapo_env.verifier import Grader

Split = Literal["train", "held_out"]


class EapoData(vf.TaskData):
    """A problem, whose statement is the prompt, and how it is played."""

    answer: str
    preset: str
    settings: list[str]
    turn_budget: int
    acceptance_rate: float


class EapoTask(vf.Task[EapoData]):
    """A problem to be solved; its reward is the harness's."""


class EapoTasksetConfig(vf.TasksetConfig):
    """Which problems are played, and by which rules."""

    preset: str = "embedded"
    """Problems, experts, verifier, reward, wording and limits."""
    settings: list[str] = Field(default_factory=list)
    """Changes of the preset, as after `--set`."""
    split: Split = "held_out"
    """The problems of evaluations, or those of training."""
    turn_budget: int = 1
    """The most turns of an episode; 1 is alone, under the prompt of evaluation."""
    acceptance_rate: float = 1.0
    """The probability that a reply reaches the policy."""


class EapoTaskset(vf.Taskset[EapoTask, EapoTasksetConfig]):
    """The problems of a config."""

    def load(self) -> Iterator[EapoTask]:
        """Yield the problems in their order.

        Raises:
            UserError: no such preset, a bad setting, problems that cannot be read, or none to train
                on that is not held out.
        """
        ours = self.config
        Rules(turn_budget=ours.turn_budget, acceptance_rate=ours.acceptance_rate)
        config = _config(ours.preset, tuple(ours.settings))
        problems: Sequence[Problem] = config.evaluation.problems.load()
        if ours.split == "train":
            problems = without(problems, config.problems.load())
        for problem in problems:
            data = EapoData(
                id=problem.id,
                prompt=problem.statement,
                answer=problem.answer,
                preset=ours.preset,
                settings=ours.settings,
                turn_budget=ours.turn_budget,
                acceptance_rate=ours.acceptance_rate,
            )
            yield EapoTask(data, ours.task)


class EapoHarnessConfig(vf.HarnessConfig):
    """The harness has no settings of its own."""


class EapoHarness(vf.Harness[EapoHarnessConfig]):
    """Plays episodes: turns, consultations, the gate, the verifier, the reward."""

    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: EapoData,
    ) -> vf.ProgramResult:
        """Play one episode and record its reward and metrics on the trace.

        Raises:
            PolicyError: the policy did not answer: a failure is not a wrong answer.
        """
        parts = _parts(data.preset, tuple(data.settings))
        rules = Rules(
            turn_budget=data.turn_budget,
            acceptance_rate=data.acceptance_rate,
            queries_per_turn=parts.config.annealing.queries_per_turn,
        )
        async with AsyncOpenAI(base_url=endpoint, api_key=secret, timeout=1800.0) as client:
            attempt = await TextRollout(
                model=InterceptedModel(client=client, name=ctx.model),
                experts=parts.experts,
                verifier=parts.verifier,
                prompts=prompts_of(parts.config),
                limits=parts.config.rollout.limits,
                temperature=parts.config.rollout.temperature,
                truncation=parts.config.evaluation.truncation,
                expert_timeout_s=parts.config.experts.evaluation_timeout_s,
            ).play(
                Problem(id=str(data.id), statement=data.prompt_text, answer=data.answer),
                rules,
                seed=crc32(trace.id.encode()),
            )
        episode = attempt.episode
        reward = earned(parts.reward, episode, attempt.score, attempt.num_policy_tokens)
        trace.record_reward("eapo", reward)
        trace.record_metrics(
            {
                "correct": float(attempt.correct),
                "queries": episode.num_queries,
                "accepted": episode.num_accepted,
                "turns": episode.turn,
                **episode.spent.metrics(),
            }
        )
        return vf.ProgramResult(exit_code=0, stdout=episode.response or "", stderr="")


@dataclass(frozen=True, slots=True, kw_only=True)
class InterceptedModel:
    """The policy behind verifiers' endpoint, as a chat model.

    Args:
        client: of the endpoint.
        name: the model's.
    """

    client: AsyncOpenAI
    name: str

    async def write(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> ChatTurn:
        """Return the model's next turn; what the run sets of the sampling replaces ours.

        Raises:
            PolicyError: it is no chat completion.
        """
        answer = await self.client.chat.completions.with_raw_response.create(
            model=self.name,
            messages=[{"role": m.role, "content": encodable(m.content)} for m in messages],  # type: ignore[misc]
            temperature=sampling.temperature,
            max_tokens=sampling.max_tokens,
            stop=list(sampling.stop) or None,
            seed=seed % 2**31,
            extra_body=truncation_fields(sampling.truncation),
        )
        content = answer.http_response.json()
        turn = read_turn(content, sampling.stop)
        if turn is None:
            raise PolicyError(f"{self.name}: not a chat completion: {content!r:.200}")
        return turn


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    config: TrainConfig
    experts: ExpertPool
    verifier: Grader
    reward: Reward


@cache
def _config(preset: str, settings: tuple[str, ...]) -> TrainConfig:
    return with_settings(presets.preset_named(preset), settings)


@cache
def _parts(preset: str, settings: tuple[str, ...]) -> _Parts:
    """Return what all episodes of a process share."""
    config = _config(preset, settings)
    return _Parts(
        config=config,
        experts=config.experts.without_batch_deadline(),
        verifier=config.verifier.build(),
        reward=config.reward.build(),
    )
