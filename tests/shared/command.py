"""The command `eapo` of this tree in a process of its own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "400"}
EAPO = (sys.executable, "-m", "eapo_agents.cli")


def eapo(*arguments: str | Path, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, as `subprocess.run` with `how`."""
    pipes = {"capture_output": True, "text": True, "env": ENVIRONMENT}
    return subprocess.run([*EAPO, *arguments], **pipes | how)


def started(*arguments: str | Path, **how: Any) -> subprocess.Popen[str]:
    """Start the command, as `subprocess.Popen` with `how`; what it says comes through pipes."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*EAPO, *arguments], **{"env": ENVIRONMENT} | pipes | how)


def succeed(*arguments: str | Path, **how: Any) -> str:
    """Run the command, which may not complain; return what it prints."""
    done = eapo(*arguments, **how)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def as_options(settings: Iterable[str]) -> list[str]:
    """Return the settings as options of the command."""
    return [part for setting in settings for part in ("--set", setting)]


def settings_printed(server: subprocess.Popen[str]) -> list[str]:
    """Wait until a server says how it can be reached; return those settings."""
    assert server.stdout is not None
    line = next(text for text in server.stdout if text.startswith("--set"))
    return shlex.split(line)[1::2]
