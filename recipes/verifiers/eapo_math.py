"""EAPO's problems, played with experts or alone: `vf-eval eapo-math`."""

from eapo_agents.adapters.verifiers import EapoHarness, EapoTaskset

__all__ = ["EapoHarness", "EapoTaskset"]
