"""`eapo play`: be the policy yourself in the terminal, or watch a model."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from eapo_agents import policies, training
from eapo_agents.cli.console import new_console
from eapo_agents.cli.options import (
    MODEL_HELP,
    add_preset,
    add_settings,
    model_config,
    preset_config,
)

if TYPE_CHECKING:
    from rich.console import Console

    from eapo_agents.cli.options import Commands
    from eapo_env import EAPOMathEnv
    from eapo_env.types import Rules

Write = Callable[[str], str]
"""From an observation to what the policy writes after it."""


def add(commands: Commands) -> None:
    """Add the command."""
    play = commands.add_parser("play", help="be the policy yourself, or watch a model play")
    play.add_argument("--model", help=f"watch it: {MODEL_HELP}; without it, you play")
    add_preset(play)
    add_settings(play)
    play.add_argument("--problems", help="a source of problems; default: the held-out ones")
    play.add_argument("--turns", type=int, default=4, help="the turn budget")
    play.add_argument("--acceptance-rate", type=float, default=1.0, help="default: 1")
    play.add_argument("--episodes", type=int, default=1, help="default: 1")
    play.add_argument("--seed", type=int, help="of the problems; default: drawn")
    play.set_defaults(command=_play)


def _play(options: argparse.Namespace) -> int:
    """Play episodes and print what happens; the person at the terminal ends it with Ctrl-D."""
    from eapo_env.types import Rules

    rules = Rules(turn_budget=options.turns, acceptance_rate=options.acceptance_rate)
    config = model_config(options) if options.model else _persons_config(options)
    console, env = new_console(), _environment(options.problems, rules, config)
    write = _model(config, env) if options.model else _person(console)
    with suppress(EOFError), closing(env):
        for number in range(options.episodes):
            _episode(env, write, console, options.seed if number == 0 else None)
    return 0


def _persons_config(options: argparse.Namespace) -> training.TrainConfig:
    """Return the settings of a game without a model: a person reads full sentences."""
    return preset_config(options.preset or "embedded", ["rollout.wording=full", *options.set])


def _environment(source: str | None, rules: Rules, config: training.TrainConfig) -> EAPOMathEnv:
    import gymnasium as gym

    from eapo_env import EAPOMathEnv

    config.experts.check()
    made = gym.make(
        "EAPO-Math-v0",
        problems=source or config.evaluation.problems.load(),
        # The environment has an expert of its own, and says where it knows the problems not.
        experts=None if config.experts == training.ExpertSettings() else config.experts.build(),
        rules=rules,
        observation="delta",
        prompts=training.prompts_of(config),
    )
    env = made.unwrapped
    assert isinstance(env, EAPOMathEnv)
    return env


def _episode(env: EAPOMathEnv, write: Write, console: Console, seed: int | None) -> None:
    observation, info = env.reset(seed=seed)
    done = False
    reward = 0.0
    while not done:
        _panel(console, "environment", observation)
        text = write(observation)
        _panel(console, "policy", text)
        observation, reward, terminated, truncated, info = env.step(text)
        done = terminated or truncated
    verdict = "correct" if info["correct"] else f"not correct; the answer is {_answer(env)}"
    console.print(f"[bold]{info['stop_reason']}[/bold]: {verdict}, reward {reward:g}\n")


def _panel(console: Console, title: str, text: str) -> None:
    from rich.panel import Panel

    console.print(Panel(text, title=title, title_align="left"), markup=False, highlight=False)


def _answer(env: EAPOMathEnv) -> str:
    return env.episode.problem.answer


def _person(console: Console) -> Write:
    console.print(
        "Write your turn; an empty line ends it. Consult with <consult><query>...</query>"
        "</consult>, answer with \\boxed{...}.",
        markup=False,
    )

    def write(_: str) -> str:
        lines = []
        while line := input("> "):
            lines.append(line)
        return "\n".join(lines)

    return write


def _model(config: training.TrainConfig, env: EAPOMathEnv) -> Write:
    from eapo_env.actions import CONSULT_CLOSE

    policy = training.policy_of(config)
    chat = policies.Chat(policy.tokenizer)
    history: list[policies.TokenHistory] = []

    def write(_: str) -> str:
        messages = env.episode.messages
        if len(messages) == 1:
            history[:] = [policies.TokenHistory.open(messages, chat)]
        else:
            history.append(history[-1].extend(messages[-1], chat))
        ids = history[-1].token_ids
        sampling = policies.Sampling(
            max_tokens=config.rollout.limits.max_response_tokens,
            temperature=config.rollout.temperature,
            truncation=config.evaluation.truncation,
            stop=() if env.episode.rules.is_alone else (CONSULT_CLOSE,),
        )
        completion = asyncio.run(policy.complete(ids, sampling, seed=len(ids)))
        history.append(history[-1].sampled(completion))
        return chat.turn(completion.token_ids)

    return write
