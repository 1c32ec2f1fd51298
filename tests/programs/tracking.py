"""Record two steps of a run folder in Trackio, and two more after a resumption."""

import sys
from pathlib import Path

from eapo_agents.training.trackers import Trackio

for first in (1, 3):
    tracker = Trackio(project="tiny").build(Path(sys.argv[1]))
    for step in (first, first + 1):
        tracker.log(step, {"accuracy": 0.25 * step})
    tracker.close()
