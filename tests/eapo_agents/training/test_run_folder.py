"""The run folder: what is whole, what a crash leaves behind, and going on from there."""

from __future__ import annotations

import json
import signal
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from programs import start_program

from eapo_agents.learning import PolicyCheck
from eapo_agents.training.config import TrainConfig
from eapo_agents.training.presets import embedded
from eapo_agents.training.run_folder import Run, model_config
from eapo_env.validation import UserError

CONFIG = replace(embedded(), name="some", keep_checkpoints=2)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(CONFIG, tmp_path / "runs")


def write_weights(folder: Path) -> None:
    (folder / "weights").write_text("whole", encoding="utf-8")


def names(run: Run) -> list[str]:
    return [path.name for path in run.checkpoints]


def test_runs_of_the_same_name_get_folders_of_their_own(tmp_path: Path) -> None:
    runs = [Run.create(CONFIG, tmp_path / "deep" / "runs") for _ in range(3)]
    assert [run.name for run in runs] == ["some-1", "some-2", "some-3"]
    assert {run.folder.parent for run in runs} == {tmp_path / "deep" / "runs"}


def test_a_run_that_is_opened_again_has_its_config(run: Run) -> None:
    assert Run.open(run.folder).config == CONFIG


def test_a_folder_may_be_a_text(tmp_path: Path) -> None:
    run = Run.create(CONFIG, f"{tmp_path}/runs")
    assert run.folder == tmp_path / "runs" / "some-1"
    assert Run.open(str(run.folder)) == run
    assert Run.exists(str(run.folder))
    assert not Run.exists(str(tmp_path))


def test_a_folder_without_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path} holds no run"):
        Run.open(tmp_path)
    with pytest.raises(ValueError, match="nowhere holds no run"):
        Run.open(tmp_path / "nowhere")


def test_a_place_where_no_folder_can_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing" / "there")
    for root in (tmp_path / "file", tmp_path / "file" / "runs", tmp_path / "dangling"):
        with pytest.raises(ValueError, match=f"cannot make a run folder in {root}"):
            Run.create(CONFIG, root)


# --- metrics


def test_metrics_are_read_as_they_were_recorded(run: Run) -> None:
    rows = [{"accuracy": 0.1 + 0.2, "loss": -1e-30}, {"accuracy": 1.0, "loss": 3.0}]
    for step, row in enumerate(rows, start=1):
        run.record(step, row)
    assert run.metrics == [{"step": step, **row} for step, row in enumerate(rows, start=1)]


def test_a_last_line_cut_short_by_a_crash_is_left_out(run: Run) -> None:
    path = run.folder / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo', encoding="utf-8")
    assert run.metrics == [{"step": 1, "loss": 2.0}]
    run.rewind(1)
    run.record(2, {"loss": 1.0})
    assert [row["step"] for row in run.metrics] == [1, 2]


def test_a_bad_line_before_the_last_is_an_error_with_its_place(run: Run) -> None:
    path = run.folder / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": \n{"step": 3}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=f"{path}, line 2 is not JSON"):
        _ = run.metrics


@pytest.mark.parametrize(
    "line", ["null", "5", "[]", '{"loss": 1.0}', '{"step": "1"}', '{"step": 2, "loss": null}']
)
def test_a_line_without_a_steps_numbers_is_an_error_with_its_place(run: Run, line: str) -> None:
    path = run.folder / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=f"{path}, line 2 holds no step's metrics: "):
        _ = run.metrics


def test_a_stray_file_among_the_evaluations_is_an_error_that_names_it(run: Run) -> None:
    run.record_evaluation(1, {})
    stray = run.folder / "evaluations" / "step-x.json"
    stray.write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=f"{stray} names no training step: 'x' is not a number"):
        _ = run.evaluations


def test_a_fresh_run_has_no_metrics(run: Run) -> None:
    assert (run.metrics, run.last_evaluation, run.checkpoints) == ([], None, [])


def test_rewinding_forgets_what_came_after(run: Run) -> None:
    for step in range(1, 6):
        run.record(step, {"loss": float(step)})
        run.record_transcripts(step, [{"step": step}])
        run.record_evaluation(step, {"mean_at_k": step / 10})
        run.record_evaluated(step, [{"step": step}])
    run.rewind(3)
    assert [row["step"] for row in run.metrics] == [1, 2, 3]
    transcripts = sorted(path.name for path in (run.folder / "transcripts").iterdir())
    assert transcripts == [f"step-00000{step}.jsonl" for step in (1, 2, 3)]
    assert run.last_evaluation == {"mean_at_k": 0.3}
    assert list(run.evaluated) == [1, 2, 3]


def test_transcripts_hold_any_text(run: Run) -> None:
    text = "√2 \0 \u2028 and a lone surrogate \ud800"
    run.record_transcripts(1, [{"reply": text}, {"reply": "next"}])
    lines = (run.folder / "transcripts" / "step-000001.jsonl").read_text("utf-8").split("\n")
    assert json.loads(lines[0]) == {"reply": text.replace("\ud800", "?")}
    assert json.loads(lines[1]) == {"reply": "next"}


