"""[edge] What the processes other than the first do in a training run: their share of updates."""

from __future__ import annotations

from eapo_agents.config import TrainConfig
from eapo_agents.interruption import interruption
from eapo_agents.learner import Learner
from eapo_agents.models import load_model
from eapo_agents.processes import End, Order, Question, SeveralProcesses


def follow(processes: SeveralProcesses) -> None:
    """Do what the first process says until it says that this is the end.

    Raises:
        ConnectionError: another process ended.
    """
    learner = None
    with interruption() as interrupted:
        while True:
            match processes.receive():
                case Order(method="begin", arguments=(config,)):
                    learner = learner_of(config, processes)
                case Order(method=method, arguments=arguments):
                    getattr(learner, method)(*arguments)
                case Question():
                    processes.any_interrupted(interrupted())
                case End():
                    return


def learner_of(config: TrainConfig, processes: SeveralProcesses) -> Learner:
    """Return the learner that the first process has, with this one's part of the model."""
    model, _ = load_model(config.model)
    return Learner(
        model,
        settings=config.learner,
        algorithm=config.chosen_algorithm,
        processes=processes,
    )
