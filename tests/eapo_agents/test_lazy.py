"""Missing packages: the command that installs them names an extra that exists."""

from __future__ import annotations

import tomllib
from pathlib import Path

from eapo_agents._lazy import _EXTRAS

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))[
    "project"
]


def test_every_extra_that_is_advised_installs_the_module() -> None:
    extras = PROJECT["optional-dependencies"]
    brought_along = {"huggingface_hub", "safetensors", "tokenizers"}  # by transformers
    for module, extra in _EXTRAS.items():
        wanted = module.replace("_", "-")
        names = [requirement.split(">")[0].split("=")[0] for requirement in extras[extra]]
        assert wanted in names or module in brought_along, f"eapo[{extra}] lacks {module}"
