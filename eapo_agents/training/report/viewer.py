"""[edge] The page of a report behind a server on loopback, which follows running trainings.

`/` is the page without episodes; it asks for `summary` again and again, and for the episodes of
each run and step once they are recorded. Everything is read from the run folders when it is asked
for; nothing is ever written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

from eapo_agents.training.report.content import episodes, evaluated, summary
from eapo_agents.training.report.page import compressed, in_order, served_every, served_page
from eapo_agents.training.run_folder import Run
from eapo_env.validation import UserError

HOST = "127.0.0.1"
_NAMES = {"127.0.0.1", "localhost"}
_EPISODES = re.compile(r"/(episodes|evaluated)/(\d{1,6})/(\d{1,9})/(\d{1,9})")
_JSON, _HTML = "application/json", "text/html; charset=utf-8"

_GROWING = ("config.json", "metrics.jsonl", "events.jsonl")

Stamp = tuple[tuple[object, ...], ...]
"""Size and time of change of the files that grow, and which others there are."""


@dataclass(frozen=True)
class Answer:
    """What the server answers: a status, a type of content, and the content."""

    status: HTTPStatus
    kind: str = _JSON
    body: bytes = b""
    compressed: bool = False


@dataclass
class Viewer:
    """Answers the requests of the page about some runs.

    Args:
        runs: the run folders, which may still grow.
    """

    runs: Sequence[Run]
    _lock: Lock = field(default_factory=Lock)
    _stamp: Stamp | None = None
    _summary: Mapping[str, Any] = field(default_factory=dict)

    def answer(self, url: str) -> Answer:
        """Return the answer to a GET request for a URL."""
        parts = urlsplit(url)
        if parts.path == "/":
            page = served_page(self.runs, self.summary())
            return Answer(HTTPStatus.OK, _HTML, page.encode("utf-8", "replace"))
        if parts.path == "/summary":
            content = self.summary()
            if parse_qs(parts.query).get("known") == [content["tag"]]:
                return Answer(HTTPStatus.NO_CONTENT)
            return Answer(HTTPStatus.OK, _JSON, compressed(content), compressed=True)
        if found := _EPISODES.fullmatch(parts.path):
            return self._episodes(found[1], *map(int, found.groups()[1:]))
        return Answer(HTTPStatus.NOT_FOUND)

    def summary(self) -> Mapping[str, Any]:
        """Return the summary of the runs as they are now, or the `problem` that there is with it.

        It is computed when a file has changed.
        """
        with self._lock:
            stamp = _stamp(self.runs)
            if stamp != self._stamp:
                self._summary, self._stamp = self._read(), stamp
            return self._summary

    def _read(self) -> Mapping[str, Any]:
        try:
            content = summary(self.runs)
        except UserError as error:
            return {"source": "served", "problem": str(error), "tag": str(error)}
        every = served_every(self.runs)
        return {**content, "source": "served", "every": every, "tag": f"{content['tag']}-{every}"}

    def _episodes(self, kind: str, number: int, step: int, every: int) -> Answer:
        content = self.summary()
        runs = in_order(self.runs, content) if "runs" in content else []
        if number >= len(runs) or not every:
            return Answer(HTTPStatus.NOT_FOUND)
        run = runs[number]
        recorded, read = (
            (run.transcripts, episodes) if kind == "episodes" else (run.evaluated, evaluated)
        )
        if step not in recorded:
            return Answer(HTTPStatus.NOT_FOUND)
        try:
            found = read(run, step, every)
        except UserError as error:
            text = json.dumps({"problem": str(error)})
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, _JSON, text.encode())
        return Answer(HTTPStatus.OK, _JSON, compressed(found), compressed=True)


def view_server(runs: Sequence[Run], port: int) -> ThreadingHTTPServer:
    """Return a server of the page about some runs, bound to loopback; `serve_forever` starts it.

    It answers only requests that name it as the local machine, so that no page of another site can
    read it under a name of its own.

    Args:
        runs: the run folders.
        port: 0 for any free one; `server_port` tells which.

    Raises:
        UserError: the port cannot be bound.
    """
    viewer = Viewer(runs)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
            self._send(viewer.answer(self.path) if host in _NAMES else Answer(HTTPStatus.FORBIDDEN))

        def _send(self, answer: Answer) -> None:
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(len(answer.body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            if answer.compressed:
                self.send_header("Content-Encoding", "gzip")
            with suppress(ConnectionError):  # the browser has gone on
                self.end_headers()
                self.wfile.write(answer.body)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing: the page asks every two seconds."""

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except (OSError, OverflowError) as error:
        text = f"cannot serve on {HOST}, port {port}: {error}; --port 0 takes a free one"
        raise UserError(text) from error


def _stamp(runs: Sequence[Run]) -> Stamp:
    found: list[tuple[object, ...]] = []
    for run in runs:
        for path in (run.folder / name for name in _GROWING):
            status = path.stat() if path.exists() else None
            found.append((status and status.st_size, status and status.st_mtime_ns))
        found += [tuple(run.evaluations), tuple(run.transcripts), tuple(run.evaluated)]
    return tuple(found)
