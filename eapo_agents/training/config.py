"""A training run as one value: every setting, in JSON and on the command line.

`TrainConfig` is what a preset returns, what `config.json` in a run folder records, and what
`--set section.key=value` changes. Its sections are in
`settings.py` and where that file says.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cache
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from eapo_agents.learning import DAPO, AlgorithmSettings, LearnerSettings, SyncProbe
from eapo_agents.policies import Engine, HFEngine, ModelSettings
from eapo_agents.rollouts import derive_seed
from eapo_agents.training.imitation_settings import ColdStartSettings, DistillationSettings
from eapo_agents.training.settings import (
    EvaluationSettings,
    ExpertSettings,
    ProblemSettings,
    RewardSettings,
    RolloutSettings,
    VerifierSettings,
)
from eapo_agents.training.trackers import TensorBoard, TrackerSettings
from eapo_env.annealing import Annealing
from eapo_env.validation import UserError, at_least, probability

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")

Tree = Mapping[str, Any]
"""Settings by name, those of inner sections in a mapping of their own."""


def _by_kind(value: object) -> object:
    """Return the section of a kind that is given as a string."""
    return {"kind": value} if isinstance(value, str) else value


def _listed(value: Any) -> Any:
    """Return the list of a comma-separated string."""
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


_KIND = Field(discriminator="kind")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """The configuration of a training run.

    A section with several kinds can be given by its kind: `algorithm=grpo` has GRPO's defaults.

    Args:
        name: prefix of the run folder's name.
        seed: random seed of the run.
        steps: training steps.
        checkpoint_every: training steps between checkpoints.
        keep_checkpoints: number of newest checkpoints to keep.
        transcripts_every: training steps between recorded transcripts; the first and the last have
            one, too.
        truncation_alarm: warn when limits truncate more than this share of a step's responses.
        standstill_alarm: warn after this number of steps in a row in which no group had right and
            wrong answers, so that nothing was learned.
        expert_alarm: warn when more than this share of a step's accepted queries get no reply.
        stop_without_experts: end the run, with a checkpoint, after this number of such steps in a
            row; null never does.
        annealing: how the experts are withdrawn, by default over all training steps; an initial
            turn budget of 1 is self-exploratory reinforcement learning (paper 3.1).
        model: the model to train.
        engine: what samples.
        algorithm: the policy-optimisation algorithm.
        trackers: where metrics are logged besides the run folder.
        sync: how closely a policy with its own copy of the weights must agree with the learner
            after every weight update.
        distillation: imitate the experts' solutions; None trains by rewards.
        cold_start: imitate demonstrations of consulting; None trains by rewards.
    """

    name: str = "eapo"
    seed: int = 0
    steps: int = 200
    checkpoint_every: int = 25
    keep_checkpoints: int = 2
    transcripts_every: int = 10
    truncation_alarm: float = 0.5
    standstill_alarm: int = 3
    expert_alarm: float = 0.5
    stop_without_experts: int | None = None
    annealing: Annealing = Annealing()
    model: ModelSettings = ModelSettings()
    engine: Annotated[Engine, _KIND, BeforeValidator(_by_kind)] = HFEngine()
    problems: ProblemSettings = ProblemSettings()
    experts: Annotated[ExpertSettings, BeforeValidator(_by_kind)] = ExpertSettings()
    rollout: RolloutSettings = RolloutSettings()
    reward: Annotated[RewardSettings, BeforeValidator(_by_kind)] = RewardSettings()
    verifier: Annotated[VerifierSettings, BeforeValidator(_by_kind)] = VerifierSettings()
    algorithm: Annotated[AlgorithmSettings, _KIND, BeforeValidator(_by_kind)] = DAPO()
    learner: LearnerSettings = LearnerSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    trackers: Annotated[
        tuple[Annotated[TrackerSettings, _KIND, BeforeValidator(_by_kind)], ...],
        BeforeValidator(_listed),
    ] = (TensorBoard(),)
    sync: SyncProbe = SyncProbe()
    distillation: DistillationSettings | None = None
    cold_start: ColdStartSettings | None = None

    def __post_init__(self) -> None:
        at_least(0, self, "seed")
        at_least(1, self, "steps", "checkpoint_every", "keep_checkpoints", "transcripts_every")
        at_least(1, self, "standstill_alarm")
        probability(self, "truncation_alarm", "expert_alarm")
        if self.stop_without_experts is not None:
            at_least(1, self, "stop_without_experts")
        if self.annealing.schedule == "ours_by_success" and self.rollout.help_for != "all":
            raise UserError(
                f"rollout.help_for={self.rollout.help_for} with annealing.schedule=ours_by_success:"
                " the groups that fail alone would not count as episodes alone"
            )
        if not self.name or set(self.name) & set("/\\\0"):
            raise UserError(f"name must be a valid folder name, not {self.name!r}")

    @property
    def schedule(self) -> Annealing:
        """The annealing, over this run's steps unless `annealing.steps` is set."""
        return dataclasses.replace(self.annealing, steps=self.annealing.steps or self.steps)

    @property
    def is_alone(self) -> bool:
        """Whether no step of the run consults experts."""
        return self.schedule.rules_at(1).is_alone

    @property
    def evaluation_seed(self) -> int:
        """The seed of evaluations, apart from those of training."""
        return derive_seed(self.seed, 2)

    def to_json(self) -> str:
        """Return the config as JSON that `from_json` reads back."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """Return the config that a JSON text holds.

        Raises:
            UserError: invalid JSON, an unknown key, a value of the wrong type.
        """
        try:
            tree = json.loads(text)
        except ValueError as error:
            raise UserError(f"not JSON: {error}") from None
        return _validated(tree, cls)

    @classmethod
    def read(cls, path: str | PathLike[str]) -> TrainConfig:
        """Return the config in a file.

        Raises:
            UserError: as `from_json`, naming the file.
        """
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: {error}") from None


def with_settings(config: C, settings: Iterable[str]) -> C:
    """Return the config with `section.key=value` settings applied.

    Values are JSON where they parse as JSON, else plain strings. A setting that changes the kind of
    a section (`algorithm=grpo`, `experts.kind=openai`) resets it to that kind's defaults and is
    applied before all others. Other problems (`source`) have the default columns, split and subset,
    another `schedule` the default exponent and rate, unless these are set, too. Of several settings
    of one key, the last counts.

    Raises:
        UserError: no "=", an unknown key (a similar one is suggested), an invalid value.
    """
    tree = dataclasses.asdict(config)
    parsed = [_Setting.parse(setting) for setting in settings]
    for setting in parsed:
        setting.choose_kind(tree)
        setting.drop_details(tree)
    for setting in parsed:
        setting.apply(tree)
    return _validated(tree, type(config))


_DETAILS = {"source": ("columns", "split", "subset"), "schedule": ("exponent", "rate")}
"""The settings beside another one that hold for its present value alone."""


@dataclass(frozen=True, slots=True)
class _Setting:
    keys: tuple[str, ...]
    value: object
    text: str

    @classmethod
    def parse(cls, text: str) -> _Setting:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"a setting must be section.key=value, not {text!r}")
        keys, parsed = tuple(key.strip().split(".")), _parsed(value.strip())
        return cls(keys, parsed, text)

    def choose_kind(self, tree: dict[str, Any]) -> None:
        """Reset a section to the defaults of its kind if this setting changes the kind."""
        if self.keys[-1] == "kind":
            keys, kind = self.keys[:-1], self.value
        elif isinstance(self.value, str):
            keys, kind = self.keys, self.value
        else:
            return
        section = _section(tree, keys)
        if section.get("kind", kind) != kind:
            section.clear()
            section["kind"] = kind

    def drop_details(self, tree: dict[str, Any]) -> None:
        """Reset what holds for the present value alone if this setting changes the value."""
        *keys, last = self.keys
        section = _section(tree, keys)
        if section.get(last, self.value) != self.value:
            for name in _DETAILS.get(last, ()):
                section.pop(name, None)

    def apply(self, tree: dict[str, Any]) -> None:
        node = tree
        for key in self.keys[:-1]:
            inner = node[key] = {} if node.get(key) is None else node[key]
            if not isinstance(inner, dict):
                raise UserError(f"bad setting {self.text!r}: {key} is {inner!r}, not a section")
            node = inner
        last, section = self.keys[-1], node.get(self.keys[-1])
        by_kind = isinstance(section, dict) and section.get("kind", self) == self.value
        node[last] = section if by_kind else self.value


def _section(tree: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Return a section of a config; a new one where there is none."""
    section: object = tree
    for key in keys:
        section = section.get(key) if isinstance(section, dict) else None
    return section if isinstance(section, dict) else {}


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
"""The expected value, by the first word of Pydantic's type of error."""


