"""[edge] The progress of a training run: what a checkpoint holds beside the learner's state.

`Trainer.train` resumes from the newest checkpoint of a run folder (`trainer.py`).

Seeds derive from the step and the problem's number, so there is no random state to keep.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from eapo_agents.rollouts import Group, Sampled, Trajectory
from eapo_env.episode import Episode
from eapo_env.spending import Spent
from eapo_env.types import Problem
from eapo_env.validation import UserError

_EPISODE, _PROBLEM = TypeAdapter(Episode), TypeAdapter(Problem)
_ARRAYS = ("token_ids", "mask", "logprobs")
_VALUES = ("reward", "status", "correct", "version")
_OF_THE_SERVER = ("latency_s", "hedged", "usage")
_MEMORY, _FEWEST_EPISODES = 0.85, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessAlone:
    """How often episodes alone were right in training: a moving mean, and the best of it so far.

    Args:
        right, episodes: counts in which a step counts 0.85 times as much as the next.
        best: the highest share right / episodes, of at least 64 episodes.
    """

    right: float = 0.0
    episodes: float = 0.0
    best: float = 0.0

    def after(self, alone: Sequence[bool]) -> SuccessAlone:
        """Return the success after a step in which episodes alone were right or wrong."""
        right, episodes = _MEMORY * self.right + sum(alone), _MEMORY * self.episodes + len(alone)
        enough = episodes >= _FEWEST_EPISODES
        best = max(self.best, right / episodes) if enough else self.best
        return SuccessAlone(right=right, episodes=episodes, best=best)


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """The rollout of a training step.

    Args:
        sampled: its groups.
        metrics: its seconds, and how the experts answered in it.
    """

    sampled: Sampled
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The state of a run between two training steps.

    Args:
        step: training steps taken.
        cursor: problems played, which is the number of the next one.
        surplus: groups that were played and not yet trained on.
        alone: how often episodes alone were right.
        spent: what the experts have cost.
        ahead: the next step's rollout, if it has been played already. Of the other values only
            `spent` includes it.
    """

    step: int = 0
    cursor: int = 0
    surplus: tuple[Group, ...] = ()
    alone: SuccessAlone = SuccessAlone()
    spent: Spent = Spent()
    ahead: Played | None = None

    def after(self, sampled: Sampled) -> Progress:
        """Return the progress one training step later, with nothing more spent."""
        return Progress(
            step=self.step + 1,
            cursor=self.cursor + len(sampled.played),
            surplus=sampled.surplus,
            alone=self.alone.after(
                [
                    trajectory.correct
                    for group in sampled.played
                    for trajectory in group.trajectories
                    if trajectory.episode.rules.is_alone
                ]
            ),
            spent=self.spent,
        )

    def write(self, folder: Path) -> None:
        """Write `state.json` and, one group a line, `surplus.jsonl` and `ahead.jsonl`."""
        state = {
            "step": self.step,
            "cursor": self.cursor,
            "surplus": len(self.surplus),
            "alone": asdict(self.alone),
            "spent": asdict(self.spent),
        }
        _write_groups(folder / "surplus.jsonl", self.surplus)
        if self.ahead is not None:
            sampled = self.ahead.sampled
            places = {id(one): n for n, one in enumerate((*self.surplus, *sampled.played))}
            state["ahead"] = {
                "played": len(sampled.played),
                "kept": [places[id(group)] for group in sampled.kept],
                "surplus": [places[id(group)] for group in sampled.surplus],
                "metrics": dict(self.ahead.metrics),
            }
            _write_groups(folder / "ahead.jsonl", sampled.played)
        (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Progress:
        """Return the progress that `write` wrote.

        Raises:
            UserError: a file is missing or damaged; it is named.
        """
        path = folder / "state.json"
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            step, cursor, count = (int(state[name]) for name in ("step", "cursor", "surplus"))
            alone = SuccessAlone(**state["alone"])
            spent = Spent(**state.get("spent", {}))
            surplus = _read_groups(folder / "surplus.jsonl", count)
            ahead = _read_ahead(folder, state["ahead"], surplus) if "ahead" in state else None
        except (ValueError, OSError, KeyError, TypeError, IndexError) as error:
            raise _damaged(path, error) from error
        return cls(step=step, cursor=cursor, surplus=surplus, alone=alone, spent=spent, ahead=ahead)


def _read_ahead(folder: Path, state: Mapping[str, Any], surplus: tuple[Group, ...]) -> Played:
    played = _read_groups(folder / "ahead.jsonl", int(state["played"]))
    groups = (*surplus, *played)
    kept, left = (tuple(groups[n] for n in state[name]) for name in ("kept", "surplus"))
    return Played(
        sampled=Sampled(kept=kept, played=played, surplus=left), metrics=dict(state["metrics"])
    )


def _write_groups(path: Path, groups: Sequence[Group]) -> None:
    lines = [json.dumps(group_to_row(group)) + "\n" for group in groups]
    path.write_text("".join(lines), encoding="utf-8")


def _read_groups(path: Path, count: int) -> tuple[Group, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        groups = tuple(group_from_row(json.loads(line)) for line in lines)
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error
    if len(groups) != count:
        raise UserError(f"{path}: {len(groups)} groups instead of {count}")
    return groups


def _damaged(path: Path, error: Exception) -> UserError:
    return error if isinstance(error, UserError) else UserError(f"{path}: {error!r}")


def peak_memory_mib() -> float:
    """Return the peak memory of this process in MiB: on its accelerator, if it has one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def group_to_row(group: Group) -> dict[str, Any]:
    """Return a group as JSON-ready values; the inverse of `group_from_row`."""
    return {
        "problem": asdict(group.problem),
        "trajectories": [_trajectory_to_row(trajectory) for trajectory in group.trajectories],
    }


def group_from_row(row: dict[str, Any]) -> Group:
    """Return the group of a row of `group_to_row`.

    Raises:
        ValueError, KeyError, TypeError: an invalid row.
    """
    trajectories: Sequence[dict[str, Any]] = row["trajectories"]
    return Group(
        problem=_PROBLEM.validate_python(row["problem"]),
        trajectories=tuple(map(_trajectory_from_row, trajectories)),
    )


def _trajectory_to_row(trajectory: Trajectory) -> dict[str, Any]:
    arrays = {name: getattr(trajectory, name).tolist() for name in _ARRAYS}
    values = {name: getattr(trajectory, name) for name in _VALUES}
    return arrays | values | {"episode": asdict(trajectory.episode, dict_factory=_repeatable)}


def _repeatable(fields: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the fields without an expert's speed or price: equal runs have equal checkpoints."""
    return {name: value for name, value in fields if name not in _OF_THE_SERVER}


def _trajectory_from_row(row: dict[str, Any]) -> Trajectory:
    return Trajectory(
        token_ids=np.asarray(row["token_ids"], dtype=np.int32),
        mask=np.asarray(row["mask"], dtype=np.bool_),
        logprobs=np.asarray(row["logprobs"], dtype=np.float32),
        **{name: row[name] for name in _VALUES},
        episode=_EPISODE.validate_python(row["episode"]),
    )
