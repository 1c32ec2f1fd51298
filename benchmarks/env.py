"""Time of the environment itself: single steps, one vector step, and the import.

    python benchmarks/env.py

A step is timed against a bare Gymnasium environment with string spaces in the same run, both as
`gym.make` gives them, with its wrappers. The episode that is stepped already holds a transcript of
20,000 characters; each timed step starts from that same episode. The vector step is timed against
the latency of its experts: 50 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import string
import subprocess
import sys
import timeit
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import gymnasium as gym

from eapo_env.env import EAPOMathEnv
from eapo_env.event_loop import run
from eapo_env.experts import ScriptedExperts
from eapo_env.types import ExpertReply, Problem, Query, Reply, Rules
from eapo_env.vector_env import EAPOMathVectorEnv

TRANSCRIPT_CHARS = 20_000
EXPERT_LATENCY_S = 0.05
MALFORMED = "Let me think about this some more."
CONSULT = "<consult>\n" + "<query>How large is 12*9-5?</query>\n" * 3 + "</consult>"
ANSWER = r"So the answer is \boxed{17}."


class BareEnv(gym.Env[str, str]):
    """The least a Gymnasium environment with string spaces does: look at its action, reply."""

    observation_space = gym.spaces.Text(100, charset=string.printable)
    action_space = gym.spaces.Text(100, charset=string.printable)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, object]]:
        return action, 0.0, action not in self.action_space, False, {}

    def reset(self, **kwargs: object) -> tuple[str, dict[str, object]]:
        super().reset()
        return "observation", {}


class ConstantEnv(BareEnv):
    """Replies without looking: the cost of the call and of `gym.make`'s wrappers."""

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, object]]:
        return "observation", 0.0, False, False, {}


@dataclass(frozen=True, slots=True)
class SlowExperts:
    """Experts that answer all queries at once, after a fixed latency."""

    latency_s: float

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        await asyncio.gather(*(asyncio.sleep(self.latency_s) for _ in queries))
        return [Reply("slow", f"103, if you ask about {query.text}") for query in queries]


def affirm(query: Query) -> str:
    return "103"


def microseconds(call: Callable[[], object], *, number: int = 2_000, repeats: int = 9) -> float:
    """Return the median over repeats of the mean time of a call."""
    totals = timeit.repeat(call, number=number, repeat=repeats)
    return statistics.median(totals) / number * 1e6


def seconds(call: Callable[[], object]) -> float:
    """Return the time of one call."""
    return timeit.timeit(call, number=1)


def stepper(action: str, *, acceptance_rate: float) -> Callable[[], object]:
    """Return a function that steps from the same episode, with a long transcript, every time."""
    env = gym.make(
        "EAPO-Math-v0",
        problems=[Problem(id="long", statement="x" * TRANSCRIPT_CHARS, answer="17")],
        experts=ScriptedExperts(affirm),
        rules=Rules(acceptance_rate=acceptance_rate),
    )
    env.reset(seed=0)
    inner = env.unwrapped
    assert isinstance(inner, EAPOMathEnv)
    start = inner.episode

    def step() -> object:
        inner._episode = start
        return env.step(action)

    return step


def bare_step(entry_point: Callable[[], gym.Env[str, str]]) -> float:
    gym.register(id="Bare-v0", entry_point=lambda **_: entry_point())
    env = gym.make("Bare-v0")
    env.reset()
    duration = microseconds(lambda: env.step(MALFORMED), number=20_000)
    del gym.registry["Bare-v0"]
    return duration


def print_steps() -> None:
    bare = bare_step(BareEnv)
    rows = [
        ("env that returns a constant", bare_step(ConstantEnv)),
        ("bare env with Text spaces", bare),
        ("malformed", microseconds(stepper(MALFORMED, acceptance_rate=1))),
        ("consultation, all refused", microseconds(stepper(CONSULT, acceptance_rate=0))),
        ("answer, verified", microseconds(stepper(ANSWER, acceptance_rate=1))),
        ("consultation, accepted", microseconds(stepper(CONSULT, acceptance_rate=1), number=200)),
    ]
    print(f"{'one step, 20k characters':34}{'µs':>10}{'x bare':>10}")
    for name, duration in rows:
        print(f"{name:34}{duration:10.2f}{duration / bare:10.1f}")


def print_vector_step(num_envs: int) -> None:
    experts = SlowExperts(EXPERT_LATENCY_S)
    queries = [Query(text="How large is 12*9-5?")] * (3 * num_envs)
    envs = EAPOMathVectorEnv(num_envs, experts=experts)
    alone, stepped = [], []
    for _ in range(9):
        alone.append(seconds(lambda: run(experts.ask(queries))))
        envs.reset(seed=0)
        stepped.append(seconds(lambda: envs.step([CONSULT] * num_envs)))
    envs.close()
    rows = [
        ("floor: the experts' latency", EXPERT_LATENCY_S),
        (f"its experts alone, {len(queries)} queries", statistics.median(alone)),
        (f"the step, {num_envs} x 3 queries", statistics.median(stepped)),
    ]
    print(f"\n{'one vector step':34}{'ms':>10}{'x floor':>10}")
    for name, duration in rows:
        print(f"{name:34}{duration * 1e3:10.1f}{duration / EXPERT_LATENCY_S:10.2f}")


def print_import() -> None:
    print(f"\n{'import, a fresh interpreter each':34}{'ms':>10}")
    for module in ("gymnasium", "eapo_env"):
        start = partial(subprocess.run, [sys.executable, "-c", f"import {module}"], check=True)
        durations = [seconds(start) for _ in range(5)]
        print(f"{module:34}{statistics.median(durations) * 1e3:10.0f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-envs", type=int, default=256)
    arguments = parser.parse_args()
    print_steps()
    print_vector_step(arguments.num_envs)
    print_import()
