"""What a user did wrong: one type of error, and the range checks that raise it."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input, or something outside the program that its user can put right.

    The message shows the value, or names what is missing, and is all that a user has to read: the
    command line prints it without a traceback. Any other exception is a bug and keeps its
    traceback.
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
