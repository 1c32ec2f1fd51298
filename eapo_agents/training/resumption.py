"""The settings that a resumed run may change: those that do not change what is learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from typing import Any

from eapo_agents.training.config import TrainConfig
from eapo_env.annealing import Annealing
from eapo_env.validation import UserError

RESUMABLE = (
    "steps",
    "checkpoint_every",
    "keep_checkpoints",
    "transcripts_every",
    "truncation_alarm",
    "standstill_alarm",
    "expert_alarm",
    "stop_without_experts",
    "trackers*",
    "experts.preflight",
    "experts.batch_timeout_s",
    "experts.cost_limit",
    "experts.token_limit",
    "experts.endpoints.*.base_url",
    "experts.endpoints.*.api_key_env",
    "experts.endpoints.*.max_live_calls",
    "experts.endpoints.*.shared_slots",
    "experts.endpoints.*.call_timeout_s",
    "experts.endpoints.*.max_retries",
    "experts.endpoints.*.breaker.*",
    "experts.endpoints.*.hedged_share",
    "experts.endpoints.*.price.*",
    "engine.base_urls.*",
    "engine.trainer_address",
    "engine.transfer",
    "engine.call_timeout_s",
    "engine.max_batch",
    "engine.cache_bytes",
    "engine.gpu_memory_utilization",
    "engine.tensor_parallel_size",
    "learner.max_batch_tokens",
    "learner.gradient_checkpointing",
    "learner.device",
    "verifier.num_workers",
    "evaluation.every",
    "evaluation.baseline",
    "sync.*",
    "distillation.problems_at_once",
    "distillation.timeout_s",
)
"""The settings that a resumed run may change, as patterns: length, addresses, memory, records."""

Changes = Mapping[str, tuple[Any, Any]]
"""The old and the new value of each setting that differs."""


def changed_settings(old: TrainConfig, new: TrainConfig) -> Changes:
    """Return the settings that a resumed run changes.

    Raises:
        UserError: one of them decides what is learned; all of those are named.
    """
    before, after = _flat(old), _flat(new)
    values = {name: (before.get(name), after.get(name)) for name in {**before, **after}}
    changes = {name: pair for name, pair in values.items() if _differ(*pair)}
    refused = {
        name: values
        for name, values in changes.items()
        if not any(fnmatchcase(name, pattern) for pattern in RESUMABLE)
    }
    if refused:
        shown = "; ".join(f"{name} is {old!r}, not {new!r}" for name, (old, new) in refused.items())
        raise UserError(
            f"a resumed run keeps the settings that decide what is learned: {shown:.1000}. Start"
            f" another run for others{_hints(old, new, refused, after)}"
        )
    return changes


def _differ(old: Any, new: Any) -> bool:
    both_are_nan = old != old and new != new
    return bool(old != new) and not both_are_nan


def _hints(old: TrainConfig, new: TrainConfig, refused: Changes, after: Mapping[str, Any]) -> str:
    """Return what else there is to say of refused settings; each sentence begins with ". "."""
    hints = ""
    if "annealing.steps" in refused and new.annealing == old.annealing:
        steps = old.schedule.steps
        hints += f". The annealing ends with the run: set annealing.steps={steps} to change steps"
    sections = (name.partition(".arguments.") for name in refused)
    if any(dot and str(after.get(f"{name}.factory")).startswith("<") for name, dot, _ in sections):
        hints += '. An attribute of a part whose name begins with "_" is not compared'
    return hints


def lengthened(old: TrainConfig, new: TrainConfig) -> TrainConfig:
    """Return the new config with the old one's annealing, which by default ends with the run."""
    if new.annealing != old.annealing or new.steps == old.steps:
        return new
    return replace(new, annealing=old.schedule)


def _flat(config: TrainConfig) -> dict[str, Any]:
    # Imitation has no schedule to keep.
    annealing = Annealing() if config.distillation or config.cold_start else config.schedule
    return dict(leaves(asdict(replace(config, annealing=annealing))))


def leaves(tree: object, where: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and value of each setting in a tree of them."""
    match tree:
        case dict():
            for key, value in tree.items():
                yield from leaves(value, f"{where}.{key}" if where else str(key))
        case list() | tuple():
            for number, value in enumerate(tree):
                yield from leaves(value, f"{where}.{number}")
        case _:
            yield where, tree
