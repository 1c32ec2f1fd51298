"""Agents that learn in `EAPO-Math-v0`: policies, rollouts, learning, training, evaluation."""

from eapo_agents._lazy import attach

__getattr__, __dir__ = attach(__name__, __file__)
