"""Sections of a config for imitation: distillation, and the cold start."""

from __future__ import annotations

from dataclasses import dataclass

from eapo_env.validation import at_least, positive, probability


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillationSettings:
    """Distillation: fine-tuning on the experts' solutions (paper 3.1, "Distillation").

    Args:
        samples_per_problem: solutions sampled per problem; the correct ones are imitated.
        max_problems: number of training problems that the experts solve; None is all.
        problems_at_once: number of problems in progress at a time.
        timeout_s: a server's timeout for one solution.
        batch_size: solutions per update.
        learning_rate: replaces the learner's, which is meant for rewards; null follows the model:
            1e-3 for the embedded one, for any other 1e-5, for adapters 3e-3 and 1e-4.

    Raises:
        UserError: a value out of its range.
    """

    samples_per_problem: int = 4
    max_problems: int | None = None
    problems_at_once: int = 64
    timeout_s: float = 1800.0
    batch_size: int = 32
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        at_least(1, self, "samples_per_problem", "problems_at_once", "batch_size")
        if self.learning_rate is not None:
            at_least(0, self, "learning_rate")
        if self.max_problems is not None:
            at_least(1, self, "max_problems")
        positive(self, "timeout_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdStartSettings:
    """A cold start: imitation of demonstrations that consult, use replies, and do without.

    Args:
        batch_size: demonstrations per update.
        learning_rate: replaces the learner's; null follows the model: 1e-3 for the embedded one,
            for any other 1e-4, for adapters 3e-3 and 1e-3.
        alone: the share of demonstrations under the evaluation prompt, without experts.
        consult: the share of the others that consult; those on recorded solutions all do.

    Raises:
        UserError: a value out of its range.
    """

    batch_size: int = 16
    learning_rate: float | None = None
    alone: float = 0.4
    consult: float = 0.95

    def __post_init__(self) -> None:
        at_least(1, self, "batch_size")
        probability(self, "alone", "consult")
        if self.learning_rate is not None:
            at_least(0, self, "learning_rate")
