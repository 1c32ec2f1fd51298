"""Checks of an environment's arguments: problems, choices, and the options of a reset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from numbers import Integral
from os import PathLike
from typing import Any

from eapo_env.problems import AnswerKind, ColumnNames, load_problems
from eapo_env.prompts import Prompts
from eapo_env.reward import Reward, RewardRule
from eapo_env.types import Problem, Rules
from eapo_env.validation import UserError
from eapo_env.verifier import Grader, Verifier

ProblemSource = Sequence[Problem] | str | PathLike[str]

_RULES = tuple(field.name for field in fields(Rules))
_OPTIONS = ("problem", "problem_id", "gate_seed", *_RULES)


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Raise a `UserError` if the value of an argument is not among the choices."""
    if value not in choices:
        raise UserError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")


class UnknownArgumentError(UserError, TypeError):
    """Arguments that an environment does not have; of the type that Python itself raises.

    TorchRL passes `frameskip` to any environment, and takes it back where the message says that it
    is an unexpected keyword argument.
    """


def refuse_unknown(arguments: Mapping[str, object], known: Iterable[str]) -> None:
    """Raise an `UnknownArgumentError` if there are arguments that an environment does not have.

    It says where they belong, if that is to the rules or to the reward, and which ones there are.

    Args:
        arguments: those that are unknown.
        known: the names of those there are.
    """
    if not arguments:
        return
    owners = {"rules": Rules, "reward": RewardRule}
    meant = []
    for part, owner in owners.items():
        names = {field.name for field in fields(owner)}
        own = [f"{name}={value!r:.80}" for name, value in arguments.items() if name in names]
        meant += [f"{part}={owner.__name__}({', '.join(own)})"] if own else []
    hint = f" Did you mean {', '.join(meant)}?" if meant else ""
    found = ", ".join(repr(name) for name in arguments)
    raise UnknownArgumentError(
        f"EAPO-Math-v0 got an unexpected keyword argument {found}.{hint}"
        f" The arguments are {', '.join(known)}"
    )


def check_parts(
    *, experts: object, rules: object, reward: object, verifier: object, prompts: object
) -> None:
    """Raise UserError for a part of an environment that is a class, or of another kind."""
    parts = {"experts": experts, "reward": reward, "verifier": verifier}
    for name, part in (parts | {"rules": rules, "prompts": prompts}).items():
        if isinstance(part, type):
            raise UserError(
                f"{name} must be an instance, not the class {part.__name__}:"
                f" pass {name}={part.__name__}(...)"
            )
    if experts is not None and not hasattr(experts, "ask"):
        cure = "; ScriptedExperts makes a pool of a function" if callable(experts) else ""
        raise UserError(f"experts must be a pool with the method ask, not {experts!r:.200}{cure}")
    if rules is not None and not isinstance(rules, Rules):
        raise UserError(f"rules must be a Rules value, not {rules!r:.200}")
    if reward is not None and not isinstance(reward, Reward):
        raise UserError(f"reward must have the method reward, not be {reward!r:.200}")
    if verifier is not None and not isinstance(verifier, Grader):
        raise UserError(f"verifier must have verify, averify and close, not be {verifier!r:.200}")
    if prompts is not None and not isinstance(prompts, Prompts):
        raise UserError(f"prompts must be a Prompts value, not {prompts!r:.200}")


def problems_of(
    source: ProblemSource, columns: ColumnNames | None, grader: Grader
) -> tuple[Problem, ...]:
    """Return the problems of a source name, a path or a sequence.

    Args:
        source: where they come from.
        columns: as in `load_problems`; a sequence has none.
        grader: answers that are loaded for a `Verifier` must be such that it can check them.

    Raises:
        UserError: no problem, a value that is not a `Problem`, columns of a sequence, or as
            `load_problems`.
    """
    if isinstance(source, str | PathLike):
        answers: AnswerKind = "math" if isinstance(grader, Verifier) else "words"
        return load_problems(source, columns=columns, answers=answers)
    if columns is not None:
        raise UserError(f"columns are those of a file or data set, not of {source!r:.200}")
    if not isinstance(source, Iterable):
        raise UserError(f"problems must be Problem values, a name or a path, not {source!r:.200}")
    problems = tuple(source)
    if not problems:
        raise UserError(f"there must be at least one problem: {source!r}")
    for problem in problems:
        if not isinstance(problem, Problem):
            raise UserError(
                f"problems must be Problem(id=..., statement=..., answer=...), not {problem!r:.200}"
            )
    return problems


def by_id(problems: Sequence[Problem]) -> dict[str, Problem]:
    """Return the problems by id.

    Raises:
        UserError: two have the same id.
    """
    index: dict[str, Problem] = {}
    for problem in problems:
        if problem.id in index:
            raise UserError(f"two problems have the id {problem.id!r}")
        index[problem.id] = problem
    return index


def read_options(
    options: Mapping[str, Any], rules: Rules, problems: Mapping[str, Problem]
) -> tuple[Problem | None, Rules, int | None]:
    """Return what the options of a reset choose: problem or None, rules, seed of the gate or None.

    Args:
        options: `problem_id` or `problem` (None is the default), `gate_seed`, any field of `Rules`.
        rules: the defaults.
        problems: by id, for `problem_id`.

    Raises:
        UserError: an unknown option, or a bad value.
    """
    if not isinstance(rules, Rules):  # the attribute may be set
        raise UserError(f"rules must be a Rules value, not {rules!r:.200}")
    check_mapping(options)
    unknown = [name for name in options if name not in _OPTIONS]
    if unknown:
        raise UserError(
            f"unknown reset options {unknown}: there are {', '.join(_OPTIONS)};"
            " a vector environment has problem_ids, gate_seeds and reset_mask, too"
        )
    changes = {name: value for name, value in options.items() if name in _RULES}
    if changes:
        try:
            rules = replace(rules, **changes)
        except TypeError as error:
            raise UserError(f"bad rules in the reset options {changes}: {error}") from None
    gate_seed = options.get("gate_seed")
    if gate_seed is not None and not (isinstance(gate_seed, Integral) and int(gate_seed) >= 0):
        raise UserError(f"gate_seed must be a whole number from 0 on, not {gate_seed!r}")
    problem = _chosen(options.get("problem"), options.get("problem_id"), problems)
    return problem, rules, gate_seed if gate_seed is None else int(gate_seed)


def check_mapping(options: object) -> None:
    """Raise UserError for reset options that are no mapping."""
    if not isinstance(options, Mapping):
        raise UserError(f"reset options must be a mapping of names to values, not {options!r:.200}")


def _chosen(problem: object, problem_id: object, problems: Mapping[str, Problem]) -> Problem | None:
    if problem_id is not None:
        if problem is not None:
            raise UserError(f"problem_id {problem_id!r} and problem {problem!r}: give one of them")
        if not isinstance(problem_id, str) or problem_id not in problems:
            raise UserError(f"no problem has the id {problem_id!r}")
        return problems[problem_id]
    if problem is not None and not isinstance(problem, Problem):
        raise UserError(f"the reset option problem must be a Problem, not {problem!r}")
    return problem
