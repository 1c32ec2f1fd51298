"""`UserError`, the one type of error for bad input, and the range checks that raise it."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any


class UserError(ValueError):
    """Bad input, or something outside the program that the user can put right.

    The message shows the bad value or names what is missing. The command line prints it without a
    traceback; any other exception is a bug and keeps its traceback.
    """


def at_least(lowest: int, section: object, *names: str) -> None:
    """Check that each named field of a section is `lowest` or more.

    Raises:
        UserError: a field is below or no number; its name and value are shown.
    """
    for name in names:
        value = _number(section, name)
        if not value >= lowest:
            raise UserError(f"{name} must be at least {lowest}, not {value}")


def positive(section: object, *names: str) -> None:
    """Check that each named field of a section is above 0.

    Raises:
        UserError: a field is not; its name and value are shown.
    """
    for name in names:
        value = _number(section, name)
        if not value > 0:
            raise UserError(f"{name} must be positive, not {value}")


def probability(section: object, *names: str) -> None:
    """Check that each named field of a section is in [0, 1].

    Raises:
        UserError: a field is not; its name and value are shown.
    """
    for name in names:
        value = _number(section, name)
        if not 0.0 <= value <= 1.0:
            raise UserError(f"{name} must be in [0, 1], not {value}")


def whole(section: object, *names: str) -> None:
    """Check that each named field of a section is an integer.

    Raises:
        UserError: a field is not; its name and value are shown.
    """
    for name in names:
        value = getattr(section, name)
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise UserError(f"{name} must be a whole number, not {value!r:.200}")


def _number(section: object, name: str) -> Any:
    value = getattr(section, name)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UserError(f"{name} must be a number, not {value!r:.200}")
    return value
