"""Rewards of skrl's agents that decide when to consult, beside those of fixed decisions.

    python benchmarks/decisions.py --seeds 5

The agents and the environment are those of `examples/skrl_ppo.py`. Each cell is the mean reward,
and the mean number of queries an episode, over 512 episodes of agents that decide greedily; `+-` is
the standard deviation over seeds. `any rate`: each sub-environment cycles through rates
evenly spaced over (0, 1), one per episode. `falling`: all have the same rate, which falls from 1 to
0 over the training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from eapo_agents.methods import (
    Decide,
    DecisionVectorEnv,
    RulesAt,
    ScheduledRules,
    Score,
    always,
    play,
)
from eapo_env.types import Rules

sys.path.append(str(Path(__file__).parents[1] / "examples"))

from skrl_ppo import MakeAgent, any_rate, dqn, greedy, make_env, ppo, train

RATES = (1.0, 0.75, 0.5, 0.25, 0.0)


def falling(step: int, draw: float, *, steps: int) -> Rules:
    return Rules(acceptance_rate=max(0.0, 1 - step / steps))


def scores(env: DecisionVectorEnv, decide: Decide) -> list[Score]:
    return [play(env, decide, Rules(acceptance_rate=rate)) for rate in RATES]


def trained(
    test: DecisionVectorEnv, make_agent: MakeAgent, rules_at: RulesAt, steps: int, seed: int
) -> list[Score]:
    env = make_env(16)
    agent = train(make_agent, ScheduledRules(env, rules_at), steps=steps, seed=seed)
    env.close()
    return scores(test, greedy(agent))


def show(label: str, runs: Sequence[Sequence[Score]]) -> None:
    cells = []
    for column in zip(*runs, strict=True):
        rewards = [score.reward for score in column]
        spread = f" +- {np.std(rewards, ddof=1):.2f}" if len(rewards) > 1 else ""
        queries = np.mean([score.queries for score in column])
        cells.append(f"{np.mean(rewards):.2f}{spread} ({queries:.1f})")
    print(f"| {label} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    test, steps = make_env(32), options.steps
    print("| acceptance rate | " + " | ".join(map(str, RATES)) + " |\n" + "|---" * 6 + "|")
    for count, label in ((0, "never consult"), (3, "consult 3, then answer")):
        show(label, [scores(test, always(count))])
    for label, agent, rules_at, num_steps in (
        ("PPO, untrained", ppo, any_rate, 0),
        ("PPO, any rate", ppo, any_rate, steps),
        ("PPO, falling", ppo, partial(falling, steps=steps), steps),
        ("DQN, any rate", dqn, any_rate, steps),
    ):
        runs = [trained(test, agent, rules_at, num_steps, seed) for seed in range(options.seeds)]
        show(label, runs)
    test.close()


if __name__ == "__main__":
    main()
