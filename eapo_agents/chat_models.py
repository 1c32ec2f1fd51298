"""[edge] The chat model and the player that a config names: a served model, or a policy of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial

from eapo_agents.chat_model import ChatModel, PolicyChat
from eapo_agents.config import TrainConfig
from eapo_agents.evaluate import Player
from eapo_agents.leap_paths import MessagePath, Path, TokenPath
from eapo_agents.policies import policy_of
from eapo_agents.text_rollout import TextRollout
from eapo_agents.trainer import make_rollout
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
def paths_of(config: TrainConfig) -> Iterator[Callable[[Sequence[Message]], Path]]:
    """Yield what opens a path of the config's model, in tokens where the model gives them.

    Raises:
        ValueError: as `chat_model_of`.
    """
    if config.model.api.base_url:
        model = config.model.api.policy(config.model.path)
        yield lambda messages: MessagePath(model, tuple(messages))
        return
    with closing(policy_of(config)) as policy:
        yield partial(TokenPath.open, policy)


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
