"""[edge] What a config's model becomes: a chat model, a rollout for evaluation, or LeaP."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial

from eapo_agents.evaluation import Player
from eapo_agents.learning import check_policy
from eapo_agents.methods.leap import (
    Leap,
    LeapSettings,
    LeapWords,
    MessagePath,
    ReasoningPath,
    TokenPath,
)
from eapo_agents.policies import ChatModel, OpenAIEngine, Policy, PolicyChat
from eapo_agents.rollouts import TextRollout
from eapo_agents.training import TrainConfig, make_rollout, policy_of, prompts_of, wording_of
from eapo_env.experts import ExpertPool, SilentExperts
from eapo_env.reward import RewardRule
from eapo_env.types import Message


@contextmanager
def chat_model_of(config: TrainConfig) -> Iterator[ChatModel]:
    """Yield the config's model as a chat model: one behind a server, or any engine's policy.

    Raises:
        UserError: no model can be loaded, or the server's key is not in the environment.
    """
    if isinstance(config.engine, OpenAIEngine):
        yield config.engine.build(config.model)
        return
    with _checked_policy(config) as policy:
        yield PolicyChat(policy)


@contextmanager
def player_of(config: TrainConfig) -> Iterator[Player]:
    """Yield the rollout that evaluates the config's model: in tokens if its engine gives them.

    Raises:
        UserError: as `chat_model_of`.
    """
    if isinstance(config.engine, OpenAIEngine):
        yield text_rollout(config, config.engine.build(config.model), SilentExperts())
        return
    with _checked_policy(config) as policy:
        # Nobody is asked and nothing is learned: parts that only a script can make are not missed.
        rollout = make_rollout(config, policy, experts=SilentExperts(), reward=RewardRule())
        yield replace(rollout, truncation=config.evaluation.truncation)


@contextmanager
def leap_of(config: TrainConfig, settings: LeapSettings) -> Iterator[Leap]:
    """Yield LeaP with the config's model.

    Peers are inserted within the model's turn; behind a server, and for the embedded model, which
    was trained to read replies only between its turns, as messages.

    Raises:
        UserError: as `chat_model_of`.
    """
    served = isinstance(config.engine, OpenAIEngine)
    if served or wording_of(config) == "terse":
        words = LeapWords.chat() if served else LeapWords.terse()
        with chat_model_of(config) as model:
            yield _leap(config, settings, words, partial(MessagePath.open, model))
        return
    with _checked_policy(config) as policy:
        yield _leap(config, settings, LeapWords(), partial(TokenPath.open, policy))


def _leap(
    config: TrainConfig,
    settings: LeapSettings,
    words: LeapWords,
    open_path: Callable[[Sequence[Message]], ReasoningPath],
) -> Leap:
    return Leap(
        open_path=open_path,
        verifier=config.verifier.build(),
        prompts=prompts_of(config),
        words=words,
        settings=settings,
        max_response_tokens=config.rollout.limits.max_response_tokens,
        temperature=config.rollout.temperature,
        truncation=config.evaluation.truncation,
    )


def text_rollout(
    config: TrainConfig,
    model: ChatModel,
    experts: ExpertPool,
    *,
    consult_first: int = 0,
    expert_timeout_s: float = math.inf,
) -> TextRollout:
    """Return the rollout in message space that a config describes.

    Args:
        expert_timeout_s: of one consultation; by default none, because in an evaluation all start
            at once and a deadline would measure the queue.
    """
    return TextRollout(
        model=model,
        experts=experts,
        verifier=config.verifier.build(),
        prompts=prompts_of(config),
        limits=config.rollout.limits,
        temperature=config.rollout.temperature,
        truncation=config.evaluation.truncation,
        consult_first=consult_first,
        expert_timeout_s=expert_timeout_s,
    )


@contextmanager
def _checked_policy(config: TrainConfig) -> Iterator[Policy]:
    """Yield the config's policy after the check at the start, also where an event loop runs."""
    with closing(policy_of(config)) as policy:
        check = partial(check_policy, policy, config.learner.rounding)
        with ThreadPoolExecutor(max_workers=1) as thread:
            thread.submit(lambda: asyncio.run(check())).result()
        yield policy
