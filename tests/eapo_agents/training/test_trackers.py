"""Trackers: real TensorBoard, Weights & Biases and Trackio, on this machine alone."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

import pytest
from command import ENVIRONMENT, as_options, eapo_forked
from forked import run_forked
from programs import PROGRAMS, run_program
from small_files import small_files
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from eapo_agents.training.config import TrainConfig
from eapo_agents.training.run_folder import Run
from eapo_agents.training.trackers import PythonTracker, TensorBoard, Tracker, Trackio, Wandb
from eapo_env.validation import UserError

METRICS = [{"accuracy": 0.25, "loss": 1.5}, {"accuracy": 0.5, "loss": 1.0}]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(TrainConfig(name="tracked"), tmp_path)


def record(tracker: Tracker, first: int = 1) -> None:
    for step, metrics in enumerate(METRICS, start=first):
        tracker.log(step, metrics)
    tracker.close()


def accuracies(run: Run) -> list[tuple[int, float]]:
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    return [(one.step, one.value) for one in events.Scalars("accuracy")]


def test_tensorboard_has_the_numbers_and_forgets_those_that_a_resumed_run_records_again(
    run: Run,
) -> None:
    record(TensorBoard().build(run.folder))
    assert accuracies(run) == [(1, 0.25), (2, 0.5)]
    record(TensorBoard().build(run.folder), first=2)
    assert accuracies(run) == [(1, 0.25), (2, 0.25), (3, 0.5)]


def test_tensorboard_on_a_full_disk_is_an_error_that_names_the_file(run: Run) -> None:
    tracker = TensorBoard().build(run.folder)
    tracker.log(1, METRICS[0])
    [written] = (run.folder / "tensorboard").iterdir()
    with pytest.raises(UserError, match=f"cannot write {written}: a file is larger"), small_files():
        tracker.log(2, METRICS[1])
    tracker.close()
    assert accuracies(run) == [(1, 0.25)]


def test_a_tracker_that_logged_nothing_leaves_nothing(run: Run) -> None:
    before = sorted(run.folder.rglob("*"))
    for settings in (TensorBoard(), Wandb(), Trackio()):
        settings.build(run.folder).close()
    assert sorted(run.folder.rglob("*")) == before


def test_weights_and_biases_writes_its_file_offline(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")  # as a user sets it
    record(Wandb(project="tiny").build(run.folder))
    [written] = run.folder.glob("wandb/offline-run-*/run-*.wandb")
    assert written.stat().st_size > 0


def test_trackio_has_the_numbers_of_a_resumed_run_too(run: Run, tmp_path: Path) -> None:
    """In a process of its own, for trackio reads its folder's name when it is imported."""
    theirs = ENVIRONMENT | {"TRACKIO_DIR": str(tmp_path / "trackio")}
    done = run_program("tracking.py", run.folder, env=theirs)
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(tmp_path / "trackio" / "tiny.db") as database:
        rows = database.execute("SELECT run_name, step FROM metrics ORDER BY step").fetchall()
    assert rows == [(f"tracked-1-{run.folder.stat().st_ino}", step) for step in (1, 2, 3, 4)]


@pytest.mark.slow
@pytest.mark.parametrize("package", ["wandb", "trackio"])
def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_loaded(
    package: str, tmp_path: Path
) -> None:
    settings = as_options([f"trackers={package}", f"model.path={tmp_path}"])
    without = PROGRAMS / "without_module.py"
    done = run_forked(without, package, "train", *settings, "--runs", tmp_path, warnings="error")
    needs = (
        f"the tracker '{package}' needs {package}; install it with: pip install 'eapo[{package}]'"
    )
    assert (done.returncode, done.stderr) == (2, f"eapo: {needs}\n")


@pytest.mark.slow
@pytest.mark.parametrize("key", [{}, {"WANDB_API_KEY": "mistyped"}])
def test_weights_and_biases_without_a_key_is_refused_before_anything_is_loaded(
    key: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("wandb")
    nobody = {name: text for name, text in ENVIRONMENT.items() if not name.startswith("WANDB_")}
    nobody |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc"), **key}
    settings = as_options(["trackers=wandb", f"model.path={tmp_path}"])
    done = eapo_forked("train", *settings, "--runs", tmp_path / "runs", env=nobody)
    assert done.returncode == 2
    said = "WANDB_API_KEY invalid" if key else "No API key configured"
    assert done.stderr.startswith(f"eapo: the tracker 'wandb': {said}")
    assert done.stderr.count("\n") == 1
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_custom_tracker_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="factory 'json:nothing'"):
        PythonTracker(factory="json:nothing").check()


def test_a_custom_tracker_gets_the_run_folder(run: Run, tmp_path: Path) -> None:
    module = tmp_path / "their_tracker_module.py"
    module.write_text(
        "class Lines:\n"
        "    def __init__(self, folder, name):\n"
        "        self.file = (folder / name).open('w')\n"
        "    def log(self, step, metrics):\n"
        "        self.file.write(f'{step} {metrics}\\n')\n"
        "    def close(self):\n"
        "        self.file.close()\n",
        encoding="utf-8",
    )
    sys.path.append(str(tmp_path))
    try:
        settings = PythonTracker(
            factory="their_tracker_module:Lines", arguments={"name": "lines.txt"}
        )
        record(settings.build(run.folder))
    finally:
        sys.path.remove(str(tmp_path))
    assert (run.folder / "lines.txt").read_text().startswith("1 {'accuracy': 0.25")
