"""Compute the tables of `docs/one-gpu.md`: memory, disk, and the tokens of a run.

    python benchmarks/one_gpu.py             # a minute; `0.5B 3B` behind it: only these sizes

Nothing is measured. The limits are those of the preset `one_gpu`, the shapes those of Qwen2.5, and
the learner's bytes are counted as in `longest.py`, which states what that assumes. Beyond it:

- a GPU can be filled to 95%, and has 24, 80 or 139 GiB (what is sold as 141 GB);
- vLLM holds bfloat16 weights and keys and values; its own activations and graphs are not counted;
- tokens a response, a query and a reply are those of `Example`, which nobody has measured.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from longest import GIB, counted
from shapes import SHAPES, Shape

from eapo_agents import TrainConfig, presets
from eapo_agents.learning import LoRA
from eapo_agents.policies import ModelSettings

SIZES = {"0.5B": "500M", "1.5B": "1.5B", "3B": "3B", "7B": "7B"}
GPUS_GIB = (24, 80, 139)
USABLE = 0.95
ADAPTERS = LoRA(rank=16, alpha=32.0, seed=0)
BFLOAT16, FLOAT32 = 2, 4
CONCURRENT = 32
"""Sequences of the greatest length for which the policy's engine has keys and values."""
EXPERT, EXPERT_CACHE_GIB = "7B", 8
EVALUATED = 500
"""Problems of MATH-500, on which the preset evaluates."""


@dataclass(frozen=True, slots=True)
class Weights:
    """How many weights a model has, and how many its adapters."""

    model: int
    adapters: int


@cache
def weights_of(shape: Shape) -> Weights:
    with torch.device("meta"):
        model = shape.model()
        own = sum(weight.numel() for weight in model.parameters())
        ADAPTERS.attach(model, ModelSettings())
    return Weights(own, sum(weight.numel() for weight in model.parameters()) - own)


@dataclass(frozen=True, slots=True)
class Example:
    """Lengths, speeds and a price, chosen to show the arithmetic; put in your own."""

    response_tokens: int = 600
    query_tokens: int = 200
    reply_tokens: int = 500
    sampled_per_s: int = 2_000
    learned_per_s: int = 5_000
    price_per_million: float = 0.50


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    first, *rest = (f"| {' | '.join(line)} |\n" for line in (head, *rows))
    return first + "|" + "---|" * len(head) + "\n" + "".join(rest)


def engine_bytes(shape: Shape, weights: Weights, tokens: int) -> int:
    return BFLOAT16 * (weights.model + shape.cached * tokens)


def memory_table(config: TrainConfig, sizes: Mapping[str, str]) -> str:
    """Return the bytes of learner and engine by size, and which GPUs hold them."""
    length = config.learner.max_batch_tokens
    expert = weights_of(SHAPES[EXPERT]).model * BFLOAT16 + EXPERT_CACHE_GIB * GIB
    rows = []
    for lora in (None, ADAPTERS):
        for size, name in sizes.items():
            shape = SHAPES[name]
            learner = counted(shape, config.learner, length, lora=lora)
            engine = engine_bytes(shape, weights_of(shape), CONCURRENT * length)
            total = learner.peak + engine
            numbers = (learner.constant, learner.peak, engine, total)
            rows.append(
                [
                    f"{size}, {'LoRA' if lora else 'all weights'}",
                    *(f"{number / GIB:.1f}" for number in numbers),
                    *(fits(total, expert, gpu * GIB) for gpu in GPUS_GIB),
                ]
            )
    head = ["GiB", "learner between updates", "learner at its peak", "engine", "both"]
    return table([*head, *(f"on {gpu}" for gpu in GPUS_GIB)], rows)


def fits(total: int, expert: int, gpu: int) -> str:
    if total + expert <= USABLE * gpu:
        return "yes, and the expert"
    return "yes" if total <= USABLE * gpu else "no"


def disk_table(config: TrainConfig, sizes: Mapping[str, str]) -> str:
    """Return the bytes of a checkpoint by size, and of all that a run folder holds at a time."""
    most = config.keep_checkpoints + 1
    rows = []
    for size, name in sizes.items():
        weights = weights_of(SHAPES[name])
        full = checkpoint_bytes(weights.model)
        adapters = BFLOAT16 * weights.model + checkpoint_bytes(weights.adapters)
        numbers = (FLOAT32 * weights.model, full, most * full, adapters)
        row = [f"{number / GIB:.1f}" for number in numbers]
        rows.append([size, f"{weights.model / 1e6:,.0f}", *row])
    head = ["", "million weights", "weights, GiB", "checkpoint, GiB", f"{most} of them, GiB"]
    return table([*head, "checkpoint of LoRA, GiB"], rows)


def checkpoint_bytes(trained: int) -> int:
    """Return the bytes that `Learner.save` writes with AdamW: a weight and its two moments."""
    return 3 * FLOAT32 * trained


def token_table(config: TrainConfig, example: Example) -> str:
    """Return tokens, price and hours of the first step and of a run, in one round or in all."""
    head, columns = [""], []
    most = config.rollout.sampling.max_rounds
    for rounds, each in ((1, "one round a step"), (most, f"{most} rounds a step")):
        for steps, part in ((1, "first step"), (config.steps, f"{config.steps} steps")):
            head.append(f"{part}, {each}")
            columns.append(tokens(config, example, steps, rounds))
    names = [
        "episodes, E",
        "million tokens sampled, E x L",
        "million tokens learned from, at most",
        "million tokens of evaluations",
        "queries, at most, Q",
        "million tokens of experts, Q x (q + r)",
        f"price of these at c = {example.price_per_million:.2f}",
        f"hours at S = {example.sampled_per_s:,} and U = {example.learned_per_s:,}",
    ]
    return table(head, zip(names, *columns, strict=True))


def tokens(config: TrainConfig, example: Example, steps: int, rounds: int) -> list[str]:
    """Return a column of the table: the first `steps` steps, with so many rounds in each."""
    sampling, group, schedule = config.rollout.sampling, config.rollout.group_size, config.schedule
    episodes = rounds * sampling.problems_per_round * group
    sent = [
        schedule.acceptance_rate_at(step) * (schedule.turn_budget_at(step) - 1)
        for step in range(1, steps + 1)
    ]
    queries = episodes * config.annealing.queries_per_turn * sum(sent)
    expert = queries * (example.query_tokens + example.reply_tokens)
    sampled = steps * episodes * example.response_tokens
    learned = steps * sampling.groups_per_step * group * example.response_tokens
    played = EVALUATED * config.evaluation.samples_per_problem * (steps // config.evaluation.every)
    evaluated = played * example.response_tokens
    seconds = (sampled + evaluated) / example.sampled_per_s + learned / example.learned_per_s
    return [
        f"{steps * episodes:,}",
        *(f"{number / 1e6:,.2f}" for number in (sampled, learned, evaluated)),
        f"{queries:,.0f}",
        f"{expert / 1e6:,.2f}",
        f"{expert / 1e6 * example.price_per_million:,.2f}",
        f"{seconds / 3600:,.2f}",
    ]


def main() -> None:
    config = presets.one_gpu()
    sizes = {size: SIZES[size] for size in sys.argv[1:] or SIZES}
    print(memory_table(config, sizes))
    print(disk_table(config, sizes))
    print(token_table(config, Example()), end="")


if __name__ == "__main__":
    main()
