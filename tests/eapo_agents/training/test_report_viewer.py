"""The server of the page, asked over HTTP while run folders change."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from threading import Thread
from typing import Any

import pytest
from written_episodes import alone

from eapo_agents.training.report.viewer import view_server
from eapo_agents.training.run_folder import Run
from eapo_env.validation import UserError

Recorder = Callable[..., Run]


class Client:
    """Asks a server on loopback."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str, host: str | None = None, method: str = "GET") -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            headers = {} if host is None else {"Host": host}
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        compressed = answer.headers.get("Content-Encoding") == "gzip"
        return answer.status, gzip.decompress(body) if compressed else body

    def json(self, path: str) -> Any:
        status, body = self.get(path)
        assert status == 200, body
        return json.loads(body)


@contextmanager
def viewing(*runs: Run) -> Iterator[Client]:
    with view_server(runs, 0) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Client(server.server_port)
        finally:
            server.shutdown()
            thread.join()


def test_it_serves_what_is_recorded_while_it_is_recorded(recorded: Recorder) -> None:
    run = recorded("eapo", [0.5])
    with viewing(run) as client:
        first = client.json("/summary")
        assert first["curves"]["accuracy"][0]["mean"] == [[1], [0.5]]
        assert first["runs"][0]["episodes"] == []
        assert client.get(f"/summary?known={first['tag']}") == (204, b"")
        run.record(2, {"accuracy": 0.75})
        run.record_transcripts(2, [alone(), alone(problem_id="other")])
        second = client.json(f"/summary?known={first['tag']}")
        assert second["curves"]["accuracy"][0]["mean"] == [[1, 2], [0.5, 0.75]]
        assert second["runs"][0]["episodes"] == [2]
        rows = client.json(f"/episodes/0/2/{second['every']}")
        assert [row["problem_id"] for row in rows] == ["sum", "other"]
        assert [row["problem_id"] for row in client.json("/episodes/0/2/2")] == ["sum"]
        assert client.get("/evaluated/0/2/1")[0] == 404
        run.record_evaluated(2, [alone(problem_id="held out", use="evaluated")])
        assert client.json("/summary")["runs"][0]["evaluated"] == [2]
        assert [row["problem_id"] for row in client.json("/evaluated/0/2/1")] == ["held out"]
        status, page = client.get("/")
        assert status == 200
        assert b"<title>eapo-1</title>" in page


def test_a_run_that_has_not_begun_is_followed_until_it_has(recorded: Recorder) -> None:
    run = recorded("eapo", [])
    with viewing(run) as client:
        waiting = client.json("/summary")
        assert "has no metrics yet" in waiting["problem"]
        assert client.get("/")[0] == 200
        assert client.get("/episodes/0/1/1")[0] == 404
        run.record(1, {"accuracy": 0.5})
        assert client.json("/summary")["runs"][0]["steps"] == 1


def test_a_damaged_file_is_a_problem_that_the_page_shows(recorded: Recorder) -> None:
    run = recorded("eapo", [0.5])
    run.record_transcripts(1, [alone()])
    with viewing(run) as client:
        run.transcripts[1].write_text("[1]\n", encoding="utf-8")
        status, body = client.get("/episodes/0/1/1")
        assert status == 500
        assert "is no episode: [1]" in json.loads(body)["problem"]
        with (run.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write("?\n?\n")
        assert "line 2 is not JSON" in client.json("/summary")["problem"]


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/episodes",
        "/episodes/0/2/1",
        "/episodes/1/1/1",
        "/episodes/0/1/0",
        "/episodes/0/-1/1",
        "/episodes/0/../1",
        "/../config.json",
        "/config.json",
        "/%2e%2e/config.json",
        "/episodes/" + "9" * 5000 + "/1/1",
    ],
)
def test_it_serves_nothing_else(path: str, recorded: Recorder) -> None:
    run = recorded("eapo", [0.5])
    run.record_transcripts(1, [alone()])
    with viewing(run) as client:
        assert client.get("/episodes/0/1/1")[0] == 200
        assert client.get(path) == (404, b"")


def test_only_the_local_machine_may_ask_and_only_to_read(recorded: Recorder) -> None:
    """Another site's page can reach loopback under its own name (DNS rebinding)."""
    with viewing(recorded("eapo", [0.5])) as client:
        for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", ""):
            assert client.get("/summary", host) == (403, b""), host
        for host in ("localhost", "localhost:9000", "127.0.0.1", "127.0.0.1:1"):
            assert client.get("/summary", host)[0] == 200, host
        assert client.get("/summary", method="POST")[0] == 501


@pytest.mark.parametrize("port", [-1, 70_000])
def test_an_impossible_port_is_an_error(port: int, recorded: Recorder) -> None:
    with pytest.raises(UserError, match=rf"cannot serve on 127.0.0.1, port {port}"):
        view_server([recorded("eapo", [0.5])], port)


def test_a_port_in_use_is_an_error(recorded: Recorder) -> None:
    run = recorded("eapo", [0.5])
    with viewing(run) as client, pytest.raises(UserError, match=f"port {client.port}"):
        view_server([run], client.port)
