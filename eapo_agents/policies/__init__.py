"""What samples: the `Policy` protocol, its engines (transformers, vLLM, servers), chat models."""

from eapo_agents._lazy import attach

__getattr__, __dir__ = attach(__name__, __file__)
