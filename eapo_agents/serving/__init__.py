"""vLLM servers as processes, and how new weights get into one."""

from eapo_agents._lazy import attach

__getattr__, __dir__ = attach(__name__, __file__)
