"""The paper's other methods: distillation, workflows, LeaP, decision agents, benchmarks."""

from eapo_agents._lazy import attach

__getattr__, __dir__ = attach(__name__, __file__)
