"""A training of two processes, both killed while its next checkpoint is written.

    killed_while_saving.py CONFIG ROOT

The second process is killed as soon as the parts begin to be written, the first one, if it outlives
that, before the checkpoint has its name.
"""

import os
import signal
import sys
from pathlib import Path
from threading import Thread

from eapo_agents.learning import Processes
from eapo_agents.training import Run, TrainConfig, Trainer, lead


def other_process() -> int:
    parent = os.getppid()
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    [other] = {int(child) for child in children} - {os.getpid()}
    return other


def kill_other_once_there_is(path: Path) -> None:
    while not path.exists():
        pass
    os.kill(other_process(), signal.SIGKILL)


def main(processes: Processes) -> None:
    config = TrainConfig.read(Path(sys.argv[1]))
    trainer, run = Trainer.from_config(config, processes=processes), Run.create(config, sys.argv[2])
    trainer.train(run)

    def write(folder: Path) -> None:
        Thread(target=kill_other_once_there_is, args=(folder / "shards",), daemon=True).start()
        trainer.learner.save(folder)
        os.kill(os.getpid(), signal.SIGKILL)

    run.save(config.steps + 1, write)


if __name__ == "__main__":
    lead(main)
