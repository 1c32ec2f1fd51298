"""A training run as one value: every setting, in JSON and on the command line.

Each section holds its knobs and the method that uses them. `TrainConfig` is what a preset returns,
what `config.json` in a run folder records, and what `--set section.key=value` changes.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from eapo_agents.algorithm import ALGORITHMS, Algorithm
from eapo_agents.learner import LearnerSettings
from eapo_agents.rollout import DynamicSampling, TokenLimits
from eapo_env.annealing import Annealing
from eapo_env.endpoints import Endpoint
from eapo_env.experts import ExpertPool, SilentExperts
from eapo_env.openai_experts import OpenAIExperts
from eapo_env.problems import load_problems
from eapo_env.prompts import Prompts
from eapo_env.recordings import ReplayExperts
from eapo_env.reward import RewardRule
from eapo_env.synthetic import synthetic_experts, synthetic_problems
from eapo_env.types import Problem

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")

EMBEDDED = "embedded"


def _at_least(lowest: int, section: object, *names: str) -> None:
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
        _at_least(2, self, "group_size")

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
        _at_least(1, self, "samples_per_problem")
        _at_least(0, self, "every")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """A training run.

    Args:
        name: what the run folder is called after.
        seed: of everything drawn at random.
        steps: training steps.
        annealing: how the experts are withdrawn; an initial turn budget of 1 is self-exploratory
            reinforcement learning (paper 3.1).
        checkpoint_every: training steps between checkpoints.
        keep_checkpoints: how many of the newest are kept.
        transcripts_every: training steps between recorded transcripts.
    """

    name: str = "eapo"
    seed: int = 0
    steps: int = 200
    algorithm: Literal["dapo", "grpo", "dr_grpo", "gspo", "cispo", "rloo"] = "dapo"
    checkpoint_every: int = 25
    keep_checkpoints: int = 2
    transcripts_every: int = 10
    annealing: Annealing = Annealing(steps=200)
    model: ModelSettings = ModelSettings()
    problems: ProblemSettings = ProblemSettings()
    experts: ExpertSettings = ExpertSettings()
    rollout: RolloutSettings = RolloutSettings()
    reward: RewardRule = RewardRule()
    learner: LearnerSettings = LearnerSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    def __post_init__(self) -> None:
        _at_least(0, self, "seed")
        _at_least(1, self, "steps", "checkpoint_every", "keep_checkpoints", "transcripts_every")
        if not self.name or set(self.name) & set("/\\\0"):
            raise ValueError(f"name must be fit for a folder, not {self.name!r}")

    @property
    def chosen_algorithm(self) -> Algorithm:
        """The algorithm by its name."""
        return next(a for a in ALGORITHMS if a.name == self.algorithm)

    def to_json(self) -> str:
        """Return the config as JSON that `from_json` reads back."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """Return the config that a JSON text holds.

        Raises:
            ValueError: text that is not JSON, an unknown key, a value of the wrong kind.
        """
        return _validated(json.loads(text), cls)

    @classmethod
    def read(cls, path: Path) -> TrainConfig:
        """Return the config in a file.

        Raises:
            ValueError: as `from_json`, naming the file.
        """
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def with_settings(config: C, settings: Iterable[str]) -> C:
    """Return the config with `section.key=value` settings applied, in order.

    Values are JSON where they parse as JSON, else plain strings.

    Raises:
        ValueError: no "=", an unknown key (the nearest valid one is named), a bad value.
    """
    tree = dataclasses.asdict(config)
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"a setting reads section.key=value, not {setting!r}")
        _set(tree, key.strip().split("."), _parsed(value.strip()), setting)
    return _validated(tree, type(config))


def _set(tree: dict[str, Any], keys: list[str], value: object, setting: str) -> None:
    node = tree
    for key in keys[:-1]:
        inner = node[key] = {} if node.get(key) is None else node[key]
        if not isinstance(inner, dict):
            raise ValueError(f"bad setting {setting!r}: {key} is {inner!r}, not a section")
        node = inner
    node[keys[-1]] = value


def _parsed(value: str) -> object:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _validated(tree: object, kind: type[C]) -> C:
    try:
        config = TypeAdapter(kind).validate_python(tree)
    except ValidationError as error:
        raise ValueError("; ".join(map(_explain, error.errors()))) from None
    _refuse_unknown(tree, dataclasses.asdict(config), "")
    return config


def _refuse_unknown(given: object, known: object, where: str) -> None:
    """Raise for a key that validation passed over: it is none of ours."""
    match given, known:
        case dict(), dict():
            for key, value in given.items():
                if key not in known:
                    near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)
                    raise ValueError(
                        f"unknown setting {where + str(key)!r}: did you mean {where + near[0]!r}?"
                    )
                _refuse_unknown(value, known[key], f"{where}{key}.")
        case list() | tuple(), list() | tuple():
            for number, (one, other) in enumerate(zip(given, known, strict=True)):
                _refuse_unknown(one, other, f"{where}{number}.")


def _explain(item: Mapping[str, Any]) -> str:
    where = ".".join(map(str, item["loc"])) or "config"
    if item["type"] == "value_error":
        return f"{where}: {item['ctx']['error']}"
    return f"{where}: {item['msg']}, not {item['input']!r}"
