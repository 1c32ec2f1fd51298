"""The sections of a training run's settings: each holds its knobs and the method that uses them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from eapo_agents.policies import NO_TRUNCATION, Truncation
from eapo_agents.rollouts import DynamicSampling, TokenLimits
from eapo_env.demonstrator import worked_solution
from eapo_env.endpoints import Endpoint
from eapo_env.experts import (
    ErroneousExperts,
    ExpertPool,
    MeaninglessExperts,
    ScriptedExperts,
    SilentExperts,
)
from eapo_env.openai_experts import OpenAIExperts, read_with_reasoning
from eapo_env.problems import SOURCES, load_problems
from eapo_env.prompts import Prompts
from eapo_env.recordings import ReplayExperts
from eapo_env.synthetic import synthetic_experts, synthetic_problems
from eapo_env.types import Problem
from eapo_env.validation import UserError, at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemSettings:
    """Which problems.

    Args:
        source: "synthetic", or what `eapo_env.load_problems` takes: a name, a file, a hub id.
        num_problems: how many synthetic ones are made.
        brackets: of a synthetic problem, which is their sum.
        operations: of a synthetic bracket.
        seed: of the synthetic problems.
    """

    source: str = "synthetic"
    num_problems: int = 4096
    brackets: int = 3
    operations: int = 2
    seed: int = 0

    @property
    def label(self) -> str:
        """The source's name; a file goes by its own."""
        path = Path(self.source)
        return path.stem if path.suffix in (".jsonl", ".csv", ".parquet") else self.source

    def load(self) -> tuple[Problem, ...]:
        """Return the problems."""
        if self.source != "synthetic":
            return load_problems(self.source)
        difficulty = {"brackets": self.brackets, "operations": self.operations}
        return synthetic_problems(self.num_problems, **difficulty, seed=self.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertSettings:
    """Which experts.

    Args:
        kind: "synthetic" works out the procedural problems, "synthetic-parts" no more than one
            bracket at a time, "openai" asks servers, "replay" answers from a recording,
            "meaningless" says the same empty sentence to everything, "silent" never answers.
        error_rate: how often a synthetic expert is wrong.
        endpoints: the servers of "openai".
        extra_body: further fields of a request to them, or other values; null leaves one out, for
            models that refuse `temperature`, `top_p` or `max_tokens`.
        batch_timeout_s: how long the replies to one consultation may take in training, the wait for
            a free call included; those that are not there by then are unavailable.
        recording: the file of "replay".
    """

    kind: Literal["synthetic", "synthetic-parts", "openai", "replay", "meaningless", "silent"] = (
        "synthetic"
    )
    error_rate: float = 0.0
    endpoints: tuple[Endpoint, ...] = ()
    extra_body: Mapping[str, object] = field(default_factory=dict, hash=False)
    batch_timeout_s: float = 300.0
    recording: str = ""

    def pool(self) -> ExpertPool:
        """Return the expert pool.

        Raises:
            UserError: "openai" without an endpoint, or whose key is not in the environment.
        """
        match self.kind:
            case "synthetic":
                return synthetic_experts(self.error_rate)
            case "synthetic-parts":
                return synthetic_experts(self.error_rate, parts_only=True)
            case "openai":
                for endpoint in self.endpoints:
                    endpoint.check_key()
                return OpenAIExperts(
                    endpoints=self.endpoints,
                    extra_body=self.extra_body,
                    batch_timeout_s=self.batch_timeout_s,
                )
            case "replay":
                return ReplayExperts(self.recording)
            case "meaningless":
                return MeaninglessExperts()
            case "silent":
                return SilentExperts()

    def without_batch_deadline(self) -> ExpertPool:
        """Return the same experts for evaluations: each call has its own limit, and no other.

        There all episodes begin at once and wait for free calls, so that a limit on the wait would
        measure the queue.

        Raises:
            UserError: as `pool`.
        """
        pool = self.pool()
        return replace(pool, batch_timeout_s=math.inf) if isinstance(pool, OpenAIExperts) else pool

    def solvers(self, *, max_tokens: int, timeout_s: float) -> ExpertPool:
        """Return the same experts, asked for whole solutions instead of help with a question.

        Servers are asked without our system prompt, and their reasoning is kept.

        Raises:
            UserError: as `pool`.
        """
        pool = self.without_batch_deadline()
        match self.kind, pool:
            case "synthetic", _:
                solver = ScriptedExperts(worked_solution, names=("student",))
                return ErroneousExperts(inner=solver, error_rate=self.error_rate)
            case _, OpenAIExperts():
                return replace(
                    pool,
                    endpoints=[replace(e, call_timeout_s=timeout_s) for e in pool.endpoints],
                    system_prompt="",
                    max_tokens=max_tokens,
                    read=read_with_reasoning,
                )
            case _:
                return pool


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSettings:
    """How episodes are played.

    Args:
        group_size: G, the trajectories of one problem; a single one has nothing to differ from.
        temperature: of the policy's sampling, in evaluations too.
        truncation: which ids may be sampled in training.
        truncated_sampling: top-p, top-k or min-p take ids from the sampler's distribution that the
            learner's still has, so that every ratio of the two is biased. Training with them is
            "refused", unless "biased" says that this is known.
        wording: the prompts: "full" sentences, or "terse" for character-level models.
        turn_budgets: who draws a fractional turn budget: every "member" of a group by itself, so
            that episodes with experts and without are compared, or the "group" as a whole.
        sampling: dynamic sampling.
        limits: token limits.
    """

    group_size: int = 16
    temperature: float = 1.0
    truncation: Truncation = NO_TRUNCATION
    truncated_sampling: Literal["refused", "biased"] = "refused"
    wording: Literal["full", "terse"] = "full"
    turn_budgets: Literal["member", "group"] = "member"
    sampling: DynamicSampling = DynamicSampling()
    limits: TokenLimits = TokenLimits()

    def __post_init__(self) -> None:
        at_least(2, self, "group_size")
        if self.truncated_sampling == "refused" and not self.truncation.keeps_all:
            raise UserError(
                f"training with {self.truncation} biases the ratios of learner and sampler:"
                " evaluations have evaluation.truncation; truncated_sampling=biased allows it here"
            )

    @property
    def prompts(self) -> Prompts:
        """The wording as prompts."""
        return Prompts.terse() if self.wording == "terse" else Prompts()


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """How the policy is evaluated, alone, on problems it was not trained on.

    Args:
        problems: the held-out problems.
        samples_per_problem: k.
        truncation: which ids may be sampled there, and in workflows, LeaP and play.
        every: training steps between evaluations; 0 evaluates only at the end.
    """

    problems: ProblemSettings = ProblemSettings(num_problems=64, seed=1)
    samples_per_problem: int = 32
    truncation: Truncation = NO_TRUNCATION
    every: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "samples_per_problem")
        at_least(0, self, "every")


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillationSettings:
    """How the policy imitates the experts' solutions (paper 3.1, "Distillation").

    Args:
        samples_per_problem: solutions asked for per problem; the right ones are imitated.
        max_problems: how many of the training problems the experts are asked about; None is all.
        problems_at_once: how many of them are under way at a time.
        timeout_s: how long a server may take for one solution.
        batch_size: solutions an update.
        learning_rate: instead of the learner's, which is meant for rewards; LoRA wants about ten
            times as much as all parameters.
        lora_rank: of the adapters that are trained instead of all parameters; 0 trains all.
        lora_alpha: the adapters' output is scaled by lora_alpha / lora_rank.

    Raises:
        UserError: a value out of its range.
    """

    samples_per_problem: int = 4
    max_problems: int | None = None
    problems_at_once: int = 64
    timeout_s: float = 1800.0
    batch_size: int = 32
    learning_rate: float = 1e-5
    lora_rank: int = 0
    lora_alpha: float = 32.0

    def __post_init__(self) -> None:
        at_least(1, self, "samples_per_problem", "problems_at_once", "batch_size")
        at_least(0, self, "learning_rate", "lora_rank")
        if self.max_problems is not None:
            at_least(1, self, "max_problems")
        for name in ("timeout_s", "lora_alpha"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} must be positive, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemSet:
    """Problems under a name."""

    name: str
    problems: tuple[Problem, ...]

    @classmethod
    def named(cls, text: str, settings: ProblemSettings) -> ProblemSet:
        """Return the set that `SOURCE` or `NAME=FILE` describes.

        A NAME that `load_problems` knows says how the file is laid out: `aimo-2025=reference.csv`.
        Any other is a label. The settings describe procedural problems, should SOURCE be those.

        Raises:
            UserError: problems that cannot be read.
        """
        name, equals, path = text.partition("=")
        if not equals:
            settings = replace(settings, source=text)
            return cls(name=settings.label, problems=settings.load())
        if name in SOURCES:
            return cls(name=name, problems=load_problems(name, path=path))
        return cls(name=name, problems=load_problems(path))


def check_distinct(sets: Sequence[ProblemSet]) -> None:
    """Raise a `UserError` if two sets have one name."""
    names = [one.name for one in sets]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two sets of problems are called {twice[0]!r}; use NAME=FILE")
