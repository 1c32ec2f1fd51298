"""Plug in an algorithm of your own: an advantage function and a loss, in a training beside DAPO.

    python examples/own_algorithm.py --steps 20

`Successes` learns from right answers only, each weighted by how rare it was in its group: plain
REINFORCE without a clip and without negative examples. The script checks it, trains the embedded
model with it and with DAPO from the same seed, and prints the accuracy of both in training. On the
command line, `cd examples && eapo train embedded --set algorithm=python --set
algorithm.factory=own_algorithm:Successes` trains with it as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eapo_agents import DAPO, Algorithm, Run, Trainer, presets, with_settings
from eapo_agents.learning import LossInputs, LossOutput, Rewards
from eapo_agents.testing import check_algorithm


@dataclass(frozen=True)
class Successes:
    """REINFORCE on right answers.

    Args:
        threshold: from which reward on an answer counts as right.
    """

    threshold: float = 0.5

    @property
    def name(self) -> str:
        """The name in records and reports."""
        return "successes"

    def advantages(self, rewards_G: Rewards) -> Rewards:
        """Return 1 - (share of right answers) for a right answer, and 0 for any other."""
        right_G = rewards_G > self.threshold
        return np.where(right_G, 1.0 - right_G.mean(), 0.0)

    def loss(self, inputs: LossInputs) -> LossOutput:
        """Return a micro-batch's share of -sum_t A log pi(y_t) / (policy tokens of the step)."""
        loss_BT = -inputs.advantage_B[:, None] * inputs.logp_BT * inputs.mask_BT
        return LossOutput(loss=loss_BT.sum() / inputs.num_tokens)


def train(algorithm: Algorithm, steps: int, runs: Path, settings: Sequence[str]) -> Run:
    """Return the run of a training of the embedded model."""
    config = with_settings(presets.embedded(), [f"steps={steps}", *settings])
    run = Run.create(config, runs)
    with closing(Trainer.from_config(config, algorithm=algorithm)) as trainer:
        trainer.train(run)
    return run


def main(arguments: Sequence[str] | None = None) -> None:
    """Check the algorithm, train with it and with DAPO, and print both accuracies."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    options = parser.parse_args(arguments)
    check_algorithm(Successes())
    for algorithm in (Successes(), DAPO()):
        run = train(
            algorithm, options.steps, options.runs, [f"name={algorithm.name}", *options.set]
        )
        accuracies = " ".join(f"{row['accuracy']:.2f}" for row in run.metrics)
        print(f"{algorithm.name:10} accuracy in training: {accuracies}")
        print(f"{'':10} {run.folder}")


if __name__ == "__main__":
    main()
