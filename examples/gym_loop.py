"""Play `EAPO-Math-v0` with agents of your own: any function from an observation to a text.

    python examples/gym_loop.py --episodes 100

Two agents play the same problems: one guesses at once, the other asks an expert about the whole
problem and repeats the reply. The table shows what each earns at three acceptance rates, with a
consultation that costs 0.2. It needs no model, no GPU and no network: the problems are sums that
are made up, and their expert is a calculator.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import gymnasium as gym

import eapo_env
from eapo_env import Rules

Agent = Callable[[str], str]
"""From what the environment says to what the agent writes."""


def guess(observation: str) -> str:
    """Answer at once, without an idea."""
    return r"It could be \boxed{50}."


def ask(observation: str) -> str:
    """Ask about the whole problem, then repeat what the expert said."""
    if "Problem: " in observation:
        question = observation.split("Problem: ")[1]
        return f"I would rather ask.\n<consult>\n<query>{question}</query>\n</consult>"
    replies = [line for line in observation.splitlines() if line.isdigit()]
    return rf"\boxed{{{replies[0]}}}" if replies else guess(observation)


def play(env: gym.Env[str, str], agent: Agent, episodes: int) -> tuple[float, float]:
    """Return the mean reward and the mean number of queries of some episodes."""
    reward, queries = 0.0, 0
    for number in range(episodes):
        observation, info = env.reset(seed=number)
        terminated = truncated = False
        while not (terminated or truncated):
            observation, earned, terminated, truncated, info = env.step(agent(observation))
            reward += float(earned)
        queries += info["queries"]
    return reward / episodes, queries / episodes


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what each agent earns at each acceptance rate."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--episodes", type=int, default=100)
    options = parser.parse_args(arguments)
    rates = (1.0, 0.5, 0.0)
    print("mean reward (queries per episode) at the acceptance rates " + ", ".join(map(str, rates)))
    reward = eapo_env.RewardRule(consultation_penalty=0.2)
    for agent in (guess, ask):
        cells = []
        for rate in rates:
            rules = Rules(acceptance_rate=rate, turn_budget=2)
            env = gym.make("EAPO-Math-v0", rules=rules, reward=reward, observation="delta")
            earned, queries = play(env, agent, options.episodes)
            env.close()
            cells.append(f"{earned:5.2f} ({queries:.1f})")
        print(f"{agent.__name__:8}{'  '.join(cells)}")


if __name__ == "__main__":
    main()
