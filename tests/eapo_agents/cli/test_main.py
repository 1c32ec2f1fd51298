"""The command line: every command, its files, its errors, its exit status."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import time
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path

import matplotlib.image
import pytest
from command import (
    ENVIRONMENT as OF_THE_COMMAND,
    as_options,
    eapo,
    eapo_forked,
    started_forked,
    succeed,
)
from programs import ENVIRONMENT, run_program
from rich.console import Console

from eapo_agents.cli import main
from eapo_agents.cli.app import parsed
from eapo_agents.cli.console import duration, progress_bars, step_display
from eapo_agents.methods.solutions import Solution
from eapo_agents.training.run_folder import Run


@pytest.fixture(scope="module")
def trained(tiny_settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str]:
    """A run of two steps, trained by the command, and what that printed."""
    root = tmp_path_factory.mktemp("runs")
    short = ["steps=2", "annealing.steps=2"]
    output = succeed("train", "embedded", *as_options([*tiny_settings, *short]), "--runs", root)
    assert "tiny-1: 2 steps" in output
    return Run.open(root / "tiny-1"), output


@pytest.fixture(scope="module")
def run(trained: tuple[Run, str]) -> Run:
    """The run of `trained`."""
    return trained[0]


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for command in ("train", "evaluate", "play", "report", "demo", "pretrain", "settings"):
        assert f"\n    {command} " in shown


def test_commands_without_a_model_load_no_torch(run: Run, tmp_path: Path) -> None:
    """Two runs are reported on and compared; `--help` does not even load numpy."""
    copies = [shutil.copytree(run.folder, tmp_path / name) for name in ("a", "b")]
    done = run_program("light_commands.py", *copies)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "--help",
        "settings numpy",
        "report numpy rich",
        "compare numpy rich",
    ]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="tells glibc what to keep")
def test_a_command_reuses_freed_memory_unless_the_user_says_otherwise() -> None:
    pages = 4 * (24 << 20) // resource.getpagesize()
    for environment, kept in (({}, True), ({"MALLOC_TOP_PAD_": "0"}, False)):
        done = run_program("page_faults.py", env=ENVIRONMENT | environment)
        before, after = map(int, done.stdout.split())
        assert before > 9 * pages
        assert (after < 2 * pages) == kept


def test_training_leaves_a_run_folder_a_table_and_a_picture(run: Run) -> None:
    names = {path.name for path in run.folder.iterdir()}
    assert names == {
        "checkpoints",
        "config.json",
        "evaluations",
        "events.jsonl",
        "latencies",
        "metrics.jsonl",
        "report",
        "start_check.json",
        "tensorboard",
        "transcripts",
    }
    assert [row["step"] for row in run.metrics] == [1, 2]
    assert matplotlib.image.imread(run.folder / "report" / "training.png").size
    page = (run.folder / "report" / "report.md").read_text(encoding="utf-8")
    assert "### Self resolution" in page
    assert "**The policy**" in page
    assert run.config.name == "tiny"


def test_a_log_has_a_line_a_step(trained: tuple[Run, str]) -> None:
    run, output = trained
    lines = [line for line in output.splitlines() if re.match(r"step \d+ of 2: ", line)]
    assert len(lines) == 2
    for line, row in zip(lines, run.metrics, strict=True):
        assert line.startswith(f"step {row['step']:.0f} of 2: accuracy ")
        for kind, key in (("alone", "accuracy/alone"), ("with help", "accuracy/helped")):
            assert (f"{row.get(key, 0):.2f} {kind}" in line) == (key in row)
        signal = f"groups with signal {row['groups_kept']:.0f} of {row['problems_used']:.0f}"
        assert f"; reward {row['reward']:.2f}; {signal}" in line
        assert re.search(r"; \d+\.\d s, about \d+ s left$", line)
    assert lines[1].endswith(" s, about 0 s left")
    assert "0:00:0" not in output  # no bar with its clock


def test_a_narrow_terminal_shows_the_count_beside_the_metrics() -> None:
    console = Console(width=80, force_terminal=True, file=StringIO(), color_system=None)
    with progress_bars(console, "{task.fields[metrics]}") as progress:
        show = step_display(progress, "run-1", 9, lambda row: "metric 0.12  " * 6, str)
        show(4, {})
        progress.refresh()
    assert isinstance(console.file, StringIO)
    shown = console.file.getvalue()
    assert re.search(r"run-1 .* 4/9 \S*0:00:0\d metric 0.12", shown)
    assert shown.rpartition("4/9")[2].count("metric 0.12") == 6


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (450, "7 min 30 s"), (7500, "2 h 5 min")],
)
def test_a_time_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_evaluating_a_run_gives_what_training_found(run: Run, tmp_path: Path) -> None:
    output = succeed("evaluate", run.folder, "--json", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    [report] = report["sets"].values()
    assert report == run.last_evaluation
    assert 'mean@2 (the paper\'s "Pass@2")' in output
    assert f"{report['mean_at_k']:.3f}" in output


def test_evaluating_a_model_takes_the_settings_given(
    tiny_model: Path, settings_without_model: list[str], tmp_path: Path
) -> None:
    more = as_options([*settings_without_model, "evaluation.samples_per_problem=3"])
    output = succeed("evaluate", tiny_model, *more, "--json", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    [report] = report["sets"].values()
    assert (report["samples_per_problem"], report["num_problems"]) == (3, 4)
    assert "mean@3" in output


def test_the_demo_compares_two_trainings(tiny_settings: list[str], tmp_path: Path) -> None:
    settings = [s for s in tiny_settings if not s.startswith("name=")]
    output = succeed("demo", *as_options([*settings, "steps=2"]), "--runs", tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["eapo-1", "eapo-self-exploratory-1"]
    assert "eapo-1 - eapo-self-exploratory-1" in output
    assert "mean@k, alone" in output
    assert "Help pays where right answers are too rare" in output
    assert (tmp_path / "eapo-1" / "comparison" / "report.md").is_file()
    eapo_run, alone = (Run.open(tmp_path / name) for name in names)
    assert eapo_run.metrics[0]["alone_rate"] < alone.metrics[0]["alone_rate"] == 1.0


@pytest.mark.slow
def test_a_demo_that_is_interrupted_leaves_two_runs_that_go_on(
    tiny_settings: list[str], tmp_path: Path
) -> None:
    settings = [s for s in tiny_settings if not s.startswith("name=")]
    endless = as_options([*settings, "steps=100000", "checkpoint_every=1"])
    names = ["eapo-1", "eapo-self-exploratory-1"]
    with started_forked("demo", *endless, "--runs", tmp_path) as demo:
        while not all(list((tmp_path / name).glob("checkpoints/step-*")) for name in names):
            assert demo.poll() is None, demo.communicate()
            time.sleep(0.05)
        demo.send_signal(signal.SIGINT)
        said, told = demo.communicate()
    assert (demo.returncode, "Traceback" in told) == (128 + signal.SIGINT, False), told
    for name in names:
        run = Run.open(tmp_path / name)
        assert f"eapo train --resume {run.folder}" in said
        assert run.checkpoints[-1].name == f"step-{len(run.metrics):06d}"


def processes_with(*arguments: str) -> list[int]:
    """Return the processes whose last arguments these are."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pid=,args="], capture_output=True, text=True)
    rows = [line.split() for line in listed.stdout.splitlines()]
    return [int(row[0]) for row in rows if row[-len(arguments) :] == list(arguments)]


