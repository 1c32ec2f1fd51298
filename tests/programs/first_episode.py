"""An episode of the installed environment, and what it was made of, as JSON."""

import json
import sys

import gymnasium

import eapo_env
from eapo_env.problems import load_problems

env = gymnasium.make("EAPO-Math-v0")
observation, info = env.reset(seed=3)
turns = [env.step("no answer yet")]
while not turns[-1][2]:
    turns.append(env.step("\\boxed{1/7}"))
env.close()
missing = ""
try:
    load_problems("set.parquet")
except (ImportError, ValueError) as error:
    missing = str(error)
print(
    json.dumps(
        {
            "where": eapo_env.__file__,
            "rewards": [float(turn[1]) for turn in turns],
            "ended": turns[-1][2] and not turns[-1][3],
            "read": len(observation),
            "sample": len(load_problems("sample")),
            "missing": missing,
            "extras": [n for n in ("torch", "transformers", "datasets") if n in sys.modules],
        }
    )
)
