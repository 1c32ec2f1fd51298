"""Episodes played with a policy: from problems to trajectories and groups."""

from eapo_agents._lazy import attach

__getattr__, __dir__ = attach(__name__, __file__)
