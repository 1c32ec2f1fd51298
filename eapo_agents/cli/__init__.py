"""The `eapo` command."""

from eapo_agents.cli.app import main

__all__ = ["main"]
