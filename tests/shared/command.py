"""The command `eapo` of this tree: in this process, or in a child that has a status."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from forked import Forked, run_forked

from eapo_agents.cli import main

ROOT = Path(__file__).parents[2]
WIDE = {"COLUMNS": "400"}
"""Lines that no path is too long for."""
ENVIRONMENT = os.environ | WIDE | {"PYTHONPATH": str(ROOT)}
del ENVIRONMENT["HF_HUB_DISABLE_PROGRESS_BARS"]  # the command sets it for itself
EAPO = (sys.executable, "-m", "eapo_agents.cli")


def succeed(*arguments: str | Path) -> str:
    """Run the command in this process, which may not complain; return what it prints."""
    output, errors = StringIO(), StringIO()
    with _wide_lines(), redirect_stdout(output), redirect_stderr(errors):
        status = main([str(argument) for argument in arguments])
    assert (status, errors.getvalue()) == (0, ""), output.getvalue() + errors.getvalue()
    return output.getvalue()


@contextmanager
def _wide_lines() -> Iterator[None]:
    before = os.environ.get("COLUMNS")
    os.environ.update(WIDE)
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        os.environ.update({} if before is None else {"COLUMNS": before})


def eapo(*arguments: str | Path, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run the command in a process to its end, as `subprocess.run` with `how`."""
    usual: dict[str, Any] = {"capture_output": True, "text": True, "env": ENVIRONMENT}
    return subprocess.run([*EAPO, *arguments], **usual | how)


def started(*arguments: str | Path, **how: Any) -> subprocess.Popen[str]:
    """Start the command in a process, as `subprocess.Popen` with `how`; its output is piped."""
    usual: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*EAPO, *arguments], **usual | {"env": ENVIRONMENT} | how)


def eapo_forked(*arguments: str | Path, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, as `eapo`, in a process that has imported torch."""
    return run_forked(*EAPO[1:], *arguments, **{"env": ENVIRONMENT} | how)


def started_forked(*arguments: str | Path, **how: Any) -> Forked:
    """Start the command, as `started`, in a process that has imported torch."""
    return Forked(*EAPO[1:], *arguments, **{"env": ENVIRONMENT} | how)


def as_options(settings: Iterable[str]) -> list[str]:
    """Return the settings as options of the command."""
    return [part for setting in settings for part in ("--set", setting)]


def settings_printed(server: subprocess.Popen[str]) -> list[str]:
    """Wait until a server says how it can be reached; return those settings."""
    assert server.stdout is not None
    line = next(text for text in server.stdout if text.startswith("--set"))
    return shlex.split(line)[1::2]
