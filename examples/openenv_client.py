"""A policy of your own on a server of `eapo serve-env`, through OpenEnv's client.

    pip install "eapo[openenv]"
    eapo serve-env --port 8000 &
    python examples/openenv_client.py http://127.0.0.1:8000

The policy here asks the experts about the whole problem and believes them. A trainer passes the
rules of its step, so that the experts are withdrawn as it learns.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from eapo_agents.adapters import EapoAction, EapoClient
from eapo_env import Annealing


def policy(observation: str) -> str:
    """Return the next completion."""
    replies = re.findall(r"<reply>(\d+)</reply>", observation)
    if replies or "ask" not in observation:
        return rf"\boxed{{{replies[0] if replies else 0}}}"
    return f"<consult>\n<query>{observation.splitlines()[0]}</query>\n</consult>"


def main(arguments: Sequence[str] | None = None) -> None:
    """Play one episode at each of four training steps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("address")
    address = parser.parse_args(arguments).address
    annealing = Annealing(steps=4, schedule="ours_linear", turn_budget=2)
    with EapoClient(address).sync() as env:
        for step in range(1, 5):
            rules = annealing.rules_at(step)
            result = env.reset(
                seed=step, turn_budget=rules.turn_budget, acceptance_rate=rules.acceptance_rate
            )
            while not result.done:
                result = env.step(EapoAction(completion=policy(result.observation.text)))
            accepted = result.observation.accepted
            print(f"step {step}  replies read {accepted}  reward {result.reward}")


if __name__ == "__main__":
    main()
