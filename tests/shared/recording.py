"""Record 60 long queries of a seed: in a thread, or as a program: python -m recording FILE SEED."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from eapo_env.experts import MeaninglessExperts
from eapo_env.recordings import RecordingExperts
from eapo_env.types import Query


def record(path: Path, seed: int) -> None:
    pool = RecordingExperts(MeaninglessExperts(), path)
    for turn in range(20):
        queries = [Query(text="x" * 3000, seed=seed, turn=turn, slot=slot) for slot in range(3)]
        asyncio.run(pool.ask(queries))


if __name__ == "__main__":
    record(Path(sys.argv[1]), int(sys.argv[2]))
