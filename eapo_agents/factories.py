"""Custom parts, by name: `package.module:callable`, or an installed entry point."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from eapo_env.validation import UserError

_MEMBERS = {
    "eapo.algorithms": ("name", "advantages", "loss"),
    "eapo.engines": ("tokenizer", "max_context_tokens", "complete", "load_weights", "close"),
    "eapo.experts": ("ask",),
    "eapo.rewards": ("reward",),
    "eapo.trackers": ("log", "close"),
    "eapo.verifiers": ("verify", "averify", "close"),
}
"""What a part of each entry-point group must have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factory:
    """A callable, by name, with its keyword arguments.

    `package.module:callable` is imported from the environment or the working directory. A name
    without ":" is an entry point in the group of the part it makes: `eapo.experts`, `eapo.engines`,
    `eapo.algorithms`, `eapo.rewards`, `eapo.verifiers`, `eapo.problems`, `eapo.trackers`.

    Args:
        factory: `package.module:callable`, or the name of an installed entry point.
        arguments: keyword arguments of the factory.
    """

    factory: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def make(self, group: str, *values: object) -> Any:
        """Return the result of the callable for these values and the arguments.

        Args:
            group: the entry-point group, such as "eapo.experts".

        Raises:
            UserError: the name is malformed, nothing callable is found under it, it takes other
                arguments, or it returns no such part. What the callable itself raises is passed on.
        """
        callable_ = found(self.factory, group)
        self._check_arguments(callable_, values)
        part = callable_(*values, **self.arguments)
        check_members(part, group, f"what {self.factory!r} returns")
        return part

    def _check_arguments(self, callable_: Callable[..., Any], values: Sequence[object]) -> None:
        try:
            signature = inspect.signature(callable_)
        except ValueError:  # some of C have none
            return
        try:
            signature.bind(*values, **self.arguments)
        except TypeError as error:
            given = f"{len(values)} values and {dict(self.arguments)}" if values else self.arguments
            raise UserError(
                f"factory {self.factory!r} takes {signature}, not {given}: {error}; it must return"
                " the part"
            ) from error


def check_members(part: object, group: str, name: str) -> None:
    """Raise a `UserError` for a part that lacks what parts of its entry-point group have."""
    members = _MEMBERS.get(group, ())
    missing = [member for member in members if not hasattr(part, member)]
    if isinstance(part, type):
        raise UserError(f"{name} must be an instance, not the class {part.__name__}")
    if missing:
        raise UserError(f"{name} must have {', '.join(members)}, not be {part!r:.200}")


def only_in_python(name: str) -> str:
    """Return the factory name of a part that only the script that made it can make again."""
    return f"<{name}>"


def found(name: str, group: str) -> Callable[..., Any]:
    """Return the callable of a name; see `Factory`.

    Raises:
        UserError: the name is malformed, or nothing callable is found under it.
    """
    if name.startswith("<"):
        raise UserError(
            f"the part {name} was made in Python: resume the run, or evaluate it, from the script"
            " that made it"
        )
    module, colon, attribute = name.partition(":")
    if not colon:
        return _installed(name, group)
    try:
        value: Any = _module(module)
        for part in attribute.split("."):
            value = getattr(value, part)
    except ModuleNotFoundError as error:
        if (error.name or "") and not f"{module}.".startswith(f"{error.name}."):
            raise  # an import inside the module failed: its traceback says where
        raise UserError(f"factory {name!r}: no module named {error.name!r}") from error
    except AttributeError as error:
        raise UserError(f"factory {name!r}: {error}") from error
    if not callable(value):
        raise UserError(f"factory {name!r} is not callable: {value!r:.80}")
    made: Callable[..., Any] = value
    return made


def _module(name: str) -> Any:
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"a factory must be package.module:callable, not {name!r}")
    folder = os.getcwd()
    if folder not in sys.path:  # as for `python -m`: a console script does not see it
        sys.path.append(folder)
    return importlib.import_module(name)


def _installed(name: str, group: str) -> Callable[..., Any]:
    points = {point.name: point for point in entry_points(group=group)}
    if name not in points:
        known = f"installed in {group}: {', '.join(sorted(points)) or 'nothing'}"
        raise UserError(f"a factory must be package.module:callable, not {name!r} ({known})")
    made: Callable[..., Any] = points[name].load()
    return made
