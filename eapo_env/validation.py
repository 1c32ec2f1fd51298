"""`UserError`, the one type of error for bad input, and the range checks that raise it."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input, or something outside the program that the user can put right.

    The message shows the bad value or names what is missing. The command line prints it without a
    traceback; any other exception is a bug and keeps its traceback.
    """


def at_least(lowest: int, section: object, *names: str) -> None:
    """Check that each named field of a section is `lowest` or more.

    Raises:
        UserError: a field is below; its name and value are shown.
    """
    for name in names:
        if not getattr(section, name) >= lowest:
            raise UserError(f"{name} must be at least {lowest}, not {getattr(section, name)}")


def positive(section: object, *names: str) -> None:
    """Check that each named field of a section is above 0.

    Raises:
        UserError: a field is not; its name and value are shown.
    """
    for name in names:
        if not getattr(section, name) > 0:
            raise UserError(f"{name} must be positive, not {getattr(section, name)}")


def probability(section: object, *names: str) -> None:
    """Check that each named field of a section is in [0, 1].

    Raises:
        UserError: a field is not; its name and value are shown.
    """
    for name in names:
        if not 0.0 <= getattr(section, name) <= 1.0:
            raise UserError(f"{name} must be in [0, 1], not {getattr(section, name)}")
