"""Withdraw the experts: training step -> rules (paper 2.3 and Appendix H)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, assert_never

from eapo_env.types import Rules
from eapo_env.validation import UserError

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
        steps: S, the number of training steps over which the experts are withdrawn.
        schedule: the shape.
        turn_budget: the initial turn budget.
        queries_per_turn: M of the rules.
        initial_acceptance_rate: p at step 0; every schedule but `constant` is scaled by it.

    Raises:
        UserError: a value out of its range.
    """

    steps: int
    schedule: Schedule = "linear"
    turn_budget: int = 4
    queries_per_turn: int = 3
    initial_acceptance_rate: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"steps must be at least 1, not {self.steps}")
        if self.schedule not in ("linear", "slow", "fast", "constant"):
            raise UserError(
                f"schedule must be linear, slow, fast or constant, not {self.schedule!r}"
            )
        if not 0.0 <= self.initial_acceptance_rate <= 1.0:
            raise UserError(
                f"initial_acceptance_rate must be in [0, 1], not {self.initial_acceptance_rate}"
            )
        self.rules_at(0)

    def acceptance_rate_at(self, step: int) -> float:
        """Return p_s, in [0, 1] and never rising with the step."""
        if self.schedule == "constant":
            rate = 0.5 if step < self.steps else 0.0
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
        the default rounds to the nearest.

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

    def _remaining(self, step: int) -> float:
        x = min(step / self.steps, 1.0)
        match self.schedule:
            case "linear" | "constant":
                return 1.0 - x
            case "slow":
                return 1.0 - x * x
            case "fast":
                return (1.0 - x) ** 2
            case _:
                assert_never(self.schedule)
