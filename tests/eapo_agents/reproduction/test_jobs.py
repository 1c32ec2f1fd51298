"""The miniature reproduction runs for real on tiny experiments: in parallel, and interrupted."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from forked import Forked
from programs import PROGRAMS

from eapo_agents.cli import main
from eapo_agents.methods.leap import LeapSettings
from eapo_agents.reproduction.experiment_kinds import (
    BaseModelExperts,
    Distill,
    Evaluate,
    Experiment,
    RunLeap,
    Train,
)
from eapo_agents.reproduction.jobs import ENDED, Job, make_base_models, open_jobs, run_jobs
from eapo_agents.reproduction.results import Result, read_results
from eapo_env.annealing import Annealing
from eapo_env.types import Rules

pytestmark = pytest.mark.slow

TRAINED = Train(
    name="trained", num_seeds=1, annealing=Annealing(schedule="ours_linear", turn_budget=2)
)
EVALUATED = Evaluate(name="evaluated", num_seeds=2, rules=Rules(turn_budget=2))


@pytest.fixture(scope="module")
def settings(tiny_settings: list[str]) -> list[str]:
    """The tiny run's settings, without the model: experiments have their own base model."""
    given = [setting for setting in tiny_settings if not setting.startswith(("name", "model"))]
    return [*given, "steps=12"]


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Path:
    return with_base(tmp_path / "runs", tiny_model)


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, settings: list[str]
) -> Path:
    """A folder in which the tiny experiments have run."""
    folder = with_base(tmp_path_factory.mktemp("undisturbed"), tiny_model)
    jobs = jobs_in(folder, settings, TRAINED, EVALUATED)
    assert [job.name for job in jobs] == ["trained seed 0", "evaluated seed 0", "evaluated seed 1"]
    make_base_models(jobs, lambda base_model: None)
    told: list[tuple[str, int]] = []
    assert run_jobs(jobs, at_once=2, on_step=lambda job, step: told.append((job.name, step)))
    steps = [step for name, step in told if name == "trained seed 0"]
    assert steps == [*range(1, 13), ENDED]
    return folder


def with_base(folder: Path, model: Path) -> Path:
    shutil.copytree(model, folder / "bases" / "slip-0.50")
    return folder


def jobs_in(folder: Path, settings: list[str], *experiments: Experiment) -> list[Job]:
    return open_jobs(experiments, num_seeds=None, folder=str(folder), settings=settings)


def test_experiments_run_in_parallel_and_leave_their_results(
    undisturbed: Path, settings: list[str]
) -> None:
    results = read_results(undisturbed / "results")
    assert {name: [run.seed for run in runs] for name, runs in results.items()} == {
        "trained": [0],
        "evaluated": [0, 1],
    }
    (trained,) = results["trained"]
    assert trained.samples_per_problem == 2
    assert len(trained.correct_P) == 4
    assert [step for step, _ in trained.curves["acceptance_rate"]] == list(range(1, 13))
    assert trained.settings == tuple(settings)
    assert [len(run.greedy_P) for run in (trained, *results["evaluated"])] == [4, 4, 4]
    assert results["evaluated"][0].response_tokens != results["evaluated"][1].response_tokens
    assert jobs_in(undisturbed, settings, TRAINED, EVALUATED) == [], "a result is not made again"


def test_copies_of_the_base_model_are_experts_of_a_training(
    folder: Path, settings: list[str]
) -> None:
    experiment = replace(TRAINED, name="copies", experts=BaseModelExperts())
    settings = [one for one in settings if not one.startswith("experts")]
    (job,) = jobs_in(folder, settings, experiment)
    results = []
    for _again in range(2):  # the second takes up the ended training
        job.run(lambda step: None)
        (result,) = read_results(folder / "results")["copies"]
        results.append(replace(result, machine=""))
        shutil.rmtree(folder / "results")
    assert results[0] == results[1]
    assert len(results[0].greedy_P) == 4