def _validated(tree: object, kind: type[C]) -> C:
    if isinstance(tree, dict):
        _refuse_unknown(kind, tree, "", list(_names(kind, tree)))
    try:
        config: C = _adapter(kind).validate_python(tree)
    except ValidationError as error:
        raise UserError("; ".join(_explain(item, tree) for item in error.errors())) from None
    return config


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """Return what validates a section; making it takes longer than any use of it."""
    return TypeAdapter(kind)


def _refuse_unknown(
    section: type[DataclassInstance],
    given: Tree,
    where: str,
    names: Sequence[str],
    kinds: Sequence[type[DataclassInstance]] = (),
) -> None:
    """Raise a `UserError` for an unknown key, which validation ignores, at any depth.

    Args:
        section: the section's type.
        given: its settings.
        where: its name and a dot.
        names: of all settings, to suggest from.
        kinds: the types that the section may have.
    """
    hints = get_type_hints(section)
    for key, value in given.items():
        if key not in hints:
            owners = [kind for kind in kinds if key in get_type_hints(kind)]
            if owners:
                users = ", ".join(str(get_args(get_type_hints(o)["kind"])[0]) for o in owners)
                raise UserError(f"{where}{key} is for {where}kind={users}, not {given['kind']}")
            near, nearest = (
                difflib.get_close_matches(str(key), hints, n=1, cutoff=least)
                for least in (0.6, 0.8)
            )
            here = nearest if where else []
            elsewhere = [name for name in names if f".{name}".endswith(f".{key}")]
            likely = [where + one for one in here] or elsewhere or [where + one for one in near]
            guess = f": did you mean {' or '.join(map(repr, likely))}?" if likely else "."
            raise UserError(
                f"unknown setting {where + str(key)!r}{guess} `eapo settings` lists all"
            )
        for place, inner, settings in _inner(hints[key], value):
            kinds = _kinds(hints[key])
            _refuse_unknown(inner, settings, f"{where}{key}.{place}", names, kinds)


