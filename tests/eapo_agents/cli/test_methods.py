"""The commands of the paper's other methods, in real processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import as_options, succeed

from eapo_agents.cli import main
from eapo_agents.training.run_folder import Run

pytestmark = pytest.mark.slow


def test_distillation_leaves_a_run_that_evaluates_and_resumes(
    tiny_settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The procedural problems, whose expert writes solutions; the tiny model has to copy them."""
    dropped = ("problems.source", "name")
    settings = [s for s in tiny_settings if not s.startswith(dropped)]
    settings += ["problems.num_problems=8", "problems.brackets=1", "problems.operations=1"]
    settings += ["steps=2", "distillation.batch_size=4"]
    output = succeed("distill", "--lora", "2", *as_options(settings), "--runs", tmp_path)
    assert "8/8" in output
    assert "mean@k, alone" in output
    run = Run.open(tmp_path / "embedded-distilled-lora-1")
    assert [row["step"] for row in run.metrics] == [1, 2]

    assert main(["evaluate", str(run.folder), "--json", str(tmp_path / "report.json")]) == 0
    written = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert list(written["sets"].values()) == [run.last_evaluation]

    assert main(["distill", "--resume", str(run.folder)]) == 0
    assert main(["distill", "--resume", str(run.folder), "--set", "steps=3"]) == 0
    assert (run.config.steps, len(run.metrics)) == (3, 3)
    assert main(["train", "--resume", str(run.folder)]) == 2
    assert "it is for eapo distill" in capsys.readouterr().err