@pytest.mark.slow
def test_a_demo_says_why_the_run_beside_stopped(tiny_settings: list[str], tmp_path: Path) -> None:
    settings = [s for s in tiny_settings if not s.startswith("name=")]
    beside = tmp_path / "eapo-self-exploratory-1"
    options = as_options([*settings, "steps=2"])
    with started_forked("demo", *options, "--runs", tmp_path) as demo:
        while not (pids := processes_with("--resume", str(beside))):
            assert demo.poll() is None, demo.communicate()
            time.sleep(0.01)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        _, told = demo.communicate()
    assert demo.returncode == 2
    assert f"eapo: {beside.name} stopped (status -9)" in told
    assert len(Run.open(tmp_path / "eapo-1").metrics) == 2


def test_a_report_of_several_runs(run: Run, tmp_path: Path) -> None:
    copy = shutil.copytree(run.folder, tmp_path / "copy")
    output = succeed("report", run.folder, copy, "--out", tmp_path / "both")
    assert "training steps" in output
    assert "+0.0" in output
    assert f"report: {tmp_path / 'both' / 'report.md'}" in output
    assert matplotlib.image.imread(tmp_path / "both" / "accuracy.png").size


def test_pretraining_makes_a_model(tmp_path: Path) -> None:
    settings = [
        "copying_steps=1",
        "arithmetic_steps=1",
        "format_steps=1",
        "noisy_steps=1",
        "batch_size=2",
        "demonstrator.step_error_rate=0.5",
    ]
    output = succeed("pretrain", tmp_path / "model", *as_options(settings))
    assert f"model: {tmp_path / 'model'}" in output
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_without_the_train_extra_the_error_says_how_to_install_it() -> None:
    done = run_program("without_modules.py", "torch", "rich", "pydantic", "--", "train")
    assert (done.returncode, done.stderr) == (0, "")
    told = {}
    for line in done.stdout.splitlines():
        status, module, error = line.split(maxsplit=2)
        told[module] = (status, error)
    assert told.keys() == {"torch", "rich", "pydantic"}
    for module, (status, error) in told.items():
        assert status == "2"
        assert error.startswith(f"eapo: No module named '{module}")
        assert error.endswith("'; install it with: pip install 'eapo[train]'")


