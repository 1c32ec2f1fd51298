"""[edge] What the processes other than the first do in a training run: their share of updates."""

from __future__ import annotations

from eapo_agents.learning import End, Learner, Order, Question, SeveralProcesses
from eapo_agents.policies import load_model
from eapo_agents.training.config import TrainConfig
from eapo_agents.training.interruption import interruption


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
