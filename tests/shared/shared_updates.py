"""Run by `test_distributed.py` in several processes: the updates of each case, from the first one.

    shared_updates.py CASES RESULT

CASES holds pairs of a config and groups; RESULT gets each case's metrics, weights, moments and
log-probabilities. Beside it are the checkpoints from which each case went on to its last update.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from eapo_agents.learning.distributed import Processes
from eapo_agents.learning.lora import LoRA
from eapo_agents.learning.spec import LearnerSpec
from eapo_agents.rollouts.trajectory import Group
from eapo_agents.training.config import TrainConfig
from eapo_agents.training.worker import lead


def updates(
    config: TrainConfig,
    groups: Sequence[Group],
    checkpoint: Path,
    processes: Processes,
    others: Path | None = None,
) -> dict[str, Any]:
    """Update twice, write a checkpoint and update again; the same once more from a checkpoint.

    It is this one, or that of others. The states are those after the last update of either.
    """
    spec = LearnerSpec(
        model=config.model,
        algorithm=config.algorithm.build(),
        settings=config.learner,
        lora=LoRA.of(config.model.lora, config.seed),
    )
    learner = spec.start(processes)
    reports = [learner.update(groups) for _ in range(2)]
    learner.save(checkpoint)
    reports.append(learner.update(groups))
    state = learner.state_dict()
    resumed = spec.start(processes)
    resumed.load(others or checkpoint)
    reports.append(resumed.update(groups))
    records = [one for group in groups for one in group.trajectories]
    return {
        "reports": reports,
        "states": {"uninterrupted": deepcopy(state), "resumed": resumed.state_dict()},
        "logprobs": resumed.logprobs(records),
    }


def checkpoint_of(folder: Path, number: int) -> Path:
    place = folder / f"checkpoint-{number}"
    place.mkdir(exist_ok=True, parents=True)
    return place


def main(processes: Processes) -> None:
    cases, result = map(Path, sys.argv[1:])
    given = pickle.loads(cases.read_bytes())
    found = [
        updates(config, groups, checkpoint_of(result.parent, number), processes)
        for number, (config, groups) in enumerate(given)
    ]
    result.write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    lead(main)
