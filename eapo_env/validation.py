"""."""

from __future__ import annotations


def at_least(lowest: int, section: object, *names: str) -> None:
    """Raise a `ValueError` that shows the value if a named field is below `lowest`."""
    for name in names:
        if not getattr(section, name) >= lowest:
            raise ValueError(f"{name} must be at least {lowest}, not {getattr(section, name)}")
