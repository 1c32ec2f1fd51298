"""Dynamic sampling (DAPO, arXiv 2503.14476 eq. 11): keep the groups that teach something.

It has a bound on how many problems a step may try, and never takes the first to finish.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from eapo_agents.rollout import gather
from eapo_agents.trajectory import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicSampling:
    """How many groups a training step wants, and how hard it tries (paper, Table 5).

    Problems are played `problems_per_round` at a time, every group of a round is finished, and
    groups are kept in the order of their problems: taking the first to finish would throw
    consulting episodes away, which are slower. After `max_rounds` it makes do with what there is.

    Args:
        groups_per_step: the train batch size, in problems.
        problems_per_round: the generation batch size, in problems.
        max_rounds: the most generation batches a step may use.

    Raises:
        ValueError: a number below 1.
    """

    groups_per_step: int = 32
    problems_per_round: int = 96
    max_rounds: int = 10

    def __post_init__(self) -> None:
        for name in ("groups_per_step", "problems_per_round", "max_rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    async def sample(
        self, play: Callable[[int], Coroutine[None, None, Group]], first: int
    ) -> Sampled:
        """Return the groups of a step, playing problem numbers `first`, `first + 1`, ..."""
        played: list[Group] = []
        for _ in range(self.max_rounds):
            start = first + len(played)
            numbers = range(start, start + self.problems_per_round)
            played += await gather(play(number) for number in numbers)
            if sum(group.has_signal for group in played) >= self.groups_per_step:
                break
        kept = [group for group in played if group.has_signal][: self.groups_per_step]
        return Sampled(kept=tuple(kept), played=tuple(played))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """What dynamic sampling brings: the groups to learn from, and all that were played."""

    kept: tuple[Group, ...]
    played: tuple[Group, ...]
