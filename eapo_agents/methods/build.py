"""[edge] The chat model, player and LeaP that a config names: a served model, or a policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial

from eapo_agents.evaluation import Player
from eapo_agents.methods.leap import Leap, LeapSettings, LeapWords, MessagePath, Path, TokenPath
from eapo_agents.policies import ChatModel, PolicyChat
from eapo_agents.rollouts import TextRollout
from eapo_agents.training import TrainConfig, make_rollout, policy_of
from eapo_env.experts import ExpertPool, SilentExperts
from eapo_env.types import Message
from eapo_env.verifier import Verifier


@contextmanager
def chat_model_of(config: TrainConfig) -> Iterator[ChatModel]:
    """Yield the config's model as a chat model: behind a server, or any engine's policy.

    Raises:
        ValueError: no model can be loaded, or its key is not in the environment.
    """
    if config.model.api.base_url:
        yield config.model.api.policy(config.model.path)
        return
    with closing(policy_of(config)) as policy:
        yield PolicyChat(policy)


@contextmanager
def player_of(config: TrainConfig) -> Iterator[Player]:
    """Yield what plays the config's episodes, in tokens where the model gives them.

    Raises:
        ValueError: as `chat_model_of`.
    """
    if config.model.api.base_url:
        yield text_rollout(config, config.model.api.policy(config.model.path), SilentExperts())
        return
    with closing(policy_of(config)) as policy:
        yield replace(make_rollout(config, policy), truncation=config.evaluation.truncation)


@contextmanager
def leap_of(config: TrainConfig, settings: LeapSettings) -> Iterator[Leap]:
    """Yield LeaP with the config's model, in tokens where its paths can be spoken to in their turn.

    The embedded model has only ever been spoken to between its turns.

    Raises:
        ValueError: as `chat_model_of`.
    """
    served = bool(config.model.api.base_url)
    if served or config.rollout.wording == "terse":
        words = LeapWords.chat() if served else LeapWords.terse()
        with chat_model_of(config) as model:
            yield _leap(config, settings, words, partial(MessagePath.open, model))
        return
    with closing(policy_of(config)) as policy:
        yield _leap(config, settings, LeapWords(), partial(TokenPath.open, policy))


def _leap(
    config: TrainConfig,
    settings: LeapSettings,
    words: LeapWords,
    open_path: Callable[[Sequence[Message]], Path],
) -> Leap:
    return Leap(
        open_path=open_path,
        verifier=Verifier(),
        prompts=config.rollout.prompts,
        words=words,
        settings=settings,
        max_response_tokens=config.rollout.limits.max_response_tokens,
        temperature=config.rollout.temperature,
        truncation=config.evaluation.truncation,
    )


def text_rollout(
    config: TrainConfig, model: ChatModel, experts: ExpertPool, *, consult_first: int = 0
) -> TextRollout:
    """Return the rollout in message space that a config describes."""
    return TextRollout(
        model=model,
        experts=experts,
        verifier=Verifier(),
        prompts=config.rollout.prompts,
        limits=config.rollout.limits,
        temperature=config.rollout.temperature,
        truncation=config.evaluation.truncation,
        consult_first=consult_first,
    )
