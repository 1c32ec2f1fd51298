"""EAPO's settings inside a verl config, and a problem as a row of verl's data files.

All that stands under `eapo` in a verl config, its preset apart, are settings by the names that
`eapo settings` lists: `+eapo.preset=r1_distill_qwen_7b +eapo.annealing.turn_budget=4`. What verl
decides itself is taken from verl: the number of training steps, the size of a group, the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from eapo_agents.training import TrainConfig, fitted_to_model, presets, prompts_of, with_settings
from eapo_env.types import Problem, Rules
from eapo_env.validation import UserError

AGENT_NAME = "eapo"
"""The name of the agent loop in data files."""


def verl_settings(verl: Mapping[str, Any]) -> TrainConfig:
    """Return EAPO's settings of a verl config; its section `eapo` has plain values.

    Raises:
        UserError: no preset, a setting that does not exist, or one that verl decides.
    """
    own = dict(verl.get("eapo") or {})
    preset = own.pop("preset", None)
    if preset is None:
        raise UserError("the verl config has no +eapo.preset=NAME; eapo settings lists the presets")
    rollout, trainer = verl["actor_rollout_ref"]["rollout"], verl["trainer"]
    if not trainer.get("total_training_steps"):
        raise UserError("trainer.total_training_steps is not set: over so many the experts go")
    decided = {
        "steps": trainer["total_training_steps"],
        "model.path": verl["actor_rollout_ref"]["model"]["path"],
        "rollout.group_size": rollout["n"],
    }
    chosen = dict(_flat(own))
    if both := sorted(chosen.keys() & decided.keys()):
        raise UserError(f"verl decides {', '.join(both)}: leave out +eapo.{both[0]}")
    settings = [f"{name}={json.dumps(value)}" for name, value in (chosen | decided).items()]
    return _settings(str(preset), tuple(settings))


@cache
def _settings(preset: str, settings: tuple[str, ...]) -> TrainConfig:
    return fitted_to_model(with_settings(presets.preset_named(preset), settings))


def _flat(section: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings of a section with their full names."""
    for name, value in section.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{where}{name}.")
        else:
            yield where + name, value


def verl_rows(
    problems: Sequence[Problem], config: TrainConfig, *, rules: Rules
) -> list[dict[str, Any]]:
    """Return the rows of a data file: those of validation have the rules of an episode alone.

    verl measures the length of `prompt`, and leaves out rows where it is too long; the agent loop
    writes the prompt of its step itself.
    """
    prompts = prompts_of(config)
    return [
        {
            "data_source": problem.source or "eapo",
            "agent_name": AGENT_NAME,
            "prompt": [{"role": "user", "content": prompts.opening(problem, rules).content}],
            "reward_model": {"style": "rule", "ground_truth": problem.answer},
            "extra_info": {
                "index": index,
                "id": problem.id,
                "statement": problem.statement,
                "alone": rules.is_alone,
            },
        }
        for index, problem in enumerate(problems)
    ]


def problem_of(row: Mapping[str, Any]) -> Problem:
    """Return the problem of a row.

    Raises:
        UserError: the row lacks a column: `eapo export-verl` did not write it.
    """
    try:
        return Problem(
            id=str(row["extra_info"]["id"]),
            statement=str(row["extra_info"]["statement"]),
            answer=str(row["reward_model"]["ground_truth"]),
            source=str(row["data_source"]),
        )
    except KeyError as error:
        raise UserError(f"a row without {error}: write data files by eapo export-verl") from None