# --- checkpoints


def test_only_the_newest_checkpoints_are_kept(run: Run) -> None:
    for step in (5, 10, 15):
        assert run.save(step, write_weights).name == f"step-{step:06d}"
    assert names(run) == ["step-000010", "step-000015"]
    everything = sorted(path.name for path in (run.folder / "checkpoints").iterdir())
    assert everything == names(run)


def test_a_checkpoint_that_fails_leaves_the_one_before(run: Run) -> None:
    run.save(5, write_weights)

    def fail(folder: Path) -> None:
        write_weights(folder)
        raise OSError("No space left on device")

    with pytest.raises(ValueError, match="No space"):
        run.save(10, fail)
    assert names(run) == ["step-000005"]
    run.save(10, write_weights)
    assert names(run) == ["step-000005", "step-000010"]
    assert len(list((run.folder / "checkpoints").iterdir())) == 2


def test_others_may_read_a_checkpoint_as_they_may_the_config(run: Run) -> None:
    def write(folder: Path) -> None:
        write_weights(folder)
        (folder / "weights").chmod(0o600)

    weights = run.save(1, write) / "weights"
    mode = (run.folder / "config.json").stat().st_mode
    assert stat.S_IMODE(weights.stat().st_mode) == stat.S_IMODE(mode)


def test_a_process_killed_while_saving_leaves_the_checkpoint_before(run: Run) -> None:
    with start_program("saving.py", run.folder) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "in the middle\n"
        child.kill()
    assert child.returncode == -signal.SIGKILL
    assert len(list((run.folder / "checkpoints").iterdir())) == 2, "one of them unfinished"
    assert names(run) == ["step-000001"]
    assert (run.checkpoints[-1] / "weights").read_text(encoding="utf-8") == "whole"
    run.save(2, write_weights)
    assert [path.name for path in sorted((run.folder / "checkpoints").iterdir())] == names(run)


# --- the settings around a model


def test_a_run_goes_on_without_what_an_interrupted_write_left(run: Run) -> None:
    (run.folder / ".unfinished-config.json").write_text('{"name"', encoding="utf-8")
    run.adopt(run.config)
    assert not list(run.folder.glob(".unfinished-*"))


def test_a_run_as_a_model_is_its_newest_checkpoint_with_its_own_settings(run: Run) -> None:
    preset = replace(embedded(), seed=77)
    (run.folder / "metrics.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        model_config(str(run.folder), preset)
    run.save(1, write_weights)
    newest = run.save(2, write_weights)
    found = model_config(str(run.folder), preset)
    assert found == replace(CONFIG, model=replace(CONFIG.model, path=str(newest)))


def test_any_other_model_takes_the_settings_of_the_preset(tmp_path: Path) -> None:
    preset: TrainConfig = replace(embedded(), seed=77)
    for path in ("embedded", "someone/a-model", str(tmp_path)):
        assert model_config(path, preset) == replace(preset, model=replace(preset.model, path=path))


# --- a start that fails


def failed(run: Run, step: int, left: Callable[[Run], object]) -> str:
    """Leave something in a run, and fail; return what the error has to say beside itself."""

    def fail() -> None:
        with run.removed_if_unused(), run.annotate_errors(step):
            left(run)
            raise ValueError("no such model")

    with pytest.raises(ValueError, match="no such model") as caught:
        fail()
    [note] = caught.value.__notes__
    return note


def test_a_run_that_fails_before_anything_is_computed_leaves_no_folder(run: Run) -> None:
    assert failed(run, 1, lambda run: None) == "This was training step 1"
    assert list(run.folder.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("left", "newest"),
    [
        (lambda run: run.record(1, {"loss": 0.5}), "its start"),
        (lambda run: run.save(1, write_weights), "step-000001"),
        (lambda run: (run.folder / "solutions.jsonl").touch(), "its start"),
    ],
)
def test_a_run_in_which_something_was_computed_stays(
    run: Run, left: Callable[[Run], object], newest: str
) -> None:
    assert (
        failed(run, 2, left)
        == f"This was training step 2; {run.folder} can be resumed from {newest}"
    )
    assert Run.open(run.folder).config == CONFIG


def test_what_ends_well_stays(run: Run) -> None:
    with run.removed_if_unused():
        pass
    assert Run.open(run.folder).metrics == []


def test_a_run_goes_on_only_with_the_prompts_it_began_with(run: Run) -> None:
    check = PolicyCheck(rows_gap=0.0, ends=("<end>",), prompt="one")
    run.record_check(0, {"layout": 1e-7}, check)
    run.record_check(2, {"layout": 1e-7}, check)
    written = json.loads((run.folder / "start_check.json").read_text())
    assert written == {
        "step": 2,
        "mean_gap_nats": {"layout": 1e-7, "rows": 0.0},
        "ends_of_turn": ["<end>"],
        "prompt": "one",
    }
    other = replace(check, prompt="two")
    with pytest.raises(UserError, match=r"other prompts than at the run's start.*start_check.json"):
        run.record_check(2, {}, other)
    (run.folder / "start_check.json").unlink()
    run.record_check(2, {}, other)
