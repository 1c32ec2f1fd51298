"""`eapo import-gguf`: a GGUF file as a model folder that every other command takes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents import policies
from eapo_agents.cli.console import new_console

if TYPE_CHECKING:
    from eapo_agents.cli.options import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    command = commands.add_parser("import-gguf", help="make a model folder of a GGUF file")
    command.add_argument("file", type=Path, help="of llama.cpp, quantised or not")
    command.add_argument("folder", type=Path, help="a new folder in Hugging Face format")
    command.set_defaults(command=_import)


def _import(options: argparse.Namespace) -> int:
    model = policies.import_gguf(options.file, options.folder)
    console = new_console()
    ends = " and ".join(map(repr, model.end_tokens))
    console.print(
        f"{options.folder}: {model.architecture}, {model.num_parameters / 1e6:.1f} million"
        f" parameters in bfloat16, a turn ends with {ends}",
        markup=False,
    )
    if not model.has_template:
        console.print(
            "The file has no chat template: it is a base model. To use it as a policy, write one"
            f" to {options.folder / 'chat_template.jinja'}.",
            markup=False,
        )
    return 0
