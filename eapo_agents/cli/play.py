"""`eapo play`: be the policy yourself in the terminal, or watch a model."""

from __future__ import annotations

import argparse
import asyncio
import secrets
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eapo_agents import policies, rollouts, training
from eapo_agents.cli.console import new_console
from eapo_agents.cli.episode_view import show_consultation, show_message, show_outcome, show_rules
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


@dataclass(frozen=True, slots=True)
class Written:
    """What the policy wrote in a turn; the number of its tokens is None if it is a person."""

    text: str
    num_tokens: int | None = None


Write = Callable[[], Written]
"""Writes the policy's next turn."""


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
    play.add_argument("--seed", type=int, help="of problems and sampling; default: drawn")
    play.set_defaults(command=_play)


def _play(options: argparse.Namespace) -> int:
    """Play episodes and print what happens; the person at the terminal ends it with Ctrl-D."""
    from numpy.random import default_rng

    from eapo_env.types import Rules
    from eapo_env.validation import at_least

    if options.seed is None:
        options.seed = secrets.randbits(32)
    at_least(0, options, "seed")
    config = model_config(options) if options.model else _persons_config(options)
    rules = Rules(
        turn_budget=options.turns,
        acceptance_rate=options.acceptance_rate,
        max_reply_chars=_reply_chars(config),
    )
    console, env = new_console(), _environment(options.problems, rules, config)
    show_rules(console, env)
    write = _model(config, env) if options.model else _person(console)
    order = default_rng(options.seed).permutation(len(env.problems))
    with suppress(EOFError), closing(env), closing(env.verifier):
        for number in range(options.episodes):
            env.reset(
                seed=rollouts.derive_seed(options.seed, number),
                options={"problem": env.problems[order[number % len(order)]]},
            )
            _episode(env, write, console)
    return 0


def _reply_chars(config: training.TrainConfig) -> int:
    """Return the characters of the longest reply that the settings let a policy read."""
    chars_a_token = 1 if policies.is_character_level(config.model.path) else rollouts.CHARS_A_TOKEN
    return chars_a_token * config.rollout.limits.max_reply_tokens


def _persons_config(options: argparse.Namespace) -> training.TrainConfig:
    """Return the settings of a game without a model: a person reads full sentences."""
    return preset_config(options.preset or "embedded", ["rollout.wording=full", *options.set])


def _environment(source: str | None, rules: Rules, config: training.TrainConfig) -> EAPOMathEnv:
    import gymnasium as gym

    from eapo_env import EAPOMathEnv

    config.experts.check()
    held_out = config.evaluation.problems
    made = gym.make(
        "EAPO-Math-v0",
        problems=training.ProblemSet.named(source, held_out).problems
        if source
        else held_out.load(),
        # The environment has an expert of its own, and says where it knows the problems not.
        experts=None if config.experts == training.ExpertSettings() else config.experts.build(),
        rules=rules,
        reward=config.reward.build(),
        verifier=config.verifier.build(),
        observation="delta",
        prompts=training.prompts_of(config),
    )
    env = made.unwrapped
    assert isinstance(env, EAPOMathEnv)
    return env


def _episode(env: EAPOMathEnv, write: Write, console: Console) -> None:
    observation = env.observe()
    done, reward, written = False, 0.0, list[Written]()
    while not done:
        show_message(console, "environment", observation)
        turn = write()
        written.append(turn)
        asked = len(env.episode.consultations)
        observation, reward, terminated, truncated, _ = env.step(turn.text)
        done = terminated or truncated
        tokens = [] if turn.num_tokens is None else [f"{turn.num_tokens} tokens"]
        show_message(console, "policy", turn.text, f"turn {env.episode.turn}", *tokens)
        for consultation in env.episode.consultations[asked:]:
            show_consultation(console, consultation)
    counts = [turn.num_tokens for turn in written if turn.num_tokens is not None]
    show_outcome(console, env, reward, sum(counts) if counts else None)


def _person(console: Console) -> Write:
    console.print("Write your turn; an empty line ends it.")

    def write() -> Written:
        lines = []
        while line := input("> "):
            lines.append(line)
        return Written("\n".join(lines))

    return write


def _model(config: training.TrainConfig, env: EAPOMathEnv) -> Write:
    from eapo_env.actions import CONSULT_CLOSE

    policy = training.policy_of(config)
    chat = policies.Chat(policy.tokenizer)
    history: list[policies.TokenHistory] = []

    def write() -> Written:
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
        seed = rollouts.derive_seed(env.episode.seed, 1, env.episode.turn)
        completion = asyncio.run(policy.complete(ids, sampling, seed))
        history.append(history[-1].sampled(completion))
        return Written(chat.turn(completion.token_ids), len(completion.token_ids))

    return write
