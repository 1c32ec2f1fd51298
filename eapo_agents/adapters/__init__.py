"""EAPO inside other libraries' trainers; each module needs the library that it is named after."""

from eapo_agents._lazy import attach

__getattr__, __dir__ = attach(__name__, __file__)
