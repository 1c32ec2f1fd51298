"""Play in the terminal: a person is the policy, or watches a model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import gymnasium as gym
from rich.console import Console
from rich.panel import Panel

from eapo_env import EAPOMathEnv
from eapo_env.prompts import Prompts
from eapo_env.types import Rules

if TYPE_CHECKING:
    from eapo_agents.training import TrainConfig

Write = Callable[[str], str]
"""What a policy writes after it has read an observation."""


def play(
    source: str, rules: Rules, config: TrainConfig | None, episodes: int, seed: int | None
) -> None:
    """Play episodes in the environment and print what happens.

    The config's model plays; without one, the person at the terminal, who ends it with Ctrl-D.

    Raises:
        ValueError: a source or a model that does not exist.
    """
    console = Console()
    prompts = config.rollout.prompts if config else Prompts()
    made = gym.make(
        "EAPO-Math-v0", problems=source, rules=rules, observation="delta", prompts=prompts
    )
    env = made.unwrapped
    assert isinstance(env, EAPOMathEnv)
    write = _model(config, env) if config else _person(console)
    with suppress(EOFError), closing(env):
        for number in range(episodes):
            _episode(env, write, console, seed if number == 0 else None)


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


def _model(config: TrainConfig, env: EAPOMathEnv) -> Write:
    from eapo_agents.policies import Chat, Sampling, TokenHistory
    from eapo_agents.training import policy_of
    from eapo_env.actions import CONSULT_CLOSE

    policy = policy_of(config)
    chat = Chat(policy.tokenizer)
    history: list[TokenHistory] = []

    def write(_: str) -> str:
        messages = env.episode.messages
        if len(messages) == 1:
            history[:] = [TokenHistory.open(messages, chat)]
        else:
            history.append(history[-1].extend(messages[-1], chat))
        ids = history[-1].token_ids
        sampling = Sampling(
            max_tokens=config.rollout.limits.max_response_tokens,
            temperature=config.rollout.temperature,
            truncation=config.evaluation.truncation,
            stop=() if env.episode.rules.is_alone else (CONSULT_CLOSE,),
        )
        completion = asyncio.run(policy.complete(ids, sampling, seed=len(ids)))
        history.append(history[-1].sampled(completion))
        return chat.text(completion.token_ids)

    return write
