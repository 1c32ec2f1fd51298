"""Public names that are imported on first use, so that importing a package loads no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import lazy_loader

_TRAIN: Final = (
    *("accelerate", "datasets", "huggingface_hub", "jinja2", "matplotlib", "peft", "plotly"),
    *("pydantic", "rich", "safetensors", "tensorboard", "tokenizers", "torch", "transformers"),
)
_EXTRAS: Final = dict.fromkeys(_TRAIN, "train") | {
    "skrl": "skrl",
    "gguf": "gguf",
    "vllm": "vllm",
    "wandb": "wandb",
    "trackio": "trackio",
    "inspect_ai": "benchmarks",
    "inspect_evals": "benchmarks",
    "fastapi": "benchmarks",
    "uvicorn": "benchmarks",
    "trl": "trl",
    "openenv": "openenv",
    "verifiers": "verifiers",
    "verl": "verl",
}
"""The extra that installs a module."""


def attach(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package whose public names are listed in its `.pyi`.

    Raises:
        ModuleNotFoundError: on use of a name that needs a package that is not installed; the extra
            to install is named.
    """
    load, names, _ = lazy_loader.attach_stub(package, file)

    def get(name: str) -> Any:
        try:
            return load(name)
        except ModuleNotFoundError as error:
            command = install_command(error)
            if command is None:
                raise
            raise ModuleNotFoundError(
                f"{package}.{name} needs {error.name}: {command}", name=error.name
            ) from error

    return get, names


def install_command(error: ModuleNotFoundError) -> str | None:
    """Return the command that installs a missing module of an extra; None if it is of none."""
    extra = _EXTRAS.get((error.name or "").partition(".")[0])
    return extra and f"pip install 'eapo[{extra}]'"
