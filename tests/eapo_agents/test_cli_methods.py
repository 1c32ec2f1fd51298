"""The commands of the paper's other methods, in real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eapo_agents.cli import main
from eapo_agents.run import Run

ROOT = Path(__file__).parents[2]


def succeed(*arguments: str | Path) -> str:
    """Run `eapo` in a process of its own; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "eapo_agents.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "300"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_distillation_leaves_a_run_that_evaluates_and_resumes(
    tiny_settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The procedural problems, whose expert writes solutions; the tiny model has to copy them."""
    dropped = ("problems.source", "name")
    settings = [s for s in tiny_settings if not s.startswith(dropped)]
    settings += ["problems.num_problems=8", "problems.brackets=1", "problems.operations=1"]
    settings += ["steps=2", "distillation.batch_size=4"]
    given = [part for setting in settings for part in ("--set", setting)]
    output = succeed("distill", "--lora", "2", *given, "--runs", tmp_path)
    assert "8/8" in output
    assert "mean@k, alone" in output
    run = Run.open(tmp_path / "embedded-distilled-lora-1")
    assert [row["step"] for row in run.metrics] == [1, 2]

    assert main(["evaluate", str(run.folder), "--json", str(tmp_path / "report.json")]) == 0
    written = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert list(written["sets"].values()) == [run.last_evaluation]

    assert main(["distill", "--resume", str(run.folder)]) == 0
    assert main(["train", "--resume", str(run.folder)]) == 2
    assert "it is for eapo distill" in capsys.readouterr().err
