"""What the doctor says of a part, and how a part that fails is told."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from eapo_agents.evaluation import EpisodeRow
from eapo_env.validation import UserError

T = TypeVar("T")

Grade = Literal["good", "look", "bad"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found of one part.

    Args:
        part: its name.
        text: in a sentence.
        verdict: "good"; "look" for what may spoil a run; "bad" for what prevents it.
        episode: a trial episode that shows it.
    """

    part: str
    text: str
    verdict: Grade = "good"
    episode: EpisodeRow | None = None


Findings = Generator[Finding, None, T]
"""What is found of a part, as it is found, and what the next parts take from it."""


def refused(part: str, findings: Findings[T]) -> Findings[T | None]:
    """Yield the findings of a part; an error that a run would have ends them, and is the last."""
    import torch

    try:
        return (yield from findings)
    except UserError as error:
        told = "; ".join([str(error), *getattr(error, "__notes__", [])])
        yield Finding(part=part, text=told, verdict="bad")
    except torch.OutOfMemoryError as error:
        told = (
            f"the device's memory is too small (docs/scaling.md): {str(error).partition('. ')[0]}"
        )
        yield Finding(part=part, text=told, verdict="bad")
    return None


def how_to_start(command: str, url: str, usual_port: int) -> str:
    """Return which command starts a server, and where; the port is named if it is another one."""
    where = urlsplit(url)
    port = f" --port {where.port}" if where.port not in (None, usual_port) else ""
    host = "" if where.hostname in ("127.0.0.1", "localhost", "::1") else f" on {where.hostname}"
    return f"start it{host}: {command}{port}"
