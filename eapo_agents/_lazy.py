"""Public names that are imported on first use, so that importing a package loads no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import lazy_loader

_EXTRAS: Final = {
    "vllm": "vllm",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "inspect_ai": "benchmarks",
    "inspect_evals": "benchmarks",
    "fastapi": "benchmarks",
    "uvicorn": "benchmarks",
}
"""The extra that installs a module; of all others it is `train`."""


def attach(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package whose public names stand in its `.pyi`.

    Raises:
        ModuleNotFoundError: on use of a name that needs a package that is not installed; the extra
            to install is named.
    """
    load, names, _ = lazy_loader.attach_stub(package, file)

    def get(name: str) -> Any:
        try:
            return load(name)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if not missing or missing.startswith("eapo"):
                raise
            raise ModuleNotFoundError(
                f"{package}.{name} needs {missing}: {install_command(missing)}", name=error.name
            ) from error

    return get, names


def install_command(module: str) -> str:
    """Return the command that installs a missing module, as a part of the extra it belongs to."""
    return f"pip install 'eapo[{_EXTRAS.get(module, 'train')}]'"
