"""A user's script under a launcher: what would train in each process by itself is refused.

    refused_under_a_launcher.py CONFIG FOLDER

Each process writes what was refused to `FOLDER/RANK`, a line each.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from eapo_agents.learning import (
    CustomAlgorithm,
    Learner,
    Processes,
    dapo_loss,
    end_process,
)
from eapo_agents.policies import load_model
from eapo_agents.training import Run, TrainConfig, Trainer, lead_or_follow
from eapo_env.validation import UserError

CONFIG, FOLDER = TrainConfig.read(Path(sys.argv[1])), Path(sys.argv[2])
REFUSED = FOLDER / os.environ["RANK"]
LAMBDA = CustomAlgorithm(name="mine", advantages=lambda rewards_G: rewards_G, loss=dapo_loss)


def refused(make: Callable[[], object]) -> None:
    try:
        make()
    except UserError as error:
        with REFUSED.open("a", encoding="utf-8") as file:
            file.write(f"{error}\n")
    else:
        raise AssertionError("not refused")


def main(processes: Processes) -> None:
    model, _ = load_model(CONFIG.model)
    refused(lambda: Learner(model))
    refused(lambda: Trainer.from_config(CONFIG))
    trainer = Trainer.from_config(CONFIG, algorithm=LAMBDA, processes=processes)
    trainer.train(Run.create(CONFIG, FOLDER))


def status() -> int:
    refused(lambda: Trainer.from_config(CONFIG))
    refused(lambda: lead_or_follow(main))
    counts: list[int] = []
    while counts != [4, 2]:  # the launcher ends the others when one ends
        files = [FOLDER / str(rank) for rank in range(2)]
        counts = [path.read_text().count("\n") if path.exists() else 0 for path in files]
        time.sleep(0.01)
    return 2


if __name__ == "__main__":
    end_process(status)
