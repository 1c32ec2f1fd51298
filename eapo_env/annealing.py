"""Annealing, the withdrawal of the experts: training step -> rules (paper 2.3, Appendix H).

Training steps count from 1, as the paper's global step s does.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, assert_never, get_args

from eapo_env.types import Rules
from eapo_env.validation import UserError, at_least, positive, probability, whole

Schedule = Literal["power", "constant", "ours_linear", "ours_slow", "ours_fast", "ours_by_success"]
TurnPace = Literal["linear", "acceptance"]

_NOT_BY_CLOCK = ("constant", "ours_by_success")
_HIGHEST_START = 0.6
_SUCCESS_GOAL = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Annealing:
    """The acceptance rate p_s and the turn budget as functions of the training step s = 1, 2, ...

    - `power`: p = s^-exponent. The paper's is s^-1; 1/2 and 2 are what its slower and faster
      schedules are inferred to be (Table 9).
    - `constant`: p = `rate`; by default the mean over all steps of the schedule `matched_to`, so
      that both spend the same help ("budget-matched": H_S / S for s^-1, with the harmonic number).

    The others are ours, functions of the progress x = (s - 1) / steps:

    - `ours_linear`: p = 1 - x
    - `ours_slow`: p = 1 - x^2
    - `ours_fast`: p = (1 - x)^2
    - `ours_by_success`: p = 1 - success / `success_goal`, but at most 2 (1 - x), with the best
      success alone that was measured in training so far

    The turn budget falls from `turn_budget` to 1. Past `steps`, an episode is played alone.

    Args:
        steps: S, the number of training steps over which the experts are withdrawn; None in a
            config: all its training steps (`TrainConfig.schedule`).
        schedule: the shape of p.
        exponent: of `power`.
        rate: of `constant`; None matches it.
        matched_to: the schedule that `constant` is matched to.
        initial_acceptance_rate: factor on p, except for `constant`; of `ours_by_success` at most
            0.6: where nobody is refused, nothing is learned alone, and p stays where it is.
        success_goal: of `ours_by_success`: the success alone at which no help is left.
        turn_budget: the initial turn budget (paper: 10).
        turn_pace: the turn budget falls "linear" in s, or in proportion to the "acceptance" rate.
            The paper says only that it falls. With s^-1 the latter would leave no turns to consult
            in after a few steps, so "linear" is the default.
        queries_per_turn: K, the maximum number of queries of a turn (paper: 3).

    Raises:
        UserError: a value out of its range, or a `rate`, an `exponent`, a `matched_to` or a
            `success_goal` that the schedule does not have.
    """

    steps: int | None = None
    schedule: Schedule = "power"
    exponent: float = 1.0
    rate: float | None = None
    matched_to: Schedule = "power"
    initial_acceptance_rate: float = 1.0
    success_goal: float = _SUCCESS_GOAL
    turn_budget: int = 10
    turn_pace: TurnPace = "linear"
    queries_per_turn: int = 3

    def __post_init__(self) -> None:
        if self.steps is not None:
            whole(self, "steps")
            at_least(1, self, "steps")
        by_clock = [name for name in get_args(Schedule) if name not in _NOT_BY_CLOCK]
        for name, known in (
            ("schedule", get_args(Schedule)),
            ("matched_to", by_clock),
            ("turn_pace", get_args(TurnPace)),
        ):
            if getattr(self, name) not in known:
                raise UserError(
                    f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}"
                )
        at_least(0, self, "exponent")
        if self.exponent == math.inf:
            raise UserError("exponent must be finite, not inf")
        if self.rate is not None:
            probability(self, "rate")
            self._of_schedule("rate", None, "constant", self.schedule)
        if self.exponent != 1.0:
            matched = self.schedule == "constant" and self.rate is None
            shape = self.matched_to if matched else self.schedule
            self._of_schedule("exponent", 1.0, "power", shape)
        probability(self, "initial_acceptance_rate")
        probability(self, "success_goal")
        positive(self, "success_goal")
        if self.matched_to != "power":
            self._of_schedule("matched_to", "power", "constant", self.schedule)
            if self.rate is not None:
                raise UserError(
                    f"matched_to={self.matched_to} means nothing beside rate={self.rate}"
                )
        if self.success_goal != _SUCCESS_GOAL:
            self._of_schedule("success_goal", _SUCCESS_GOAL, "ours_by_success", self.schedule)
        if self.schedule == "ours_by_success" and self.initial_acceptance_rate > _HIGHEST_START:
            raise UserError(
                f"initial_acceptance_rate of {self.schedule} must be at most {_HIGHEST_START}, not"
                f" {self.initial_acceptance_rate}"
            )
        Rules(turn_budget=self.turn_budget, queries_per_turn=self.queries_per_turn)

    def _of_schedule(self, name: str, neutral: object, owner: Schedule, schedule: Schedule) -> None:
        if schedule != owner:
            raise UserError(
                f"{name}={getattr(self, name)} means nothing for the schedule {schedule}: set"
                f" schedule={owner}, or {name}={json.dumps(neutral)}"
            )

    def acceptance_rate_at(self, step: int, success: float = 0.0) -> float:
        """Return p_s, in [0, 1] and non-increasing in the step and success; 0 past `steps`.

        Args:
            success: the best share of episodes alone that were right, of `ours_by_success`.

        Raises:
            UserError: a step below 1.
        """
        _check_step(step)
        if step > self._num_steps:
            return 0.0
        x = (step - 1) / self._num_steps
        match self.schedule:
            case "power":
                rate = float(step**-self.exponent)
            case "constant":
                return _mean_rate(self) if self.rate is None else self.rate
            case "ours_linear":
                rate = 1.0 - x
            case "ours_slow":
                rate = 1.0 - x * x
            case "ours_fast":
                rate = (1.0 - x) ** 2
            case "ours_by_success":
                rate = min(max(1.0 - success / self.success_goal, 0.0), 2.0 * (1.0 - x))
            case _:
                assert_never(self.schedule)
        return rate * self.initial_acceptance_rate

    def turn_budget_at(self, step: int, success: float = 0.0) -> float:
        """Return the mean turn budget at a step: from `turn_budget` down to 1, often fractional.

        Raises:
            UserError: a step below 1.
        """
        _check_step(step)
        first = self.acceptance_rate_at(1)
        if step > self._num_steps:
            share = 0.0
        elif self.turn_pace == "linear" or not first:
            share = 1.0 - (step - 1) / self._num_steps
        else:
            share = self.acceptance_rate_at(step, success) / first
        return 1.0 + (self.turn_budget - 1) * share

    def rules_at(self, step: int, draw: float = 0.5, success: float = 0.0) -> Rules:
        """Return the rules of an episode at a training step.

        `draw`, uniform on [0, 1), rounds a fractional turn budget at random, so that a growing
        share of the episodes is played alone, under the prompt of evaluation, before all are;
        the default rounds to the nearest integer.

        Raises:
            UserError: a step below 1, or a draw outside [0, 1).
        """
        if not 0.0 <= draw < 1.0:
            raise UserError(f"draw must be in [0, 1), not {draw}")
        whole, part = divmod(self.turn_budget_at(step, success), 1.0)
        return Rules(
            turn_budget=int(whole) + int(draw >= 1.0 - part),
            acceptance_rate=self.acceptance_rate_at(step, success),
            queries_per_turn=self.queries_per_turn,
        )

    @property
    def _num_steps(self) -> int:
        if self.steps is None:
            raise UserError("annealing.steps is not set")
        return self.steps


@cache
def _mean_rate(annealing: Annealing) -> float:
    """Return the mean acceptance rate of the schedule that a constant one is matched to."""
    other = replace(annealing, schedule=annealing.matched_to, matched_to="power")
    steps = range(1, annealing._num_steps + 1)
    return math.fsum(map(other.acceptance_rate_at, steps)) / annealing._num_steps


def _check_step(step: int) -> None:
    if step < 1:
        raise UserError(f"training steps count from 1: step must be at least 1, not {step}")
