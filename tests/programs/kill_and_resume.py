"""Train in the run folder RUN, killed at eight moments and each time resumed, to the end.

kill_and_resume.py RUN
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from eapo_agents.training.run_folder import Run
from eapo_agents.training.trainer import Trainer

RUN = Run.open(Path(sys.argv[1]))


def start() -> int:
    child = os.fork()
    if child == 0:
        Trainer.from_config(RUN.config).train(Run.open(RUN.folder))
        os._exit(0)
    return child


def kill(child: int, is_moment: Callable[[], bool]) -> bool:
    """Kill the child at the moment; return False if it had ended before."""
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if is_moment():
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return True
        time.sleep(0.0005)
    return False


def after(seconds: float) -> Callable[[], bool]:
    started: list[float] = []

    def is_moment() -> bool:
        started.append(time.monotonic())
        return started[-1] >= started[0] + seconds

    return is_moment


def in_a_checkpoint(step: int) -> Callable[[], bool]:
    return (RUN.folder / "checkpoints" / f".unfinished-step-{step:06d}").exists


def main() -> int:
    rng = np.random.default_rng(0)
    moments = [after(0.0), in_a_checkpoint(1), *(after(rng.uniform(0.0, 0.5)) for _ in range(3))]
    moments += [in_a_checkpoint(3), in_a_checkpoint(4), after(rng.uniform(0.1, 0.8))]
    kills = [kill(start(), moment) for moment in moments]
    assert kills[0], "it comes before anything could be done"
    _, status = os.waitpid(start(), 0)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
