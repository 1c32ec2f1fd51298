"""A user's script under a launcher: a training with the parts of `user_parts.py`.

train_with_custom_parts.py CONFIG ROOT
"""

import sys
from pathlib import Path

from user_parts import custom_trainer

from eapo_agents.learning import Processes
from eapo_agents.training import Run, TrainConfig, lead


def main(processes: Processes) -> None:
    config = TrainConfig.read(Path(sys.argv[1]))
    trainer = custom_trainer(config, processes)
    assert trainer.train(Run.create(config, Path(sys.argv[2])))


if __name__ == "__main__":
    lead(main)
