"""Measure the learner's memory against sequence length and micro-batch tokens, and draw it.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/memory.py --threads 2

On the CPU the bytes of all live tensors are counted at every operation (`live_bytes.py`): exact and
the same in every run, whatever else the machine does. With `--device cuda` it is
`torch.cuda.max_memory_allocated`. Each point is one update of two equal micro-batches, so that the
second finds the gradients of the first, by a learner that has taken a step before, so that AdamW
has its moments. Every id but a sequence's first is the policy's: the most logits there can be.

What a point takes beyond weights, gradients and moments is fitted by a + b N + c N^2, N the tokens
of the micro-batch, over three lengths of a single sequence; the other lengths, and several
sequences of one length together, check the fit. One exception: "eager" attention squares each
sequence, not the micro-batch, so only its single sequences are checked.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from live_bytes import LiveBytes
from shapes import SHAPES, sequences

from eapo_agents.learner import Learner, LearnerSettings

SMALL = SHAPES["12M"]
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "memory.png"
FITTED = (1024, 2048, 4096)
CHECKED = (1536, 3072)
SHORT = 512
NUM_SHORT = (2, 4, 8)
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Way:
    """How the learner reads: its settings, and transformers' name for an attention."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    attention: str = "sdpa"

    def learner(self, device: str, tokens: int) -> Learner:
        settings = LearnerSettings(device=device, max_batch_tokens=tokens, **self.settings)
        return Learner(SMALL.model(self.attention), settings=settings)


RECOMPUTE = {"gradient_checkpointing": True}
BFLOAT16 = {"precision": "bfloat16"}
WAYS = [
    Way("float32"),
    Way("float32, checkpointing", RECOMPUTE),
    Way("bfloat16", BFLOAT16),
    Way("bfloat16, checkpointing", BFLOAT16 | RECOMPUTE),
    Way("bfloat16, checkpointing, packed", BFLOAT16 | RECOMPUTE | {"layout": "packed"}),
    Way("bfloat16, checkpointing, eager", BFLOAT16 | RECOMPUTE, "eager"),
]


@dataclass(frozen=True, slots=True)
class Point:
    """What the update of `number` sequences of `length` ids in a micro-batch took."""

    number: int
    length: int
    constant: int
    peak: int

    @property
    def tokens(self) -> int:
        return self.number * self.length


def measure(way: Way, device: str, number: int, length: int) -> Point:
    first, two = (
        sequences(1, 2, SMALL.vocabulary),
        sequences(2 * number, length, SMALL.vocabulary),
    )
    if device == "cuda":
        learner = way.learner(device, number * length)
        learner.sft_update(first)
        constant = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        learner.sft_update(two)
        return Point(number, length, constant, torch.cuda.max_memory_allocated())
    with LiveBytes() as counter:
        learner = way.learner(device, number * length)
        learner.sft_update(first)
        constant = counter.peak = counter.live
        learner.sft_update(two)
    return Point(number, length, constant, counter.peak)


@dataclass(frozen=True, slots=True)
class Fit:
    """The bytes beyond the constant: a + b N + c N^2."""

    a: float
    b: float
    c: float

    @classmethod
    def of(cls, points: Sequence[Point]) -> Fit:
        tokens = np.array([point.tokens for point in points], dtype=float)
        extra = np.array([point.peak - point.constant for point in points], dtype=float)
        powers = np.stack([tokens**0, tokens, tokens**2], 1)
        return cls(*np.linalg.solve(powers, extra).tolist())

    def at(self, tokens: Any) -> Any:
        return self.a + self.b * tokens + self.c * tokens**2

    def error(self, points: Sequence[Point]) -> float:
        """Return the largest relative error of what a point takes beyond the constant."""
        return max(abs(self.at(p.tokens) / (p.peak - p.constant) - 1) for p in points)


@dataclass(frozen=True, slots=True)
class Found:
    """One way's points: single sequences, several short ones, and the fit to the former."""

    way: Way
    single: list[Point]
    several: list[Point]
    fit: Fit

    @property
    def checks(self) -> list[Point]:
        single = [point for point in self.single if point.length in CHECKED]
        return single if self.way.attention == "eager" else single + self.several


def find(way: Way, device: str) -> Found:
    single = [measure(way, device, 1, length) for length in sorted(FITTED + CHECKED)]
    several = [measure(way, device, number, SHORT) for number in NUM_SHORT]
    fit = Fit.of([point for point in single if point.length in FITTED])
    return Found(way, single, several, fit)


def print_row(found: Found) -> None:
    fit, constant = found.fit, found.single[0].constant
    print(
        f"| {found.way.name} | {constant / MIB:.0f} | {fit.a / MIB:.0f} | {fit.b / 1024:.1f} "
        f"| {fit.c:.2f} | {found.single[-1].peak / MIB:.0f} "
        f"| {found.several[-1].peak / MIB:.0f} | {fit.error(found.checks):.1%} |",
        flush=True,
    )


def draw(all_found: Sequence[Found], picture: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for number, found in enumerate(all_found):
        color = f"C{number}"
        line = np.linspace(0, FITTED[-1], 100)
        constant = found.single[0].constant
        left.plot(line, (constant + found.fit.at(line)) / MIB, color=color, lw=1)
        if found.way.attention != "eager":
            right.plot(line, (constant + found.fit.at(line)) / MIB, color=color, lw=1)
        for axes, points in ((left, found.single), (right, found.several)):
            for point in points:
                used = axes is left and point.length in FITTED
                axes.plot(
                    point.tokens,
                    point.peak / MIB,
                    "o",
                    color=color,
                    mfc=color if used else "white",
                    label=found.way.name if axes is left and point is points[0] else None,
                )
    for axes, what in ((left, "one sequence"), (right, f"sequences of {SHORT} ids")):
        axes.axhline(all_found[0].single[0].constant / MIB, color="gray", ls=":", lw=1)
        axes.set_xlabel(f"tokens of a micro-batch: {what}")
        axes.set_ylim(0)
    left.set_ylabel("MiB")
    left.legend(fontsize=8)
    figure.suptitle(
        "Memory of an update: filled points are fitted, hollow ones check; dotted: weights, "
        "gradients, AdamW's moments",
        fontsize=9,
    )
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{SMALL}, torch {torch.__version__}, {options.device}")
    print(
        f"| | constant MiB | a MiB | b KiB a token | c bytes | one of {FITTED[-1]}, MiB "
        f"| {NUM_SHORT[-1]} of {SHORT}, MiB | fit off by at most |"
    )
    print("|---|---|---|---|---|---|---|---|")
    all_found = []
    for way in WAYS:
        all_found.append(find(way, options.device))
        print_row(all_found[-1])
    draw(all_found, options.picture)


if __name__ == "__main__":
    main()
