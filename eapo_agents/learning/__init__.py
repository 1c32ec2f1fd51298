"""From groups of trajectories to an update: advantages, losses, algorithms, the learner."""

from eapo_agents._lazy import attach

__getattr__, __dir__ = attach(__name__, __file__)