def test_without_a_command_the_usage_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "usage: eapo" in capsys.readouterr().err


PLUGIN = """
import numpy as np

from eapo_agents.learning import CustomAlgorithm
from eapo_env.validation import UserError

def shapes():
    def advantages(rewards):
        return np.ones(2) + np.ones(3)
    return CustomAlgorithm(name="shapes", advantages=advantages, loss=None)

def refused():
    raise UserError("no algorithm today")
"""


@pytest.mark.parametrize(
    ("factory", "status", "message"),
    [
        ("shapes", 1, "ValueError: operands could not be broadcast together"),
        ("refused", 2, "eapo: no algorithm today\n"),
    ],
)
def test_a_bug_keeps_its_traceback_and_an_error_of_the_user_has_none(
    factory: str, status: int, message: str, tiny_settings: list[str], tmp_path: Path
) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN, encoding="utf-8")
    custom = ["algorithm.kind=python", f"algorithm.factory=plugin:{factory}"]
    options = as_options([*tiny_settings, *custom])
    done = eapo_forked("train", *options, "--runs", tmp_path / "runs", cwd=tmp_path)
    assert done.returncode == status, done.stderr
    assert message in done.stderr
    assert ("Traceback" in done.stderr) == ('plugin.py", line' in done.stderr) == (status == 1)
    if status == 1:
        assert "This was training step 1" in done.stderr
    else:
        assert done.stderr == message


