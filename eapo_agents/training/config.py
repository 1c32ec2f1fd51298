"""A training run as one value: every setting, in JSON and on the command line.

`TrainConfig` is what a preset returns, what `config.json` in a run folder records, and what
`--set section.key=value` changes. Its sections are in `settings.py`.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from eapo_agents.learning import ALGORITHMS, Algorithm, DapoSettings, LearnerSettings, SyncProbe
from eapo_agents.policies import ModelSettings, PolicyServer, VLLMSettings
from eapo_agents.training.settings import (
    DistillationSettings,
    EvaluationSettings,
    ExpertSettings,
    ProblemSettings,
    RolloutSettings,
)
from eapo_env.annealing import Annealing
from eapo_env.reward import RewardRule
from eapo_env.validation import UserError, at_least

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """A training run.

    Args:
        name: what the run folder is called after.
        seed: of everything drawn at random.
        steps: training steps.
        algorithm: how rewards become updates; the section `dapo` is for "dapo" alone.
        annealing: how the experts are withdrawn; an initial turn budget of 1 is self-exploratory
            reinforcement learning (paper 3.1).
        checkpoint_every: training steps between checkpoints.
        keep_checkpoints: how many of the newest are kept.
        transcripts_every: training steps between recorded transcripts.
        truncation_alarm: a step in which more than this share of the responses is cut short by a
            limit is reported loudly.
        wandb_project: where Weights & Biases gets the metrics too (its key comes from the
            environment); empty for nowhere.
        vllm: how the engine "vllm" holds the model.
        policy_server: where the server of the engine "vllm-server" is.
        sync: how closely a policy with weights of its own must agree with the learner, after every
            hand-over.
        distillation: imitate the experts' solutions instead; None trains by rewards.
    """

    name: str = "eapo"
    seed: int = 0
    steps: int = 200
    algorithm: Literal["dapo", "grpo", "dr_grpo", "gspo", "cispo", "rloo"] = "dapo"
    checkpoint_every: int = 25
    keep_checkpoints: int = 2
    transcripts_every: int = 10
    truncation_alarm: float = 0.5
    wandb_project: str = ""
    annealing: Annealing = Annealing(steps=200)
    model: ModelSettings = ModelSettings()
    problems: ProblemSettings = ProblemSettings()
    experts: ExpertSettings = ExpertSettings()
    rollout: RolloutSettings = RolloutSettings()
    reward: RewardRule = RewardRule()
    dapo: DapoSettings = DapoSettings()
    learner: LearnerSettings = LearnerSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    vllm: VLLMSettings = VLLMSettings()
    policy_server: PolicyServer = PolicyServer()
    sync: SyncProbe = SyncProbe()
    distillation: DistillationSettings | None = None

    def __post_init__(self) -> None:
        at_least(0, self, "seed")
        at_least(1, self, "steps", "checkpoint_every", "keep_checkpoints", "transcripts_every")
        if self.algorithm != "dapo" and self.dapo != DapoSettings():
            raise UserError(f"the section dapo changes nothing in algorithm={self.algorithm}")
        if not self.name or set(self.name) & set("/\\\0"):
            raise UserError(f"name must be fit for a folder, not {self.name!r}")

    @property
    def chosen_algorithm(self) -> Algorithm:
        """The algorithm by its name; DAPO with its settings."""
        if self.algorithm == "dapo":
            return self.dapo.algorithm
        return next(a for a in ALGORITHMS if a.name == self.algorithm)

    def to_json(self) -> str:
        """Return the config as JSON that `from_json` reads back."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """Return the config that a JSON text holds.

        Raises:
            UserError: text that is not JSON, an unknown key, a value of the wrong kind.
        """
        return _validated(json.loads(text), cls)

    @classmethod
    def read(cls, path: Path) -> TrainConfig:
        """Return the config in a file.

        Raises:
            UserError: as `from_json`, naming the file.
        """
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path}: {error}") from None


def with_settings(config: C, settings: Iterable[str]) -> C:
    """Return the config with `section.key=value` settings applied, in order.

    Values are JSON where they parse as JSON, else plain strings.

    Raises:
        UserError: no "=", an unknown key (one that is alike is named), a bad value.
    """
    tree = dataclasses.asdict(config)
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"a setting reads section.key=value, not {setting!r}")
        _set(tree, key.strip().split("."), _parsed(value.strip()), setting)
    return _validated(tree, type(config))


def _set(tree: dict[str, Any], keys: list[str], value: object, setting: str) -> None:
    node = tree
    for key in keys[:-1]:
        inner = node[key] = {} if node.get(key) is None else node[key]
        if not isinstance(inner, dict):
            raise UserError(f"bad setting {setting!r}: {key} is {inner!r}, not a section")
        node = inner
    node[keys[-1]] = value


def _parsed(value: str) -> object:
    try:
        return json.loads(value)
    except ValueError:
        return value


_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "a text",
    "dataclass": "a section of settings",
    "tuple": "a list",
    "mapping": "a JSON object",
    "dict": "a JSON object",
    "is": "a list",
    "finite": "a finite number",
}
"""What a value must be, by the first word of Pydantic's type of error."""


def _validated(tree: object, kind: type[C]) -> C:
    try:
        config = TypeAdapter(kind).validate_python(tree)
    except ValidationError as error:
        raise UserError("; ".join(map(_explain, error.errors()))) from None
    known = dataclasses.asdict(config)
    _refuse_unknown(tree, known, "", list(_names(known)))
    return config


def _refuse_unknown(given: object, known: object, where: str, names: Sequence[str]) -> None:
    """Raise for a key that validation passed over: it is none of ours."""
    match given, known:
        case dict(), dict():
            for key, value in given.items():
                if key not in known:
                    near = difflib.get_close_matches(str(key), known, n=1)
                    elsewhere = [name for name in names if f".{name}".endswith(f".{key}")]
                    likely = elsewhere or [where + one for one in near]
                    guess = f": did you mean {' or '.join(map(repr, likely))}?" if likely else "."
                    raise UserError(
                        f"unknown setting {where + str(key)!r}{guess} `eapo settings` lists all"
                    )
                _refuse_unknown(value, known[key], f"{where}{key}.", names)
        case list() | tuple(), list() | tuple():
            for number, (one, other) in enumerate(zip(given, known, strict=True)):
                _refuse_unknown(one, other, f"{where}{number}.", names)


def _names(tree: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Yield the full name of every setting."""
    for key, value in tree.items():
        yield where + key
        if isinstance(value, dict):
            yield from _names(value, f"{where}{key}.")


def _explain(item: Mapping[str, Any]) -> str:
    where = ".".join(map(str, item["loc"])) or "config"
    match item["type"].split("_")[0]:
        case "value":
            return f"{where}: {item['ctx']['error']}"
        case "missing":
            return f"{where} is missing"
        case "literal":
            return f"{where} must be {item['ctx']['expected']}, not {_shown(item['input'])}"
        case "string" if not isinstance(item["input"], dict | list | tuple | None):
            value = json.dumps(item["input"])
            return f"{where} must be a text, not {value}; as a text it is '\"{value}\"'"
        case found:
            expected = _EXPECTED.get(found, f"valid ({item['msg']})")
            return f"{where} must be {expected}, not {_shown(item['input'])}"


def _shown(value: object) -> str:
    """Return a value in the words of JSON, which settings are written in; a text in our quotes."""
    return repr(value) if isinstance(value, str) else json.dumps(value, default=repr)
