"""Run by `test_processes.py` in several processes: the updates of each case, from the first one.

    shared_updates.py CASES RESULT

CASES holds pairs of a config and groups; RESULT gets each case's metrics, weights, moments and
log-probabilities.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eapo_agents.learning.distributed import Processes, joined, leaving
from eapo_agents.rollouts.trajectory import Group
from eapo_agents.training.config import TrainConfig
from eapo_agents.training.follower import follow, learner_of


def updates(config: TrainConfig, groups: Sequence[Group], processes: Processes) -> dict[str, Any]:
    processes.announce("begin", config)
    learner = learner_of(config, processes)
    reports = [learner.update(groups) for _ in range(2)]
    again = learner.state_dict()
    learner.load_state_dict(again)
    reports.append(learner.update(groups))
    records = [one for group in groups for one in group.trajectories]
    return {
        "reports": reports,
        "state": learner.state_dict(),
        "logprobs": learner.logprobs(records),
    }


def main() -> int:
    cases, result = map(Path, sys.argv[1:])
    with joined() as processes:
        if not processes.is_first:
            follow(processes)
            return 0
        found = [updates(*case, processes) for case in pickle.loads(cases.read_bytes())]
        result.write_bytes(pickle.dumps(found))
    return 0


if __name__ == "__main__":
    leaving(main)
