"""What the first of several processes has the others do with their learners, as values.

`Learner.perform` handles all of them in one `match`, in every process: a command that it forgets is
a type error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eapo_agents.rollouts import Demonstration, Group, Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """Improve the model on these groups."""

    groups: Sequence[Group]


@dataclass(frozen=True, slots=True, kw_only=True)
class Imitate:
    """Take one step of cross-entropy; a learning rate of None is the settings' own."""

    demonstrations: Sequence[Demonstration]
    learning_rate: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeLogprobs:
    """Compute the log-probabilities of these records."""

    records: Sequence[Trajectory | Demonstration]


@dataclass(frozen=True, slots=True)
class GatherWeights:
    """Gather the weights in the first process."""


@dataclass(frozen=True, slots=True)
class GatherState:
    """Gather weights, optimiser state and step in the first process."""


@dataclass(frozen=True, slots=True)
class LoadState:
    """Restore the state of the first process; but for the algorithm's it travels by tensors."""

    state: Mapping[str, Any] = field(default_factory=dict)

    def __reduce__(self) -> tuple[type[LoadState], tuple[Mapping[str, Any]]]:
        """Pickle the algorithm's state alone."""
        return LoadState, ({key: self.state[key] for key in ("algorithm",) if key in self.state},)


@dataclass(frozen=True, slots=True)
class SaveShards:
    """Write each process's part of weights and moments into a checkpoint that all see."""

    checkpoint: Path


@dataclass(frozen=True, slots=True)
class LoadShards:
    """Restore what `SaveShards` and the first process wrote into a checkpoint."""

    checkpoint: Path


Command = (
    Update
    | Imitate
    | ComputeLogprobs
    | GatherWeights
    | GatherState
    | LoadState
    | SaveShards
    | LoadShards
)
