#!/usr/bin/env bash
# ray 2.60.0, by which verl starts its learners and rollout workers.
#
# A good guess: a learner that is a Ray actor has the priority of the process that started it. So a
# learner and an expert server that share a core, as on a CPU machine, get half of it each.
#
# What happens: workers run at niceness 15 (RAY_worker_niceness is 15 unless set; the driver stays at
# 0), so that a process of usual priority on the same core leaves them about 5%. A training that takes
# minutes alone seems to hang. With RAY_worker_niceness=0 they share as guessed.
#
# Seen:
#   driver 0, actor 15, its share of a core: 0.06
#   driver 0, actor 0, its share of a core: 0.50      (RAY_worker_niceness=0)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "ray==2.60.0"
cat > "$folder/share.py" <<'PY'
import multiprocessing
import os
import time

import ray


def work(seconds: float) -> float:
    """Return the processor time that a busy loop got on the first core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    end, start = time.monotonic() + seconds, time.process_time()
    while time.monotonic() < end:
        pass
    return time.process_time() - start


@ray.remote
class Learner:
    def niceness(self) -> int:
        return os.nice(0)

    def work(self, seconds: float) -> float:
        return work(seconds)


if __name__ == "__main__":
    ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    learner = Learner.remote()
    niceness = ray.get(learner.niceness.remote())
    with multiprocessing.get_context("spawn").Pool(1) as server:
        server.apply(work, (0.1,))
        beside = server.apply_async(work, (8.0,))
        own = ray.get(learner.work.remote(8.0))
        share = own / (own + beside.get())
    print(f"driver {os.nice(0)}, actor {niceness}, its share of a core: {share:.2f}")
    usual = os.environ.get("RAY_worker_niceness") == "0"
    assert niceness == (0 if usual else 15), niceness
    assert share > 0.3 if usual else share < 0.2, share
PY
cd "$folder"
export RAY_USAGE_STATS_ENABLED=0
# One session for all of them: Linux shares a core among sessions before it looks at niceness.
"$folder/venv/bin/python" share.py 2>/dev/null
RAY_worker_niceness=0 "$folder/venv/bin/python" share.py 2>/dev/null
