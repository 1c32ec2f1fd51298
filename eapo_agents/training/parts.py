"""The parts that a trainer was handed in Python, as settings: a run records what it was made of.

A part that can be made again by name is recorded as its factory (`experts.kind=python`), and the
command line resumes the run. Any other part is recorded under a name in angle brackets, with what
can be said of it, and the run is resumed by the script that made it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence, Sized
from dataclasses import asdict, dataclass, replace
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from eapo_agents.factories import Factory, found, only_in_python
from eapo_agents.learning import AlgorithmSettings, PythonAlgorithm
from eapo_agents.policies import PythonEngine
from eapo_agents.training.config import TrainConfig
from eapo_agents.training.settings import (
    ExpertSettings,
    ProblemSettings,
    RewardSettings,
    VerifierSettings,
)
from eapo_env.reward import RewardRule
from eapo_env.types import Problem
from eapo_env.validation import UserError
from eapo_env.verifier import Verifier

if TYPE_CHECKING:
    from eapo_agents.learning import Algorithm, Learner
    from eapo_agents.policies import Policy
    from eapo_agents.rollouts import Rollout
    from eapo_env.experts import ExpertPool
    from eapo_env.reward import Reward
    from eapo_env.verifier import Grader

_DEEPEST, _LARGEST = 4, 50
_SECRET = re.compile(r"(\A|_)(key|secret|password|token)\Z")


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
            sections["engine"] = PythonEngine(factory=only_in_python(_name(type(self.policy))))
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
    kind = type(part)
    if dataclasses.is_dataclass(part) and kind.__module__ != "__main__":
        arguments = dict(_attributes(part))
        name = f"{kind.__module__}:{kind.__qualname__}"
        if _is_json(arguments) and not any(map(_SECRET.search, arguments)):
            try:
                if found(name, "") is kind:
                    return Factory(factory=name, arguments=arguments)
            except UserError:
                pass  # a class within a function
    return _described(part)


def _described(part: object) -> Factory:
    description = describe(part)
    return Factory(
        factory=only_in_python(description["is"]), arguments=description.get("settings", {})
    )


def describe(value: Any, depth: int = 0) -> Any:
    """Return what can be said of a value in JSON, the same in every process.

    Numbers, strings, lists and mappings of them are themselves; a function is its name; any other
    object is its class, `is`, and its attributes, `settings`. Private attributes and those that
    look like secrets by their names are left out; so is what is large or nested deeply.
    """
    match value:
        case None | bool() | int() | float() | str():
            return value
        case type() | FunctionType() | BuiltinFunctionType():
            return _name(value)
    if depth == _DEEPEST or (isinstance(value, Sized) and len(value) > _LARGEST):
        return {"is": _name(type(value))}
    attributes: Mapping[str, Any]
    match value:
        case Mapping():
            return {str(key): describe(one, depth + 1) for key, one in value.items()}
        case list() | tuple():
            return [describe(one, depth + 1) for one in value]
        case functools.partial(func=func, args=args, keywords=keywords):
            name, attributes = _name(func), {"arguments": args} | keywords
        case MethodType(__func__=func, __self__=owner):
            name, attributes = _name(func), {"of": owner}
        case _:
            name, attributes = _name(type(value)), _attributes(value)
    shown = {
        key: describe(one, depth + 1)
        for key, one in attributes.items()
        if not key.startswith("_") and not _SECRET.search(key)
    }
    return {"is": name, "settings": shown}


def _attributes(value: Any) -> Mapping[str, Any]:
    if dataclasses.is_dataclass(value):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
    return getattr(value, "__dict__", {})


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _is_json(value: object) -> bool:
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError, RecursionError):
        return False
