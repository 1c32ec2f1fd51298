"""The commands of the paper's methods and comparisons, beside those of `cli.py`.

Each command has a function that adds its options and one that runs it.
"""

from __future__ import annotations

import argparse


def add_methods(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of the methods to those of `eapo`."""
