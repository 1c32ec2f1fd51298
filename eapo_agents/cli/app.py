"""The command line as a whole: its commands, errors as sentences, the exit status."""

from __future__ import annotations

import argparse
import atexit
import ctypes
import os
import signal
import sys
from collections.abc import Sequence

from eapo_agents import learning, training
from eapo_agents._lazy import install_command
from eapo_agents.cli import (
    benchmarks,
    cold_start,
    compare,
    distill,
    doctor,
    evaluate,
    export_verl,
    import_gguf,
    leap,
    play,
    report,
    reproduce,
    serve,
    serve_env,
    settings,
    train,
    view,
    workflows,
)
from eapo_agents.cli.options import INTERRUPTED

_COMMANDS = (
    train,
    report,
    view,
    evaluate,
    compare,
    play,
    workflows,
    leap,
    cold_start,
    distill,
    benchmarks,
    reproduce,
    serve,
    serve_env,
    import_gguf,
    export_verl,
    doctor,
    settings,
)
"""The files of the commands, in the order of `eapo --help`; each adds one or more."""

_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait are slow on busy cores
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # transformers' own, in the middle of ours
    "TRANSFORMERS_VERBOSITY": "error",
}
"""What torch and transformers read when they are imported, unless the user has set it."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_KEPT = {_MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 1 << 30}
"""The largest block that malloc takes from its heap, and how much freed memory it keeps there.

By default a large block is mapped again each time. Its page faults cost several times what torch
does with it: of 64 rows of 49,152 logits, drawing an id took 45 ms of a core, and with this 10.
"""

_PLACE = {"RANK": "0", "WORLD_SIZE": "1"}
"""What launchers (accelerate, torchrun) set, and what it is without one."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status.

    0; 1 where a part of it failed; 2 for bad input; 130 and 143 when Ctrl-C and SIGTERM ended it.
    """
    options = parsed(sys.argv[1:] if arguments is None else arguments)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    _keep_freed_memory()
    rank, world = (int(os.environ.get(name, default)) for name, default in _PLACE.items())
    if world > 1:  # it ends there
        learning.end_process(lambda: _status(options, f"eapo, process {rank} of {world}"))
    return _status(options, "eapo")


def _keep_freed_memory() -> None:
    """Have the C library reuse what was freed, as far as it can be told (glibc)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and not any(name.startswith("MALLOC_") for name in os.environ):
        for parameter, value in _KEPT.items():
            mallopt(parameter, value)


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options of a command; in `options` what follows `--`, where it takes that.

    argparse itself loses it if options stand before it (Python 3.11).
    """
    place = list(arguments).index("--") if "--" in arguments else len(arguments)
    own, after = arguments[:place], list(arguments[place + 1 :])
    options = parser().parse_args(own)
    if after:
        if not hasattr(options, "options"):
            parser().error(f"unrecognized arguments: {' '.join(after)}")
        options.options = after
    return options


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; `command` of its result is what runs the chosen one."""
    eapo = argparse.ArgumentParser(
        prog="eapo", description="Expert-assisted policy optimisation (arXiv 2509.23730)."
    )
    commands = eapo.add_subparsers(required=True, metavar="COMMAND")
    for module in _COMMANDS:
        module.add(commands)
    return eapo


def _status(options: argparse.Namespace, speaker: str) -> int:
    """Run the command; return its exit status, after a signal the one that says which came."""
    with training.termination() as signal_status:
        try:
            status = _run(options, speaker)
        except KeyboardInterrupt:
            status = INTERRUPTED
        # Ctrl-C while Python ends is the kernel's: no traceback of what Python does then.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)
        return signal_status() if status == INTERRUPTED else status


def _run(options: argparse.Namespace, speaker: str) -> int:
    """Run the command; print what the user can put right in one line, and leave bugs to Python."""
    from eapo_env.validation import UserError

    try:
        status: int = options.command(options)
    except UserError as error:
        message = ". ".join([str(error).rstrip("."), *getattr(error, "__notes__", ())])
    except ModuleNotFoundError as error:
        command = install_command(error)
        if command is None:
            raise
        message = f"No module named {error.name!r}; install it with: {command}"
    else:
        return status
    print(f"{speaker}: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
