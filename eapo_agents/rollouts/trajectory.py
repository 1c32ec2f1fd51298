"""The learner's data: trajectories, groups of them, and demonstrations.

A trajectory is the token-level record of one finished episode. Its ids are exactly those that were
sampled and those of the environment's messages; nothing is re-tokenised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from eapo_agents.policies import Chat, plain_ids
from eapo_env.episode import Episode
from eapo_env.types import Problem

Ids = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
Logprobs = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Demonstration:
    """A token sequence to imitate, and which of its ids count in the loss.

    Args:
        token_ids: int32 [T]; a tuple or list will do.
        mask: bool [T], True on the ids to learn.

    Raises:
        ValueError: lengths that differ, an empty sequence, or a mask that covers the first id
            (nothing precedes it, so no model gives it a probability).
    """

    token_ids: Ids
    mask: Mask

    def __post_init__(self) -> None:
        _freeze(self, "token_ids", np.int32)
        _freeze(self, "mask", np.bool_)
        _check_tokens(self.token_ids, self.mask)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Demonstration):
            return NotImplemented
        return np.array_equal(self.token_ids, other.token_ids) and np.array_equal(
            self.mask, other.mask
        )

    @property
    def num_tokens(self) -> int:
        """The number of ids of the whole sequence."""
        return len(self.token_ids)

    @property
    def num_policy_tokens(self) -> int:
        """The number of ids the mask covers."""
        return int(self.mask.sum())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trajectory:
    """The token-level record of an episode; compares by content.

    The arrays are copied and made read-only; tuples and lists will do.

    Args:
        token_ids: int32 [T], prompt, policy turns and environment turns in order.
        mask: bool [T], True exactly on the ids the policy sampled.
        logprobs: float32 [T], the sampler's log-probability (nats) of each sampled id at the
            sampling temperature; 0 where the mask is False.
        reward: of the episode (paper 2.1).
        status: the verifier's status (`correct`, `wrong`, `no_answer`, `timeout`, ...).
        correct: whether the answer was right; dynamic sampling looks at this, not at the reward.
        episode: the finished episode, in message space.
        version: of the weights that sampled every id of the policy: the training step after which
            they were handed over.

    Raises:
        ValueError: lengths that differ, an empty sequence, a mask that covers the first id, a
            log-probability that is not finite or not 0 outside the mask, a non-finite reward.
    """

    token_ids: Ids
    mask: Mask
    logprobs: Logprobs
    reward: float
    status: str
    correct: bool
    episode: Episode
    version: int = 0

    def __post_init__(self) -> None:
        _freeze(self, "token_ids", np.int32)
        _freeze(self, "mask", np.bool_)
        _freeze(self, "logprobs", np.float32)
        _check_tokens(self.token_ids, self.mask)
        _check_logprobs(self.logprobs, self.mask)
        if not math.isfinite(self.reward):
            raise ValueError(f"reward must be finite, not {self.reward}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trajectory):
            return NotImplemented
        arrays = ("token_ids", "mask", "logprobs")
        values = ("reward", "status", "correct", "episode", "version")
        return all(getattr(self, name) == getattr(other, name) for name in values) and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in arrays
        )

    @property
    def num_tokens(self) -> int:
        """The number of ids of the whole sequence."""
        return len(self.token_ids)

    @property
    def num_policy_tokens(self) -> int:
        """The number of ids the policy sampled."""
        return int(self.mask.sum())

    @property
    def num_environment_tokens(self) -> int:
        """The number of ids the policy read: prompts, expert replies, notices, template."""
        return self.num_tokens - self.num_policy_tokens

    def training_trace(self) -> dict[str, Any]:
        """Return the turns in OpenEnv's format, the fields of its `TrainingTrace` (schema 1).

        Each turn holds the ids before it, those that were sampled, and their log-probabilities,
        which there must not be above 0, as rounding can make them.
        """
        edges = np.flatnonzero(np.diff(self.mask, prepend=False, append=False)).tolist()
        logprobs = np.minimum(self.logprobs, 0.0)
        turns = [
            {
                "node_id": f"turn-{number}",
                "prompt_token_ids": self.token_ids[:start].tolist(),
                "completion_token_ids": self.token_ids[start:end].tolist(),
                "per_token_logps": logprobs[start:end].tolist(),
                "loss_mask": [0] * start + [1] * (end - start),
            }
            for number, (start, end) in enumerate(zip(edges[::2], edges[1::2], strict=True))
        ]
        return {"schema_version": 1, "turns": turns}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The trajectories of one problem in one batch: the unit of advantage.

    Raises:
        ValueError: no trajectory, or one of another problem.
    """

    problem: Problem
    trajectories: tuple[Trajectory, ...]

    def __post_init__(self) -> None:
        if not self.trajectories:
            raise ValueError(f"the group of problem {self.problem.id!r} has no trajectory")
        for other in (trajectory.episode.problem.id for trajectory in self.trajectories):
            if other != self.problem.id:
                raise ValueError(f"a trajectory of {other!r} in the group of {self.problem.id!r}")

    @property
    def rewards_G(self) -> npt.NDArray[np.float64]:
        """The rewards, in the order of the trajectories."""
        return np.array([trajectory.reward for trajectory in self.trajectories], dtype=np.float64)

    @property
    def correct_G(self) -> Mask:
        """Which trajectories answered correctly, in their order."""
        return np.array([trajectory.correct for trajectory in self.trajectories], dtype=np.bool_)

    @property
    def has_signal(self) -> bool:
        """Whether the group has right and wrong answers (DAPO's dynamic sampling, its eq. 11).

        Correctness decides, not the reward, whose shaping terms vary even within a group in which
        every answer is right.
        """
        return 0 < int(self.correct_G.sum()) < len(self.trajectories)

    @property
    def num_policy_tokens(self) -> int:
        """The number of sampled ids in the group."""
        return sum(trajectory.num_policy_tokens for trajectory in self.trajectories)


def _freeze(value: object, name: str, dtype: npt.DTypeLike) -> None:
    array = np.array(getattr(value, name), dtype=dtype)
    array.setflags(write=False)
    object.__setattr__(value, name, array)


def _check_tokens(token_ids: Ids, mask: Mask) -> None:
    if token_ids.ndim != 1 or token_ids.shape != mask.shape or not len(token_ids):
        raise ValueError(
            f"token_ids and mask must be equally long and not empty, "
            f"not of shapes {token_ids.shape} and {mask.shape}"
        )
    if mask[0]:
        raise ValueError("the mask covers the first id, which no model gives a probability")


def _check_logprobs(logprobs: Logprobs, mask: Mask) -> None:
    if logprobs.shape != mask.shape:
        raise ValueError(f"{logprobs.shape} logprobs for {mask.shape} token ids")
    if not np.isfinite(logprobs).all():
        raise ValueError(f"logprobs must be finite; at {int(np.argmin(np.isfinite(logprobs)))} not")
    if logprobs[~mask].any():
        raise ValueError("logprobs must be 0 where the mask is False")


def encode(episode: Episode, chat: Chat) -> Demonstration:
    """Return a demonstration's ids and mask, laid out exactly as a rollout lays them out."""
    ids = chat.opening(episode.messages[:1])
    mask = [False] * len(ids)
    for message in episode.messages[1:]:
        if message.role == "assistant":
            new = plain_ids(chat.sampled(message.content), chat.tokenizer)
            new += [chat.end_id] if message is episode.messages[-1] else []
        else:
            new = chat.reply(message, after=ids[-1])
        ids += new
        mask += [message.role == "assistant"] * len(new)
    return Demonstration(token_ids=np.array(ids, np.int32), mask=np.array(mask))
