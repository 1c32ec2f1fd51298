"""Save two checkpoints in the run folder of the argument; the second takes for ever."""

import sys
import time
from pathlib import Path

from eapo_agents.training.run_folder import Run


def slowly(folder: Path) -> None:
    for number in range(10_000):
        (folder / f"part-{number}").write_text("x" * 1000)
        if number == 20:
            print("in the middle", flush=True)
        time.sleep(0.002)


def quickly(folder: Path) -> None:
    (folder / "weights").write_text("whole")


run = Run.open(Path(sys.argv[1]))
run.save(1, quickly)
run.save(2, slowly)
