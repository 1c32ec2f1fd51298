"""What stock agents of skrl earn by deciding when to consult, beside fixed decisions.

    python benchmarks/decisions.py --seeds 5

The careless student writes the texts and slips in a fifth of its steps; the expert works out any
part; a query costs 0.1. Each cell is the mean reward, and the mean number of queries an episode,
over 512 episodes of agents that decide greedily; `+-` is the standard deviation over seeds.
`shared out`: each sub-environment goes through rates evenly spaced over (0, 1), one after the other
with each episode that it begins. `falling`: all have the same rate, which falls from 1 to 0 over
the training.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

import numpy as np

from eapo_agents.methods import (
    Decide,
    DecisionVectorEnv,
    DemonstratorWriter,
    RulesAt,
    ScheduledRules,
    Score,
    always,
    play,
)
from eapo_agents.methods.skrl import MakeAgent, dqn, greedy, ppo, train
from eapo_env.demonstrator import NoisyDemonstrator
from eapo_env.reward import RewardRule
from eapo_env.synthetic import synthetic_problems
from eapo_env.types import Rules

RATES = (1.0, 0.75, 0.5, 0.25, 0.0)


def make(num_envs: int) -> DecisionVectorEnv:
    return DecisionVectorEnv(
        num_envs,
        writer=DemonstratorWriter(student=NoisyDemonstrator(slip=0.2)),
        problems=[p for size in (1, 2, 3) for p in synthetic_problems(64, brackets=size)],
        reward=RewardRule(consultation_penalty=0.1),
    )


def shared_out(step: int, draw: float) -> Rules:
    return Rules(acceptance_rate=draw)


def falling(step: int, draw: float, *, steps: int) -> Rules:
    return Rules(acceptance_rate=max(0.0, 1 - step / steps))


def scores(env: DecisionVectorEnv, decide: Decide) -> list[Score]:
    return [play(env, decide, Rules(acceptance_rate=rate)) for rate in RATES]


def trained(
    test: DecisionVectorEnv, make_agent: MakeAgent, rules_at: RulesAt, steps: int, seed: int
) -> list[Score]:
    env = make(16)
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
    test, steps = make(32), options.steps
    print("| acceptance rate | " + " | ".join(map(str, RATES)) + " |\n" + "|---" * 6 + "|")
    for count, label in ((0, "never consult"), (3, "consult 3, then answer")):
        show(label, [scores(test, always(count))])
    for label, agent, rules_at, num_steps in (
        ("PPO, untrained", ppo, shared_out, 0),
        ("PPO, shared out", ppo, shared_out, steps),
        ("PPO, falling", ppo, partial(falling, steps=steps), steps),
        ("DQN, shared out", dqn, shared_out, steps),
    ):
        runs = [trained(test, agent, rules_at, num_steps, seed) for seed in range(options.seeds)]
        show(label, runs)
    test.close()


if __name__ == "__main__":
    main()
