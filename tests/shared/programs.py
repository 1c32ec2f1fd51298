"""The programs of `tests/programs`, each in a process of its own, with warnings as errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "tests" / "programs"
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])}


def command(name: str, *arguments: str | Path, options: tuple[str, ...] = ()) -> list[str]:
    """Return what starts a program; `options` are Python's."""
    return [sys.executable, "-W", "error", *options, str(PROGRAMS / name), *map(str, arguments)]


def run_program(
    name: str, *arguments: str | Path, options: tuple[str, ...] = (), **how: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, as `subprocess.run` with `how`."""
    usual: dict[str, Any] = {"capture_output": True, "text": True, "env": ENVIRONMENT}
    return subprocess.run(command(name, *arguments, options=options), **usual | how)


def start_program(
    name: str, *arguments: str | Path, options: tuple[str, ...] = (), **how: Any
) -> subprocess.Popen[str]:
    """Start a program, as `subprocess.Popen` with `how`; its output is piped."""
    usual: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True, "env": ENVIRONMENT}
    return subprocess.Popen(command(name, *arguments, options=options), **usual | how)
