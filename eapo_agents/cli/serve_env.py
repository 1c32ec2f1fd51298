"""`eapo serve-env`: the environment behind OpenEnv's wire format."""

from __future__ import annotations

import argparse
import socket
from typing import TYPE_CHECKING

from eapo_agents import adapters
from eapo_agents.cli.options import add_settings, preset_config

if TYPE_CHECKING:
    from eapo_agents.cli.options import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    serve = commands.add_parser("serve-env", help="serve the environment to OpenEnv clients")
    serve.add_argument("preset", nargs="?", default="embedded", help="embedded (the default), ...")
    add_settings(serve)
    serve.add_argument("--host", default="127.0.0.1", help="default: this machine only")
    serve.add_argument("--port", type=int, default=8000, help="0 is any free one")
    serve.add_argument("--sessions", type=int, default=256, help="the most at a time")
    serve.add_argument("--session-timeout", type=float, default=3600.0, help="seconds idle")
    serve.set_defaults(command=_serve)


def _serve(options: argparse.Namespace) -> int:
    from eapo_env.validation import UserError

    make_app = adapters.served_app  # first: without OpenEnv, it says what to install

    import uvicorn

    for name in ("sessions", "session_timeout"):
        if not getattr(options, name) > 0:
            raise UserError(
                f"--{name.replace('_', '-')} must be positive: {getattr(options, name)}"
            )
    parts = adapters.ServedParts.from_config(preset_config(options.preset, options.set))
    app = make_app(parts, sessions=options.sessions, session_timeout_s=options.session_timeout)
    with _bound(options.host, options.port) as listener:
        host, port = listener.getsockname()[:2]
        print(f"EAPO-Math-v0 at http://{host}:{port} until Ctrl-C", flush=True)
        patience_s = options.session_timeout  # a client that generates may not answer pings
        config = uvicorn.Config(
            app, log_level="warning", ws_ping_timeout=patience_s, ws_per_message_deflate=False
        )
        uvicorn.Server(config).run(sockets=[listener])
    return 0


def _bound(host: str, port: int) -> socket.socket:
    from eapo_env.validation import UserError

    try:
        return socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot listen on {host}:{port}: {error}") from None
