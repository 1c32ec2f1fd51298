"""Run the tiny experiment `trained` of the tests of jobs: train_seed.py FOLDER SETTINGS."""

import json
import sys
from pathlib import Path

from eapo_agents.reproduction.experiment_kinds import Train
from eapo_agents.reproduction.jobs import open_jobs, run_jobs
from eapo_env.annealing import Annealing

if __name__ == "__main__":
    trained = Train(
        name="trained", num_seeds=1, annealing=Annealing(schedule="ours_linear", turn_budget=2)
    )
    settings = json.loads(sys.argv[2])
    jobs = open_jobs([trained], num_seeds=None, folder=Path(sys.argv[1]), settings=settings)
    sys.exit(not run_jobs(jobs, at_once=1, on_step=lambda job, step: None))
