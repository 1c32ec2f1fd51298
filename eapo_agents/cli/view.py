"""`eapo view`: the page of one or several runs in a browser, following a training."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents import training
from eapo_agents.cli.console import new_console
from eapo_agents.cli.options import distinct_runs

if TYPE_CHECKING:
    from eapo_agents.cli.options import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    view = commands.add_parser("view", help="look at runs in a browser, also while they train")
    view.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    view.add_argument("--port", type=int, default=8200, help="on loopback; 0 takes a free one")
    view.set_defaults(command=_view)


def _view(options: argparse.Namespace) -> int:
    runs = distinct_runs(options.runs)
    with training.view_server(runs, options.port) as server:
        new_console().print(f"http://127.0.0.1:{server.server_port}/ (Ctrl-C ends it, or kill)")
        with suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0
