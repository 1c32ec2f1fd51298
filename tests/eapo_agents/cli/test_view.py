"""`eapo view` as a process, and the page that `eapo report` leaves."""

from __future__ import annotations

import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from command import eapo, started, succeed

from eapo_agents.training.run_folder import Run

pytestmark = pytest.mark.slow

Recorder = Callable[..., Run]


def test_a_run_is_served_until_ctrl_c(recorded: Recorder) -> None:
    run = recorded("eapo", [0.5])
    with started("view", run.folder, "--port", "0", start_new_session=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[0]
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert b"<title>eapo-1</title>" in answer.read()
        server.send_signal(signal.SIGINT)
        output, errors = server.communicate(timeout=60)
    assert (server.returncode, output, errors) == (0, "", "")


def test_what_cannot_be_viewed_is_refused(recorded: Recorder, tmp_path: Path) -> None:
    run = recorded("eapo", [0.5]).folder
    for arguments, told in (
        ([tmp_path], f"{tmp_path} holds no run: there is no config.json in it"),
        ([run, run], f"the run {run} is named twice"),
        ([run, "--port", "70000"], "cannot serve on 127.0.0.1, port 70000"),
    ):
        done = eapo("view", *map(str, arguments))
        assert done.returncode == 2
        assert told in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_report_names_its_page(recorded: Recorder, tmp_path: Path) -> None:
    output = succeed("report", recorded("eapo", [0.5]).folder, "--out", tmp_path / "out")
    page = tmp_path / "out" / "report.html"
    assert f"page: {page}\n" in output
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
