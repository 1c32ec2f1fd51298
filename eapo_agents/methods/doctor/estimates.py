"""How long a run takes, and how much memory its learner needs: arithmetic on a few numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

_SECONDS_AN_HOUR = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Episodes that were played at the same time, and the seconds until the last one ended."""

    episodes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """The time of episodes that are played at the same time: fixed_s + episode_s x episodes.

    fixed_s is that of the longest one's tokens, one after the other, however many are beside it.
    Of more episodes than decode together, each next one begins where another ended.

    Args:
        fixed_s: does not depend on their number.
        episode_s: of a further one.
        at_once: how many decode together; None for all.
        mean_length: the mean length of an episode, as a share of the longest one's.
    """

    fixed_s: float
    episode_s: float
    at_once: int | None = None
    mean_length: float = 1.0

    @classmethod
    def measured(cls, timed: Sequence[Timed], *, at_once: int | None, mean_length: float) -> Self:
        """Return the line through the last two measurements, both parts at least 0.

        Of a single one it is proportional.

        Args:
            timed: of growing numbers of episodes.
            at_once: see the class.
            mean_length: see the class.
        """
        last = timed[-1]
        episode_s = last.seconds / last.episodes
        if len(timed) > 1:
            before = timed[-2]
            slope = (last.seconds - before.seconds) / (last.episodes - before.episodes)
            episode_s = min(max(0.0, slope), episode_s)
        return cls(
            fixed_s=last.seconds - episode_s * last.episodes,
            episode_s=episode_s,
            at_once=at_once,
            mean_length=mean_length,
        )

    def times(self, factor: float) -> Self:
        """Return the speed of episodes that take `factor` times as long."""
        return replace(self, fixed_s=factor * self.fixed_s, episode_s=factor * self.episode_s)

    def seconds(self, episodes: int) -> float:
        """Return the time of so many episodes."""
        waiting = max(0.0, episodes / self.at_once - 1) if self.at_once else 0.0
        return self.fixed_s * (1 + waiting * self.mean_length) + episodes * self.episode_s


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTime:
    """The parts of a run's time, in seconds.

    Args:
        steps: their number.
        round_s: playing one round of problems; a step has one to `max_rounds`.
        max_rounds: see `round_s`.
        update_s: the update of a step.
        evaluations: their number.
        evaluation_s: one of them.
    """

    steps: int
    round_s: float
    max_rounds: int
    update_s: float
    evaluations: int
    evaluation_s: float

    def seconds(self, rounds: int) -> float:
        """Return the time of the run with so many rounds in every step."""
        steps_s = self.steps * (rounds * self.round_s + self.update_s)
        return steps_s + self.evaluations * self.evaluation_s

    def told(self, played: int, learned: int) -> str:
        """Return the times in a sentence.

        Args:
            played: number of episodes of a round.
            learned: number of episodes of an update.
        """
        whole = _in_hours(self.seconds(1))
        if self.max_rounds > 1:
            whole += f" ({_in_hours(self.seconds(self.max_rounds))} with {self.max_rounds} rounds)"
        return (
            f"{self.steps} steps of {self.round_s + self.update_s:.1f} s ({self.round_s:.1f}"
            f" sampling {played} episodes, {self.update_s:.1f} updating on {learned}) and"
            f" {self.evaluations} evaluations of {self.evaluation_s:.0f} s: {whole}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerMemory:
    """The memory of a learner, in bytes.

    Args:
        constant: weights, gradients and the optimiser's moments, which processes share.
        sequence: activations of the longest sequence, at least, which stays whole in one process.
    """

    constant: int
    sequence: int

    def num_processes(self, room: int) -> int | None:
        """Return the fewest processes with `room` bytes each that hold it; None if none do."""
        left = room - self.sequence
        return math.ceil(self.constant / left) if left > 0 else None


def _in_hours(seconds: float) -> str:
    if seconds < _SECONDS_AN_HOUR:
        return f"{seconds / 60:.1f} minutes"
    return f"{seconds / _SECONDS_AN_HOUR:.1f} hours"


def learner_memory(
    *,
    trained: int,
    frozen: int,
    moments: int,
    weight_bytes: int,
    bfloat16: bool,
    layers: int,
    hidden: int,
    vocabulary: int,
    tokens: int,
) -> LearnerMemory:
    """Return what a learner needs at least.

    Without checkpointing of activations, the longest sequence takes several times as much.

    Args:
        trained: number of weights that are trained.
        frozen: number of the others, as below adapters.
        moments: of the optimiser, a weight.
        weight_bytes: of a trained weight, of its gradient and of each moment.
        bfloat16: whether frozen weights and logits have 2 bytes, instead of `weight_bytes`.
        layers: whose inputs are kept, in `weight_bytes`.
        hidden: size of these.
        vocabulary: logits of a token, which have a gradient.
        tokens: of the longest sequence.
    """
    small = 2 if bfloat16 else weight_bytes
    constant = trained * weight_bytes * (2 + moments) + frozen * small
    a_token = layers * hidden * weight_bytes + 2 * vocabulary * small
    return LearnerMemory(constant=constant, sequence=tokens * a_token)
