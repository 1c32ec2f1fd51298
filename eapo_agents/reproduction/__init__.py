"""The paper's comparisons in miniature: experiments, jobs, base models, the report."""

from eapo_agents._lazy import attach

__getattr__, __dir__ = attach(__name__, __file__)
