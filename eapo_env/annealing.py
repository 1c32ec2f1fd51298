"""Annealing, the withdrawal of the experts: training step -> rules (paper 2.3, Appendix H)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, assert_never

from eapo_env.types import Rules
from eapo_env.validation import UserError, at_least

Schedule = Literal["linear", "slow", "fast", "constant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Annealing:
    """The acceptance rate p_s and the turn budget as functions of the training step s.

    With progress x = min(s / steps, 1):

    - `linear` (the paper's): p = 1 - x
    - `slow`: p = 1 - x^2
    - `fast`: p = (1 - x)^2
    - `constant`: p = 1/2 while s < steps, the mean rate of `linear` (Appendix H: budget-matched)

    The turn budget falls from `turn_budget` to 1 at the same pace as the acceptance rate; for
    `constant` it falls linearly. Past `steps`, an episode is played alone.

    Args:
        steps: S, the number of training steps over which the experts are withdrawn; None in a
            config: all its training steps (`TrainConfig.schedule`).
        schedule: the shape.
        turn_budget: the initial turn budget.
        queries_per_turn: M, the maximum number of queries of a turn.
        initial_acceptance_rate: factor on the acceptance rate of every schedule.

    Raises:
        UserError: a value out of its range.
    """

    steps: int | None = None
    schedule: Schedule = "linear"
    turn_budget: int = 4
    queries_per_turn: int = 3
    initial_acceptance_rate: float = 1.0

    def __post_init__(self) -> None:
        if self.steps is not None:
            at_least(1, self, "steps")
        if self.schedule not in ("linear", "slow", "fast", "constant"):
            raise UserError(
                f"schedule must be linear, slow, fast or constant, not {self.schedule!r}"
            )
        if not 0.0 <= self.initial_acceptance_rate <= 1.0:
            raise UserError(
                f"initial_acceptance_rate must be in [0, 1], not {self.initial_acceptance_rate}"
            )
        Rules(turn_budget=self.turn_budget, queries_per_turn=self.queries_per_turn)

    def acceptance_rate_at(self, step: int) -> float:
        """Return p_s, in [0, 1] and non-increasing in the step."""
        if self.schedule == "constant":
            rate = 0.5 if step < self._num_steps else 0.0
        else:
            rate = self._remaining(step)
        return rate * self.initial_acceptance_rate

    def turn_budget_at(self, step: int) -> float:
        """Return the mean turn budget at a step: from `turn_budget` down to 1, often fractional."""
        return 1.0 + (self.turn_budget - 1) * self._remaining(step)

    def rules_at(self, step: int, draw: float = 0.5) -> Rules:
        """Return the rules of an episode at a training step.

        `draw`, uniform on [0, 1), rounds a fractional turn budget at random, so that a growing
        share of the episodes is played alone, under the prompt of evaluation, before all are;
        the default rounds to the nearest integer.

        Raises:
            UserError: a negative step, or a draw outside [0, 1).
        """
        if step < 0:
            raise UserError(f"step must be at least 0, not {step}")
        if not 0.0 <= draw < 1.0:
            raise UserError(f"draw must be in [0, 1), not {draw}")
        whole, part = divmod(self.turn_budget_at(step), 1.0)
        return Rules(
            turn_budget=int(whole) + int(draw >= 1.0 - part),
            acceptance_rate=self.acceptance_rate_at(step),
            queries_per_turn=self.queries_per_turn,
        )

    @property
    def _num_steps(self) -> int:
        if self.steps is None:
            raise UserError("annealing.steps is not set")
        return self.steps

    def _remaining(self, step: int) -> float:
        x = min(step / self._num_steps, 1.0)
        match self.schedule:
            case "linear" | "constant":
                return 1.0 - x
            case "slow":
                return 1.0 - x * x
            case "fast":
                return (1.0 - x) ** 2
            case _:
                assert_never(self.schedule)