def _names(section: type[DataclassInstance], given: Tree, where: str = "") -> Iterator[str]:
    """Yield the full name of every setting of a section; of several kinds, those of the chosen."""
    hints = get_type_hints(section)
    for each in dataclasses.fields(section):
        yield where + each.name
        value = given.get(each.name, each.default)
        if is_dataclass(value) and not isinstance(value, type):
            value = dataclasses.asdict(value)
        for place, inner, settings in _inner(hints[each.name], value):
            if not place:
                yield from _names(inner, settings, f"{where}{each.name}.")


def _inner(hint: Any, value: object) -> Iterator[tuple[str, type[DataclassInstance], Tree]]:
    """Yield the sections in the value of a setting: "" or the place in a list, type, settings."""
    if get_origin(hint) is tuple:
        entries = list(enumerate(value)) if isinstance(value, list | tuple) else []
        for number, entry in entries:
            for _, section, settings in _inner(get_args(hint)[0], entry):
                yield f"{number}.", section, settings
    elif isinstance(value, dict):
        sections = _kinds(hint)
        for section in sections:
            if len(sections) == 1 or value.get("kind") in get_args(get_type_hints(section)["kind"]):
                yield "", section, value


def _kinds(hint: Any) -> list[type[DataclassInstance]]:
    """Return the types of section that a setting, or an entry of a list of them, may have."""
    if get_origin(hint) is tuple:
        return _kinds(get_args(hint)[0])
    return [one for one in (hint, *get_args(hint)) if isinstance(one, type) and is_dataclass(one)]


def _explain(item: Mapping[str, Any], tree: object) -> str:
    where = ".".join(_place(item["loc"], tree)) or "config"
    match item["type"].split("_")[0]:
        case "union" if "tag" in item["ctx"]:
            tag, expected = item["ctx"]["tag"], item["ctx"]["expected_tags"]
            return f"{where}.kind must be one of {expected}, not {tag!r}"
        case "union":
            return f"{where}.kind is missing"
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


def _place(loc: Sequence[str | int], tree: object) -> Iterator[str]:
    """Yield the keys of a place in the tree; Pydantic adds the kind of a section after its name."""
    for key in loc:
        section = _by_kind(tree)
        if isinstance(section, dict) and section.get("kind") == key:
            continue
        yield str(key)
        match key, tree:
            case int(), list() | tuple() | str():
                tree = _listed(tree)[key]
            case str(), dict():
                tree = tree.get(key)
            case _:
                tree = None


def _shown(value: object) -> str:
    """Return a value as JSON, the syntax of settings; a string in single quotes."""
    return repr(value) if isinstance(value, str) else json.dumps(value, default=repr)
