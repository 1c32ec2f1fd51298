"""What a finished episode earns (paper 2.1; the consultation penalty is from its introduction)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from eapo_env.actions import Malformed
from eapo_env.episode import Episode
from eapo_env.types import StopReason
from eapo_env.validation import UserError, at_least, whole

LARGEST_PENALTY = 0.5


@runtime_checkable
class Reward(Protocol):
    """A reward function; `eapo_env.testing.check_reward` tests an implementation."""

    def reward(self, episode: Episode, score: float, num_policy_tokens: int) -> float:
        """Return what a finished episode earns: finite, and a function of the arguments alone.

        Args:
            episode: as it ended.
            score: how right its answer is: 1 correct, 0 wrong or none, for answers in words also
                between (`Verdict.score`). A higher score never earns less in the same episode.
            num_policy_tokens: what the policy wrote; 0 where no tokens are known, as in
                `EAPOMathEnv`.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlong:
    """DAPO's soft punishment of long responses (arXiv 2503.14476, eq. 13).

    0 up to `limit - cushion` policy tokens, then linearly down to `-factor` at `limit` and beyond.
    Only tokens that the policy wrote count; an expert's words cost nothing.

    Args:
        limit: from how many tokens on the punishment is full.
        cushion: width of the ramp below `limit`, in tokens.
        factor: the full punishment; a correct answer earns 1.

    Raises:
        UserError: a value out of its range.
    """

    limit: int = 20_480
    cushion: int = 4_096
    factor: float = 1.0

    def __post_init__(self) -> None:
        whole(self, "limit", "cushion")
        at_least(0, self, "factor")
        if not 0 < self.cushion <= self.limit:
            raise UserError(f"cushion must be in (0, limit={self.limit}], not {self.cushion}")
        if self.factor == math.inf:
            raise UserError("factor must be finite, not inf")

    def penalty(self, num_policy_tokens: int) -> float:
        """Return the penalty, in [-factor, 0]."""
        excess = num_policy_tokens - (self.limit - self.cushion)
        return -self.factor * min(max(excess / self.cushion, 0.0), 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardRule:
    """The paper's reward: the F1 of the answer, or a little for a right format; minus penalties.

    The F1 is 1 or 0 in mathematics. The format is right if the episode ended in an answer and no
    turn was malformed: an answer where the instructions want it, and consult blocks that can be
    read.

    Args:
        format_reward: the least that an answer in the right format earns (paper: 0.1 for a wrong
            one).
        consultation_penalty: taken off per query, at most 0.5 in all, so that a correct answer
            always earns more than a wrong one. A query counts whether or not the gate accepts it.
        overlong: DAPO's length punishment, or None for none.

    Raises:
        UserError: a value out of its range.
    """

    format_reward: float = 0.1
    consultation_penalty: float = 0.0
    overlong: Overlong | None = None

    def __post_init__(self) -> None:
        at_least(0, self, "format_reward", "consultation_penalty")
        if not self.format_reward < LARGEST_PENALTY:
            raise UserError(
                f"format_reward must be in [0, {LARGEST_PENALTY}), not {self.format_reward}"
            )
        if self.consultation_penalty == math.inf:
            raise UserError("consultation_penalty must be finite, not inf")

    def reward(self, episode: Episode, score: float, num_policy_tokens: int = 0) -> float:
        """Return the reward of a finished episode."""
        earned = max(float(score), self.format_reward if is_well_formed(episode) else 0.0)
        asked = min(self.consultation_penalty * episode.num_queries, LARGEST_PENALTY)
        length = self.overlong.penalty(num_policy_tokens) if self.overlong else 0.0
        return earned - asked + length


def earned(reward: Reward, episode: Episode, score: float, num_policy_tokens: int) -> float:
    """Return the reward of a finished episode as a float.

    Raises:
        UserError: the reward returned no number.
    """
    value: object = reward.reward(episode, score, num_policy_tokens)
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise UserError(f"a reward must return a number, not {value!r:.200}") from None


def is_well_formed(episode: Episode) -> bool:
    """Return whether an episode ended in an answer, and no turn was malformed."""
    return episode.stop_reason is StopReason.ANSWERED and not any(
        isinstance(action, Malformed) for action in episode.actions
    )