def test_leap_is_an_experiment_like_any_other(folder: Path, settings: list[str]) -> None:
    leap = LeapSettings(paths=2, block_tokens=2, peers=1)
    (job,) = jobs_in(folder, settings, RunLeap(name="leap", num_seeds=1, leap=leap))
    job.run(lambda step: None)
    (result,) = read_results(folder / "results")["leap"]
    assert (len(result.correct_P), result.samples_per_problem) == (4, 2)
    assert result.response_tokens > 2


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_a_distillation_is_an_experiment_like_any_other(
    folder: Path, settings: list[str], lora_rank: int
) -> None:
    experiment = Distill(name="distilled", num_seeds=1, lora_rank=lora_rank)
    for section, number in (("problems", 16), ("evaluation.problems", 3)):
        settings = [s for s in settings if not s.startswith(f"{section}.source")]
        settings += [f"{section}.num_problems={number}", f"{section}.brackets=1"]
    settings += ["distillation.batch_size=4", "steps=2", "checkpoint_every=1"]
    (job,) = jobs_in(folder, settings, experiment)
    job.run(lambda step: None)
    (result,) = read_results(folder / "results")["distilled"]
    assert len(result.correct_P) == 3
    assert [step for step, _ in result.curves["alone/mean_at_k"]] == [2]


def test_an_interrupted_run_resumes(folder: Path, undisturbed: Path, settings: list[str]) -> None:
    """SIGTERM comes to this process, which passes it on to that of the run."""

    def interrupt(job: Job, step: int) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    jobs = jobs_in(folder, settings, TRAINED)
    assert not run_jobs(jobs, at_once=1, on_step=interrupt)
    checkpoints = folder / "runs" / "trained" / "seed-0" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] != ["step-000012"], "it did not end"
    assert_resumes(folder, undisturbed, settings)


def test_a_killed_run_resumes(folder: Path, undisturbed: Path, settings: list[str]) -> None:
    metrics = folder / "runs" / "trained" / "seed-0" / "metrics.jsonl"
    with Forked(PROGRAMS / "train_seed.py", folder, json.dumps(settings)) as process:
        while not (metrics.exists() and metrics.read_text().count("\n") > 2):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.kill()
    assert_resumes(folder, undisturbed, settings)


def test_a_ctrl_c_reaches_the_run_once(
    folder: Path, undisturbed: Path, settings: list[str]
) -> None:
    """A terminal sends it to every process of the group."""
    run = folder / "runs" / "trained" / "seed-0"
    command = [sys.executable, str(PROGRAMS / "train_seed.py"), str(folder), json.dumps(settings)]
    with subprocess.Popen(command, start_new_session=True) as process:
        while not ((run / "metrics.jsonl").exists() and (run / "metrics.jsonl").read_text()):
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait() == 1
    assert '"interrupted"' in (run / "events.jsonl").read_text()
    assert_resumes(folder, undisturbed, settings)


def assert_resumes(folder: Path, undisturbed: Path, settings: list[str]) -> None:
    for job in jobs_in(folder, settings, TRAINED):
        job.run(lambda step: None)
    (one,), (other,) = (
        read_results(place / "results")["trained"] for place in (folder, undisturbed)
    )
    assert without_times(one) == without_times(other)


def without_times(result: Result) -> Result:
    return replace(result, seconds=0.0)


def test_a_run_with_what_the_model_decides_and_a_baseline_is_resumed(
    folder: Path, settings: list[str]
) -> None:
    given = [one for one in settings if not one.startswith(("rollout.wording", "learner.learning"))]
    given += ["rollout.wording=auto", "learner.learning_rate=null", "evaluation.baseline=evaluated"]
    seconds = []
    for _again in range(2):  # the second takes up the ended training
        (job,) = jobs_in(folder, given, TRAINED)
        job.run(lambda step: None)
        seconds.append(read_results(folder / "results")["trained"][0].seconds)
        shutil.rmtree(folder / "results")
    assert seconds[0] == seconds[1] > 0


