"""The plan of faults: what is done to a training, to what, and when. All of it follows from a seed.

`plan(seed, lane, number)` is a pure function; `driver.py` does what the plan says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

STEPS = 16
FAULTS = 20

T = TypeVar("T")
Engine = Literal["hf", "vllm-server"]
Target = Literal["experts", "policy", "trainer", "disk"]

OF_SERVERS = ("kill", "stop", "silent", "slow", "garble", "status")
OF_TRAINERS = ("kill", "INT", "TERM", "INT twice")
OF_DISKS = ("nothing fits", "no checkpoint fits", "no line fits")
GARBLES = (
    *("no JSON", "no choices", "wrong types", "no UTF-8", "deep", "nothing"),
    *("a page", "hanging up", "no HTTP"),
)
REFUSALS = (401, 429, 500, 503)
CHANGES = (
    "experts.endpoints",
    "checkpoint_every=2",
    "checkpoint_every=4",
    "keep_checkpoints=3",
    "verifier.num_workers=1",
    "experts.preflight=skipped",
)
"""Settings that a resumed run may change; that of the endpoints moves them to another port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    Args:
        kind: of `OF_SERVERS`, `OF_TRAINERS` or `OF_DISKS`, as the target is.
        how: the behaviour of a server that misbehaves.
        at_step: it comes once this number of steps is recorded, or later.
        delay_s: and this long after that.
        lasts_s: until a server or a disk is cured; between two signals to a trainer.
        change: a setting that the next resumption changes; "" for none.
    """

    target: Target
    kind: str
    how: str = ""
    at_step: int
    delay_s: float
    lasts_s: float
    change: str = ""

    @property
    def name(self) -> str:
        """Its row in the table."""
        return f"{self.target}: {self.kind}"


def plan(seed: int, lane: int, number: int, engine: Engine) -> tuple[Fault, ...]:
    """Return what is done to training `number` of a lane.

    In every other training no expert's reply is lost, so that all its numbers can be compared.
    """
    rng = np.random.default_rng([seed, lane, number])
    steps = sorted(rng.integers(0, STEPS, FAULTS).tolist())
    loses_replies = number % 2 == 1
    return tuple(_fault(rng, step, engine, loses_replies) for step in steps)


def _fault(rng: np.random.Generator, step: int, engine: Engine, loses_replies: bool) -> Fault:
    kinds = _possible(engine, loses_replies)
    target = _drawn(rng, list(kinds))
    kind = _drawn(rng, kinds[target])
    return Fault(
        target=target,
        kind=kind,
        how=_how(rng, kind) if target in ("experts", "policy") else "",
        at_step=step,
        delay_s=float(rng.uniform(0.0, 0.5)),
        lasts_s=_duration_s(rng, target, kind),
        change=_drawn(rng, CHANGES) if rng.random() < 0.5 else "",
    )


def _possible(engine: Engine, loses_replies: bool) -> Mapping[Target, Sequence[str]]:
    """Return the kinds of faults by target."""
    kinds: dict[Target, Sequence[str]] = {
        "trainer": OF_TRAINERS,
        "disk": OF_DISKS,
        "experts": OF_SERVERS if loses_replies else ("slow",),
    }
    return kinds | {"policy": OF_SERVERS} if engine == "vllm-server" else kinds


def _how(rng: np.random.Generator, kind: str) -> str:
    match kind:
        case "garble":
            return f"garble:{_drawn(rng, GARBLES)}"
        case "status":
            return f"status:{_drawn(rng, REFUSALS)}"
        case "slow" | "silent":
            return kind
        case _:
            return ""


def _duration_s(rng: np.random.Generator, target: Target, kind: str) -> float:
    """Return how long a fault lasts.

    A killed policy server stays away for longer than the trainer repeats its calls, as vLLM does,
    which takes a minute to start: a new one has the weights of the model's folder.
    """
    if target == "trainer":
        return float(rng.uniform(0.0, 1.0))
    if target == "policy" and kind == "kill":
        return 8.0
    return float(rng.uniform(0.5, 4.0))


def _drawn(rng: np.random.Generator, choices: Sequence[T]) -> T:
    return choices[int(rng.integers(len(choices)))]
