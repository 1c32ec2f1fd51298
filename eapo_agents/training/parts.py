"""The parts that a trainer was handed in Python, as settings: a run records what it was made of.

A part that can be made again by name is recorded as its factory (`experts.kind=python`), and the
command line resumes the run. Any other part is recorded under a name in angle brackets, with what
can be said of it, and the run is resumed by the script that made it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from eapo_agents.factories import Factory, check_members, found, only_in_python
from eapo_agents.learning import AlgorithmSettings, PythonAlgorithm
from eapo_agents.policies import PythonEngine
from eapo_agents.training.config import TrainConfig
from eapo_agents.training.description import describe, holds_secret, name_of
from eapo_agents.training.settings import (
    ExpertSettings,
    ProblemSettings,
    RewardSettings,
    VerifierSettings,
)
from eapo_env.reward import RewardRule
from eapo_env.types import Problem
from eapo_env.verifier import Verifier

if TYPE_CHECKING:
    from eapo_agents.learning import Algorithm, Learner
    from eapo_agents.policies import Policy
    from eapo_agents.rollouts import Rollout
    from eapo_env.experts import ExpertPool
    from eapo_env.reward import Reward
    from eapo_env.verifier import Grader

_GROUPS = {
    "policy": "eapo.engines",
    "experts": "eapo.experts",
    "algorithm": "eapo.algorithms",
    "reward": "eapo.rewards",
    "verifier": "eapo.verifiers",
}
"""The entry-point groups of the parts."""

_GENERATED = "<string>"
"""The file of an `__init__` that `dataclass` wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of a trainer that a config can make; None where it is not one of them."""

    policy: Policy | None = None
    experts: ExpertPool | None = None
    algorithm: Algorithm | None = None
    reward: Reward | None = None
    verifier: Grader | None = None
    problems: Sequence[Problem] | None = None
    held_out: Sequence[Problem] | None = None

    @classmethod
    def of(
        cls,
        rollout: Rollout,
        learner: Learner,
        problems: Sequence[Problem],
        held_out: Sequence[Problem],
    ) -> Parts:
        """Return the parts of a trainer."""
        return cls(
            policy=rollout.policy,
            experts=rollout.experts,
            algorithm=learner.algorithm,
            reward=rollout.reward,
            verifier=rollout.verifier,
            problems=problems,
            held_out=held_out,
        )

    def check(self) -> None:
        """Raise a `UserError` for a part that lacks a method of its kind."""
        for name, group in _GROUPS.items():
            if (part := getattr(self, name)) is not None:
                check_members(part, group, name)

    def without(self, others: Parts) -> Parts:
        """Return the parts that are not among the others: none of the same kind is this object."""
        names = [field.name for field in dataclasses.fields(self)]
        same = [name for name in names if getattr(self, name) is getattr(others, name)]
        return replace(self, **dict.fromkeys(same))

    def except_for(self, given: Parts) -> Parts:
        """Return the parts in whose place none was given."""
        names = [field.name for field in dataclasses.fields(self)]
        return replace(self, **{n: None for n in names if getattr(given, n) is not None})

    def recorded_in(self, config: TrainConfig) -> TrainConfig:
        """Return the config with each of these parts in the place of what it says there."""
        sections: dict[str, Any] = {}
        if self.policy is not None:
            sections["engine"] = PythonEngine(factory=only_in_python(name_of(type(self.policy))))
        if self.experts is not None:
            sections["experts"] = ExpertSettings(
                kind="python",
                batch_timeout_s=config.experts.batch_timeout_s,
                **asdict(_factory_of(self.experts)),
            )
        if self.algorithm is not None:
            sections["algorithm"] = _algorithm(self.algorithm)
        if self.reward is not None:
            sections["reward"] = _reward(self.reward)
        if self.verifier is not None:
            sections["verifier"] = _verifier(self.verifier)
        if self.problems is not None:
            sections["problems"] = _problems(self.problems)
        if self.held_out is not None:
            problems = _problems(self.held_out)
            sections["evaluation"] = replace(config.evaluation, problems=problems)
        return replace(config, **sections)


def _algorithm(algorithm: Algorithm) -> AlgorithmSettings:
    if isinstance(algorithm, AlgorithmSettings):
        return algorithm
    return PythonAlgorithm(**asdict(_factory_of(algorithm)))


def _reward(reward: Reward) -> RewardSettings:
    if type(reward) is RewardRule:
        return RewardSettings(**asdict(reward) | {"overlong": reward.overlong})
    return RewardSettings(kind="python", **asdict(_factory_of(reward)))


def _verifier(verifier: Grader) -> VerifierSettings:
    if type(verifier) is Verifier:
        made = VerifierSettings(
            time_limit_s=verifier.time_limit_s, num_workers=verifier.num_workers
        )
        if made.build() == verifier:
            return made
    return VerifierSettings(kind="python", **asdict(_factory_of(verifier)))


def _problems(problems: Sequence[Problem]) -> ProblemSettings:
    text = json.dumps([asdict(problem) for problem in problems], sort_keys=True)
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    name = only_in_python(f"{len(problems)} problems, sha256 {digest}")
    return ProblemSettings(source="python", factory=name)


def _factory_of(part: object) -> Factory:
    """Return the factory that makes an equal part, or else the description of this one."""
    try:
        made = _factory_by_name(part)
    except Exception:  # of the part's own code
        made = None
    return made or _described(part)


def _factory_by_name(part: Any) -> Factory | None:
    """Return the factory of a dataclass that its fields make again; None for any other part."""
    kind = type(part)
    if kind.__module__ == "__main__" or not _is_made_of_fields(kind):
        return None
    fields = [field for field in dataclasses.fields(part) if field.init]
    arguments = {field.name: getattr(part, field.name) for field in fields}
    if not all(field.repr for field in fields) or holds_secret(arguments):
        return None
    name = f"{kind.__module__}:{kind.__qualname__}"
    if found(name, "") is not kind or not _is_json(arguments):
        return None
    again = kind(**deepcopy(arguments))
    same = all(_is_same(getattr(again, n), one) for n, one in arguments.items())
    return Factory(factory=name, arguments=arguments) if same else None


def _is_made_of_fields(kind: type) -> bool:
    """Return whether a class is a dataclass whose fields are what its instances are made of."""
    if "__dataclass_fields__" not in vars(kind):
        return False
    make = vars(kind)["__init__"]
    if make.__code__.co_filename != _GENERATED:
        return False
    fields = dataclasses.fields(kind)
    parameters = list(inspect.signature(make).parameters)[1:]  # without self
    return set(parameters) == {field.name for field in fields if field.init} and not any(
        field.compare for field in fields if not field.init
    )


def _is_same(one: object, other: object) -> bool:
    return _is_json(one) and json.dumps(one) == json.dumps(other)


def _is_json(value: object) -> bool:
    """Return whether JSON gives the value back, its types included."""
    if type(value) is dict:
        return all(type(key) is str and _is_json(one) for key, one in value.items())
    if type(value) is list:
        return all(map(_is_json, value))
    return type(value) in (type(None), bool, int, float, str) and value == value


def _described(part: object) -> Factory:
    description = describe(part)
    if not isinstance(description, Mapping) or "is" not in description:
        description = {"is": name_of(type(part)), "settings": {"value": description}}
    name = only_in_python(description["is"])
    return Factory(factory=name, arguments=description.get("settings", {}))
