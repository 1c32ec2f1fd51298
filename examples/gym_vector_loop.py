"""Play each of a list of problems once, several at a time, with an agent of your own.

    python examples/gym_vector_loop.py --num-envs 4

The problems are a list in this file, and so is their expert, who does not know everything. Replies
are read with probability 1/2. An environment that is done is given the next problem, so that all
have work to the end. It needs no model, no GPU and no network.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

import eapo_env  # registers EAPO-Math-v0
from eapo_env import Problem, Query, Rules, ScriptedExperts

PROBLEMS = [
    Problem(id=f"{a} x {b}", statement=f"What is {a} * {b}?", answer=str(a * b))
    for a in range(11, 19)
    for b in range(2, 10)
]


def expert(query: Query) -> str | None:
    """Multiply, but not by 7; None is no answer."""
    a, b = query.text.removeprefix("What is ").rstrip("?").split(" * ")
    return None if b == "7" else str(int(a) * int(b))


def agent(observation: str) -> str:
    """Ask about the whole problem; repeat the reply, or guess."""
    if "Problem: " in observation:
        question = observation.split("Problem: ")[1].splitlines()[0]
        return f"<consult>\n<query>{question}</query>\n</consult>"
    replies = [line for line in observation.splitlines() if line.isdigit()]
    return rf"\boxed{{{replies[0] if replies else 100}}}"


def play(num_envs: int, seed: int) -> list[tuple[eapo_env.Episode, bool]]:
    """Return an episode of each problem, and whether its answer was right."""
    envs: Any = gym.make_vec(
        "EAPO-Math-v0",
        num_envs=num_envs,
        problems=PROBLEMS,
        experts=ScriptedExperts(expert),
        rules=Rules(acceptance_rate=0.5, turn_budget=3),
        observation="delta",
        autoreset_mode="DISABLED",  # so that the next problem is ours to choose
    )
    waiting = iter(problem.id for problem in PROBLEMS)
    next_ids = [next(waiting, None) for _ in range(num_envs)]
    observations, _ = envs.reset(seed=seed, options={"problem_ids": next_ids})
    played: dict[str, tuple[eapo_env.Episode, bool]] = {}
    while len(played) < len(PROBLEMS):
        actions = [agent(observation) for observation in observations]
        observations, _, terminations, truncations, infos = envs.step(actions)
        over = terminations | truncations
        for index in np.flatnonzero(over):
            episode = envs.unwrapped.get_attr("episode")[index]
            # Once no problem waits, any is played again; of two episodes the first to end counts.
            played.setdefault(episode.problem.id, (episode, bool(infos["correct"][index])))
        if over.any():
            next_ids = [next(waiting, None) if ended else None for ended in over]
            options = {"reset_mask": over, "problem_ids": next_ids}
            observations, _ = envs.reset(options=options)  # infos only of those that were reset
    envs.close()
    return list(played.values())


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what came of the episodes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--num-envs", type=int, default=8)
    options = parser.parse_args(arguments)
    played = play(options.num_envs, seed=0)
    episodes = [episode for episode, _ in played]
    right = sum(correct for _, correct in played)
    asked = sum(episode.num_queries for episode in episodes)
    read = sum(episode.num_accepted for episode in episodes)
    ends = Counter(str(episode.stop_reason) for episode in episodes)
    print(f"{len(episodes)} episodes, {right} right; {asked} queries, {read} replies read")
    print("ended:", ", ".join(f"{reason} {number}" for reason, number in ends.items()))


if __name__ == "__main__":
    main()
