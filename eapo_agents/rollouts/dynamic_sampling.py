"""Dynamic sampling (DAPO, arXiv 2503.14476 eq. 11): which groups of a step are trained on.

`SamplingState` is a pure value: it says which problems to play next, takes their groups in any
order, and is done when it has enough groups or has used up its rounds. `DynamicSampling.sample`
plays the problems and drives a state to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from eapo_agents.rollouts.rollout import gather
from eapo_agents.rollouts.trajectory import Group
from eapo_env.validation import UserError

Keeps = Callable[[Group], bool]
"""Whether a group is trained on."""


def has_signal(group: Group) -> bool:
    """See `Group.has_signal`."""
    return group.has_signal


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicSampling:
    """Batch sizes of dynamic sampling (paper, Table 5).

    Problems are played `problems_per_round` at a time, every group of a round is finished, and
    groups are kept in the order of their problems: taking the first to finish would drop episodes
    that consult, which are slower. After `max_rounds` a step trains on the groups it has.

    Args:
        groups_per_step: the train batch size, in problems.
        problems_per_round: the generation batch size, in problems.
        max_rounds: the most generation batches a step may use.
        keep: "mixed" trains on the groups with right and wrong answers, "all" on every group; an
            algorithm with a method `keeps` decides in its place.
        surplus: groups with signal beyond `groups_per_step`: "discard" them, or "carry" up to
            `groups_per_step` into the next step, which trains on them first; they are then one
            update old.

    Raises:
        UserError: a number below 1, or an unknown `keep` or `surplus`.
    """

    groups_per_step: int = 32
    problems_per_round: int = 96
    max_rounds: int = 10
    keep: Literal["mixed", "all"] = "mixed"
    surplus: Literal["discard", "carry"] = "discard"

    def __post_init__(self) -> None:
        for name in ("groups_per_step", "problems_per_round", "max_rounds"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.keep not in ("mixed", "all"):
            raise UserError(f"keep must be mixed or all, not {self.keep!r}")
        if self.surplus not in ("discard", "carry"):
            raise UserError(f"surplus must be discard or carry, not {self.surplus!r}")

    async def sample(
        self,
        play: Callable[[int], Coroutine[None, None, Group]],
        first: int,
        carried: tuple[Group, ...] = (),
        keeps: Keeps | None = None,
    ) -> Sampled:
        """Return the groups of a step, playing problem numbers `first`, `first + 1`, ...

        Args:
            play: plays the group of a problem number.
            carried: groups that an earlier step left over.
            keeps: whether to train on a group; by default `self.keeps`.
        """
        state = SamplingState(
            sampling=self, first=first, carried=carried, keeps=keeps or self.keeps
        )
        while numbers := state.numbers:
            groups = await gather(play(number) for number in numbers)
            state = state.receive(dict(zip(numbers, groups, strict=True)))
        return state.sampled

    def keeps(self, group: Group) -> bool:
        """Return whether the setting `keep` keeps a group to train on."""
        return self.keep == "all" or group.has_signal


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingState:
    """The groups of one training step so far.

    Args:
        sampling: the batch sizes.
        first: the number of the first problem that the step plays.
        carried: groups that an earlier step left over.
        played: the groups of problems `first`, `first + 1`, ..., in this order.
        keeps: whether to train on a group.
    """

    sampling: DynamicSampling
    first: int
    carried: tuple[Group, ...] = ()
    keeps: Keeps = has_signal
    played: tuple[Group, ...] = ()

    @property
    def numbers(self) -> range:
        """The numbers of the problems to play next; empty when the step is complete."""
        wanted, a_round = self.sampling.groups_per_step, self.sampling.problems_per_round
        exhausted = len(self.played) >= self.sampling.max_rounds * a_round
        start = self.first + len(self.played)
        done = exhausted or bool(self.played and len(self._useful) >= wanted)
        return range(start, start if done else start + a_round)

    def receive(self, groups: Mapping[int, Group]) -> SamplingState:
        """Return the state after the groups of `numbers`, given by number.

        Raises:
            ValueError: groups of other problems than `numbers`.
        """
        if sorted(groups) != list(self.numbers):
            raise ValueError(f"groups of {sorted(groups)} instead of {list(self.numbers)}")
        return replace(self, played=(*self.played, *(groups[n] for n in self.numbers)))

    @property
    def sampled(self) -> Sampled:
        """What the step trains on, and what is left for the next."""
        wanted = self.sampling.groups_per_step
        left = self._useful[wanted : 2 * wanted] if self.sampling.surplus == "carry" else ()
        return Sampled(kept=self._useful[:wanted], played=self.played, surplus=left)

    @property
    def _useful(self) -> tuple[Group, ...]:
        return (*self.carried, *filter(self.keeps, self.played))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """The groups of one training step.

    Args:
        kept: the groups to train on; those that were carried come first.
        played: every group that was played in this step, with signal or without.
        surplus: groups to train on that the next step starts with.
    """

    kept: tuple[Group, ...]
    played: tuple[Group, ...]
    surplus: tuple[Group, ...] = ()
