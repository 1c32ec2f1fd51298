"""A user's script under a launcher: distillations, each of them stopped half-way and resumed.

distil_together.py CONFIG... ROOT
"""

import sys
from dataclasses import replace
from pathlib import Path

from user_parts import Librarian

from eapo_agents.learning import Processes
from eapo_agents.methods import distillation_trainer
from eapo_agents.training import Run, TrainConfig, lead


def main(processes: Processes) -> None:
    *configs, root = map(Path, sys.argv[1:])
    for path in configs:
        config = TrainConfig.read(path)
        run = Run.create(config, root)
        for steps in (config.steps // 2, config.steps):
            trainer = distillation_trainer(
                replace(config, steps=steps), experts=Librarian(), processes=processes
            )
            assert trainer.train(run)


if __name__ == "__main__":
    lead(main)