def test_a_run_of_other_settings_is_not_resumed(folder: Path, settings: list[str]) -> None:
    place = folder / "runs" / "trained" / "seed-0"
    place.mkdir(parents=True)
    (job,) = jobs_in(folder, settings, TRAINED)
    other = replace(job.config, steps=3)
    (place / "config.json").write_text(other.to_json(), encoding="utf-8")
    with pytest.raises(ValueError, match="a run of other settings; delete it to start again"):
        job.run(lambda step: None)
    with pytest.raises(ValueError, match=r"runs failed: trained seed 0 \(exit status 1\)"):
        run_jobs([job], at_once=1, on_step=lambda job, step: None)


def test_results_of_other_settings_are_refused(tmp_path: Path) -> None:
    RESULT.write(tmp_path / "results")
    with pytest.raises(ValueError, match=r"the settings \[\], not \['steps=2'\]"):
        jobs_in(tmp_path, ["steps=2"], replace(TRAINED, name=RESULT.experiment))


@pytest.mark.parametrize(("num_seeds", "at_once"), [(0, 1), (1, 0)])
def test_numbers_below_1_are_refused(tmp_path: Path, num_seeds: int, at_once: int) -> None:
    with pytest.raises(ValueError, match="must be at least 1, not 0"):
        run_jobs(
            open_jobs([TRAINED], num_seeds=num_seeds, folder=tmp_path),
            at_once=at_once,
            on_step=lambda job, step: None,
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jobs", "0"], "jobs must be at least 1, not 0"),
        (["--set", "nonsense=3"], "unknown setting 'nonsense'"),
        (["--set", "steps=many"], "steps must be a whole number"),
        (["--template", "nowhere.md"], "cannot read the template nowhere.md"),
    ],
)
def test_bad_input_is_reported_before_anything_is_made(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["reproduce", "--folder", str(tmp_path / "runs")]
    assert main([*command, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_command_runs_a_table_and_writes_the_report(
    folder: Path, settings: list[str], tmp_path: Path
) -> None:
    command = ["reproduce", "--study", "noise", "--table", "E", "--seeds", "1", "--jobs", "2"]
    command += ["--folder", str(folder)]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with contextlib.chdir(elsewhere):
        assert main([*command, *(f"--set={setting}" for setting in settings)]) == 0
    assert not list(elsewhere.iterdir()), "all is written into the folder"
    assert sorted(read_results(folder / "results")) == [
        "assisted",
        "assisted-erroneous",
        "assisted-meaningless",
    ]
    text = (folder / "results.md").read_text(encoding="utf-8")
    assert "| meaningless experts |" in text
    assert "`rollout.group_size=4`" in text, "changed settings are shown"
    (folder / "results.md").unlink()
    assert main(["reproduce", "--study", "noise", "--report", "--folder", str(folder)]) == 0
    assert (folder / "results.md").read_text(encoding="utf-8") == text
    template = tmp_path / "template.md"
    template.write_text("Mine: {{ missing_seeds }}", encoding="utf-8")
    assert main([*command[:3], "--report", *command[-2:], "--template", str(template)]) == 0
    assert (folder / "results.md").read_text(encoding="utf-8").startswith("Mine: **Not finished**")


def test_a_report_on_nothing_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", "--report", "--folder", str(tmp_path)]) == 2
    assert "holds no results: run `eapo reproduce` first" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--report"], ["--jobs", "1"]])
def test_the_results_of_another_study_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    replace(RESULT, experiment="eapo-two-turns").write(tmp_path / "results")
    command = ["reproduce", "--study", "noise", "--folder", str(tmp_path)]
    assert main([*command, *more]) == 2
    assert "of another study than 'noise': eapo-two-turns;" in capsys.readouterr().err


RESULT = Result(
    experiment="eapo",
    seed=0,
    samples_per_problem=2,
    correct_P=(0, 1, 2, 2),
    variance=0.125,
    response_tokens=20.0,
    curves={},
    seconds=3.0,
    commit="abc",
    machine="two cores",
)
