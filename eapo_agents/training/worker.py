"""[edge] Several processes: the first one runs a script's work, the others share its updates."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, assert_never

from eapo_agents.learning import (
    SINGLE_PROCESS,
    AnyInterrupted,
    Begin,
    Command,
    ComputeLogprobs,
    End,
    GatherState,
    GatherWeights,
    Imitate,
    Learner,
    LoadShards,
    LoadState,
    Processes,
    Refused,
    SaveShards,
    SeveralProcesses,
    Update,
    end_process,
    joined,
    num_launched,
)
from eapo_agents.training.signals import interruption
from eapo_env.validation import UserError

T = TypeVar("T")

Message = Begin | Command | AnyInterrupted | Refused | End


def lead(main: Callable[[Processes], object]) -> None:
    """Run `main(processes)` in the first of the processes that a launcher started.

    The others take part in the updates of the trainers and learners that `main` makes with
    `processes=processes`. A script calls it last, under `accelerate launch`, `torchrun` or neither:

        if __name__ == "__main__":
            lead(main)

    Each of several processes ends in here: with status 0, or with 1 after an error, whose traceback
    it prints.
    """
    if num_launched() == 1:
        main(SINGLE_PROCESS)
        return

    def status() -> int:
        lead_or_follow(main)
        return 0

    end_process(status)


def lead_or_follow(main: Callable[[Processes], T]) -> T | None:
    """Return what `main(processes)` returns in the first process; in the others, follow it.

    Raises:
        UserError: in another process than the first, what the first one refuses in all of them; or
            another process ended.
    """
    with joined() as processes:
        if isinstance(processes, SeveralProcesses) and not processes.is_first:
            follow(processes)
            return None
        return main(processes)


def follow(processes: SeveralProcesses) -> None:
    """Do what the first process announces until it ends; errors as of `lead_or_follow`."""
    learner: Learner | None = None
    with interruption() as interrupted:
        while True:
            message: Message = processes.receive()
            match message:
                case Begin(spec=spec):
                    learner = spec.build(processes)
                case AnyInterrupted():
                    processes.any_interrupted(interrupted())
                case Refused(reason=reason):
                    raise UserError(reason)
                case End():
                    return
                case (
                    Update()
                    | Imitate()
                    | ComputeLogprobs()
                    | GatherWeights()
                    | GatherState()
                    | LoadState()
                    | SaveShards()
                    | LoadShards()
                ):
                    if learner is None:
                        raise UserError(
                            "the first process made a learner that the others do not have: make it"
                            " by LearnerSpec(...).start(processes), or by Trainer.from_config"
                        )
                    learner.perform(message)
                case _:
                    assert_never(message)