NO_PROBLEMS = "evaluation.problems.source=none.jsonl"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--set", "sede=1"], "unknown setting 'sede': did you mean 'seed'?"),
        (["train", "embeded"], "unknown preset 'embeded': did you mean 'embedded'?"),
        (["train", "--resume", "HERE"], "HERE holds no run: there is no config.json in it"),
        (
            ["train", "--resume", "RUN", "--set", "seed=1"],
            "decide what is learned: seed is 0, not 1",
        ),
        (["train", "embedded", "--resume", "RUN"], "--resume takes the run's own settings"),
        (["train", "--resume", "RUN", "--runs", "HERE"], "own settings; not --runs HERE"),
        (["distill", "--resume", "RUN", "--lora", "4"], "own settings; not --lora 4"),
        (["distill", "--resume", "RUN", "--recording", "a.jsonl"], "not --recording a.jsonl"),
        (["cold-start", "embedded", "--resume", "RUN"], "own settings; not embedded"),
        (
            ["train", "nosuchpreset"],
            "unknown preset 'nosuchpreset'. There are embedded, demo, local, smollm2, one_gpu",
        ),
        (["train", "--set", "steps=abc"], "steps must be a whole number, not 'abc'"),
        (["train", "--set", "steps="], "steps must be a whole number, not ''"),
        (["train", "--set", "=3"], "unknown setting ''. `eapo settings` lists all"),
        (["train", "--set", ""], "a setting must be section.key=value, not ''"),
        (
            ["train", "--set", "learner.device=gpu", "--runs", "HERE"],
            "learner.device must be 'auto'",
        ),
        (
            ["distill", "--runs", "HERE", "--set", "learner.device=gpu", "--set", NO_PROBLEMS],
            "learner.device must be 'auto'",
        ),
        (["train", "--set", "trackers=paper"], "trackers.0.kind must be one of"),
        (["train", "--set", "seed"], "a setting must be section.key=value, not 'seed'"),
        (["train", "--set", "model.path=HERE", "--runs", "HERE"], "no model can be loaded"),
        (["train", "--runs", "RUN/config.json"], "cannot make a run folder in RUN/config.json"),
        (["evaluate", "HERE"], "no model can be loaded from 'HERE'"),
        (
            ["evaluate", "HERE/nothing", "--problems", "none.jsonl"],
            "no such run or model folder: HERE/nothing (a hub id is",
        ),
        (["evaluate", "nothing"], "no such run or model folder: nothing (a hub id is OWNER/NAME"),
        (["leap", "HERE/nothing"], "no such run or model folder: HERE/nothing"),
        (
            ["play", "--model", "HERE/nothing", "--problems", "none.jsonl"],
            "no such run or model folder: HERE/nothing",
        ),
        (["evaluate", "FRESH"], "the run FRESH has no checkpoint yet"),
        (["report", "HERE"], "HERE holds no run"),
        (["report", "RUN", "RUN/../tiny-1"], "the run RUN/../tiny-1 is named twice"),
        (["report", "FRESH"], "FRESH has no metrics yet"),
        (["report", "RUN", "--out", "RUN/config.json"], "File exists"),
        (["play", "--problems", "HERE/none.jsonl"], "none.jsonl"),
        (["play", "--turns", "0"], "turn_budget must be at least 1, not 0"),
        (["play", "--model", "HERE"], "no model can be loaded from 'HERE'"),
        (["workflow", "embedded", "recorded", "--recording", "HERE/no"], "no recording HERE/no"),
        (
            ["pretrain", "HERE", "--set", "demonstrator.step_error_rate=2"],
            "step_error_rate must be in [0, 1], not 2",
        ),
    ],
)
def test_errors_say_what_is_wrong(
    arguments: list[str],
    message: str,
    run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fresh = Run.create(run.config, tmp_path)
    places = {"HERE": str(tmp_path), "RUN": str(run.folder), "FRESH": str(fresh.folder)}

    def filled(text: str) -> str:
        for name, place in places.items():
            text = text.replace(name, place)
        return text

    assert main([filled(argument) for argument in arguments]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("eapo: ")
    assert errors.count("\n") == 1
    assert filled(message) in errors


@pytest.mark.parametrize("command", ["train", "demo", "distill"])
@pytest.mark.parametrize("setting", ["model.path=HERE", "problems.source=HERE/none.jsonl"])
def test_a_start_that_fails_leaves_no_run_folder(
    command: str, setting: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, setting = tmp_path / "runs", setting.replace("HERE", str(tmp_path))
    assert main([command, "--set", setting, "--runs", str(runs)]) == 2
    assert "eapo: no " in capsys.readouterr().err
    assert not runs.exists() or not any(runs.iterdir())


@pytest.mark.parametrize("command", [["distill"], ["cold-start", "embedded"]])
def test_a_recording_is_not_copied_for_a_model_that_is_not_there(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording, runs = tmp_path / "recording.jsonl", tmp_path / "runs"
    solution = Solution(problem="a", sample=0, expert="e", text="", status="unavailable")
    recording.write_text(json.dumps(asdict(solution)) + "\n", encoding="utf-8")
    there = ["--recording", str(recording), "--runs", str(runs)]
    assert main([*command, *there, "--set", f"model.path={tmp_path / 'none'}"]) == 2
    assert f"no such run or model folder: {tmp_path / 'none'}" in capsys.readouterr().err
    assert not runs.exists()


def test_a_run_that_somebody_wants_to_go_on_with_is_never_removed(run: Run, tmp_path: Path) -> None:
    config = replace(run.config, model=replace(run.config.model, path=str(tmp_path / "gone")))
    fresh = Run.create(config, tmp_path)
    assert main(["train", "--resume", str(fresh.folder)]) == 2
    assert Run.open(fresh.folder).config == config


def test_a_damaged_checkpoint_is_one_line(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Run(shutil.copytree(run.folder, tmp_path / "copy"))
    path = copy.checkpoints[-1] / "learner.pt"
    path.write_bytes(path.read_bytes()[:100])
    assert main(["train", "--resume", str(copy.folder)]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"eapo: the checkpoint {path.parent} is damaged")
    assert errors.count("\n") == 1


@pytest.mark.parametrize("command", ["serve-expert", "serve-policy"])
@pytest.mark.parametrize("options", [[], ["--port", "8001"]])
def test_what_follows_two_dashes_is_for_vllm(command: str, options: list[str]) -> None:
    for_vllm = ["--gpu-memory-utilization", "0.35", "--", "--seed", "1"]
    found = parsed([command, "some/model", *options, "--", *for_vllm])
    assert (found.model, found.options) == ("some/model", for_vllm)
    assert parsed([command, *options, "some/model"]).options == []


def test_other_commands_take_nothing_after_two_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(["settings", "--", "--seed", "1"])
    assert "unrecognized arguments: --seed 1" in capsys.readouterr().err


COUNTING = """
import pathlib

import torch


class Threads:
    def log(self, step, metrics):
        pathlib.Path("threads.txt").write_text(str(torch.get_num_threads()))

    def close(self):
        pass


def tracker(folder):
    return Threads()
"""


@pytest.mark.parametrize(("wanted", "used"), [({}, "1"), ({"OMP_NUM_THREADS": "2"}, "2")])
def test_a_small_model_is_computed_by_one_thread_unless_openmp_is_told_otherwise(
    wanted: dict[str, str], used: str, tiny_settings: list[str], tmp_path: Path
) -> None:
    (tmp_path / "counting.py").write_text(COUNTING)
    settings = [
        *tiny_settings,
        "steps=1",
        'trackers=[{"kind":"python","factory":"counting:tracker"}]',
    ]
    environment = {k: v for k, v in OF_THE_COMMAND.items() if k != "OMP_NUM_THREADS"} | wanted
    ran = eapo("train", "embedded", *as_options(settings), cwd=tmp_path, env=environment)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "threads.txt").read_text() == used
