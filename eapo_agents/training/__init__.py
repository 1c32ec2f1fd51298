"""A training run: its config, the loop, the run folder and its report."""

from eapo_agents._lazy import attach

__getattr__, __dir__ = attach(__name__, __file__)
