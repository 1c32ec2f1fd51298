"""Measure the learner's memory against sequence length and micro-batch tokens, and draw it.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/memory.py --threads 2

On the CPU the bytes of all live tensors are counted at every operation (`live_bytes.py`): exact and
the same in every run, whatever else the machine does. With `--device cuda` it is
`torch.cuda.max_memory_allocated`. Each point is one update of two equal micro-batches, so that the
second finds the gradients of the first, by a learner that has taken a step before, so that AdamW
has its moments. Every id but a sequence's first is the policy's: the most logits there can be.

What a point takes beyond weights, gradients and moments is fitted by a + b N + c Q over some of the
points; the others check the fit. N is the tokens of the micro-batch. Q is what attention without a
flash kernel may square: for "eager" the length of each sequence, for "packed" the whole
micro-batch, because the mask that keeps its sequences apart does; for the rest nothing.
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

from eapo_agents.learning import Learner, LearnerSettings, LoRA
from eapo_agents.policies import ModelSettings

SMALL = SHAPES["12M"]
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "memory.png"
LENGTHS = (1024, 2048, 3072, 4096)
SHORT = 512
NUM_SHORT = (2, 4, 8)
FITTED = {(1, 1024), (1, 4096), (4, SHORT), (8, SHORT)}
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Way:
    """The learner's settings, transformers' name for an attention, and adapters, if any."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    attention: str = "sdpa"
    lora: LoRA | None = None

    def squared(self, number: float, length: float) -> float:
        if self.attention == "eager":
            return number * length**2
        if self.settings.get("layout") == "packed" and number > 1:
            return (number * length) ** 2
        return 0.0

    def learner(self, device: str, tokens: int) -> Learner:
        settings = LearnerSettings(device=device, max_batch_tokens=tokens, **self.settings)
        model = SMALL.model(self.attention)
        adapters = self.lora.attach(model, ModelSettings()) if self.lora else None
        return Learner(model, settings=settings, adapters=adapters)


RECOMPUTE = {"gradient_checkpointing": True}
BFLOAT16 = {"precision": "bfloat16"}
WAYS = [
    Way("float32"),
    Way("float32, checkpointing", RECOMPUTE),
    Way("bfloat16", BFLOAT16),
    Way("bfloat16, checkpointing", BFLOAT16 | RECOMPUTE),
    Way("bfloat16, checkpointing, packed", BFLOAT16 | RECOMPUTE | {"layout": "packed"}),
    Way("bfloat16, checkpointing, eager", BFLOAT16 | RECOMPUTE, "eager"),
    Way(
        "bfloat16, checkpointing, LoRA of rank 16",
        BFLOAT16 | RECOMPUTE,
        lora=LoRA(rank=16, alpha=32.0, seed=0),
    ),
]


@dataclass(frozen=True, slots=True)
class Point:
    """Memory of an update on `number` sequences of `length` ids per micro-batch."""

    number: int
    length: int
    constant: int
    peak: int

    @property
    def tokens(self) -> int:
        return self.number * self.length

    @property
    def extra(self) -> int:
        return self.peak - self.constant

    @property
    def fitted(self) -> bool:
        return (self.number, self.length) in FITTED


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
class Found:
    """One way's points, and the bytes beyond the constant: a + b N + c Q."""

    way: Way
    points: list[Point]
    a: float
    b: float
    c: float

    @classmethod
    def of(cls, way: Way, points: list[Point]) -> Found:
        fitted = [point for point in points if point.fitted]
        terms = np.array([[1.0, p.tokens, way.squared(p.number, p.length)] for p in fitted])
        size = np.abs(terms).max(0).clip(min=1.0)
        extra = np.array([float(point.extra) for point in fitted])
        found = np.linalg.lstsq(terms / size, extra, rcond=None)[0] / size
        return cls(way, points, *found.tolist())

    def at(self, number: float, length: float) -> float:
        squared = self.way.squared(number, length)
        return self.a + self.b * number * length + self.c * squared

    @property
    def constant(self) -> int:
        return self.points[0].constant

    @property
    def error(self) -> float:
        """Return the largest relative error of the fit at the points that were not fitted."""
        return max(
            abs(self.at(point.number, point.length) / point.extra - 1)
            for point in self.points
            if not point.fitted
        )


def find(way: Way, device: str) -> Found:
    sizes = [(1, length) for length in LENGTHS] + [(number, SHORT) for number in NUM_SHORT]
    return Found.of(way, [measure(way, device, *size) for size in sizes])


def print_row(found: Found) -> None:
    last = {point.number > 1: point.peak / MIB for point in found.points}
    print(
        f"| {found.way.name} | {found.constant / MIB:.0f} | {found.a / MIB:.0f} "
        f"| {found.b / 1024:.1f} | {abs(found.c):.2f} | {last[False]:.0f} | {last[True]:.0f} "
        f"| {found.error:.1%} |",
        flush=True,
    )


def draw(all_found: Sequence[Found], picture: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    tokens = np.linspace(SHORT, LENGTHS[-1], 50)
    for number, found in enumerate(all_found):
        style = {"color": f"C{number}", "lw": 1}
        single = [(found.constant + found.at(1, length)) / MIB for length in tokens]
        short = [(found.constant + found.at(n / SHORT, SHORT)) / MIB for n in tokens]
        left.plot(tokens, single, label=found.way.name, **style)
        right.plot(tokens, short, **style)
        for point in found.points:
            axes = left if point.number == 1 else right
            fill = style["color"] if point.fitted else "white"
            axes.plot(point.tokens, point.peak / MIB, "o", color=style["color"], mfc=fill)
    for axes, what in ((left, "one sequence"), (right, f"sequences of {SHORT} ids")):
        axes.axhline(all_found[0].constant / MIB, color="gray", ls=":", lw=1)
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
    parser.add_argument("--ways", default="", metavar="TEXT", help="only those whose name has it")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{SMALL}, torch {torch.__version__}, {options.device}")
    print(
        f"| | constant MiB | a MiB | b KiB | c bytes | one of {LENGTHS[-1]}: MiB "
        f"| {NUM_SHORT[-1]} of {SHORT}: MiB | off by at most |"
    )
    print("|---|---|---|---|---|---|---|---|")
    all_found = []
    for way in (way for way in WAYS if options.ways in way.name):
        all_found.append(find(way, options.device))
        print_row(all_found[-1])
    if not options.ways:
        draw(all_found, options.picture)


if __name__ == "__main__":
    main()
