"""k samples per problem to metrics with confidence intervals; comparisons."""

from eapo_agents._lazy import attach

__getattr__, __dir__ = attach(__name__, __file__)
