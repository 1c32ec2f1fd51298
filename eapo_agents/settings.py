"""The sections of a training run's settings: each holds its knobs and the method that uses them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eapo_agents.dynamic_sampling import DynamicSampling
from eapo_agents.rollout import TokenLimits
from eapo_env.endpoints import Endpoint
from eapo_env.experts import ExpertPool, SilentExperts
from eapo_env.openai_experts import OpenAIExperts
from eapo_env.problems import load_problems
from eapo_env.prompts import Prompts
from eapo_env.recordings import ReplayExperts
from eapo_env.synthetic import synthetic_experts, synthetic_problems
from eapo_env.types import Problem

EMBEDDED = "embedded"


def at_least(lowest: int, section: object, *names: str) -> None:
    """Raise a `ValueError` that shows the value if a named field is below `lowest`."""
    for name in names:
        if not getattr(section, name) >= lowest:
            raise ValueError(f"{name} must be at least {lowest}, not {getattr(section, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Which model, and how it is held.

    Args:
        path: a Hugging Face folder or hub id; "embedded" is the small model in this package.
        dtype: of the weights.
        max_batch: the most episodes the in-process policy advances at once.
    """

    path: str = EMBEDDED
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_batch: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemSettings:
    """Which problems.

    Args:
        source: "synthetic", or what `eapo_env.load_problems` takes: a name, a file, a hub id.
        num_problems, brackets, operations, seed: of the synthetic problems.
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
        kind: "synthetic" works out the procedural problems, "openai" asks servers, "replay"
            answers from a recording, "silent" never answers.
        error_rate: how often a synthetic expert is wrong.
        endpoints: the servers of "openai".
        recording: the file of "replay".
    """

    kind: Literal["synthetic", "openai", "replay", "silent"] = "synthetic"
    error_rate: float = 0.0
    endpoints: tuple[Endpoint, ...] = ()
    recording: str = ""

    def pool(self) -> ExpertPool:
        """Return the expert pool.

        Raises:
            ValueError: "openai" without an endpoint, or whose key is not in the environment.
        """
        match self.kind:
            case "synthetic":
                return synthetic_experts(self.error_rate)
            case "openai":
                for name in (endpoint.api_key_env for endpoint in self.endpoints):
                    if name is not None and not os.environ.get(name):
                        raise ValueError(f"the environment variable {name} holds no key")
                return OpenAIExperts(endpoints=self.endpoints)
            case "replay":
                return ReplayExperts(self.recording)
            case "silent":
                return SilentExperts()


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSettings:
    """How episodes are played.

    Args:
        group_size: G, the trajectories of one problem; a single one has nothing to differ from.
        temperature: of the policy's sampling.
        wording: the prompts: "full" sentences, or "terse" for character-level models.
        sampling: dynamic sampling.
        limits: token limits.
    """

    group_size: int = 16
    temperature: float = 1.0
    wording: Literal["full", "terse"] = "full"
    sampling: DynamicSampling = DynamicSampling()
    limits: TokenLimits = TokenLimits()

    def __post_init__(self) -> None:
        at_least(2, self, "group_size")

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
        every: training steps between evaluations; 0 evaluates only at the end.
    """

    problems: ProblemSettings = ProblemSettings(num_problems=64, seed=1)
    samples_per_problem: int = 32
    every: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "samples_per_problem")
        at_least(0, self, "every")
