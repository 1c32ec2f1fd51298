"""The run folder: config, metrics, transcripts, evaluations and checkpoints of a training run.

    config.json             every setting
    metrics.jsonl           one line a training step; step 0 is an evaluation before the first
    events.jsonl            starts, resumptions, interruptions, errors, with time and step
    start_check.json        how closely sampler and learner agreed at the last start, in nats
    tensorboard/            the same, for TensorBoard
    transcripts/            episodes as text and data, one file per recorded step
    latencies/              the seconds that each expert's reply took, beside each transcript
    evaluations/            every sample's verdict of each evaluation; each problem's first episode
    checkpoints/step-000100 the model in Hugging Face format, the optimiser (of several processes in
                            parts, `shards/`), the position
    report/                 tables, pictures, example transcripts (written by `report.py`)
    superseded/             what was recorded after a checkpoint from which the run was resumed

Checkpoints are written atomically (`files.py`).
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain, count
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eapo_agents.evaluation import Evaluation, evaluation_in, report_in
from eapo_agents.files import (
    remove_folder,
    remove_unfinished,
    write_folder,
    write_json_lines,
    write_text,
)
from eapo_agents.training.config import TrainConfig
from eapo_agents.training.model_defaults import fitted_to_model
from eapo_agents.training.resumption import Changes, changed_settings
from eapo_env.json_lines import JsonLines
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from eapo_agents.learning import PolicyCheck

Metrics = Mapping[str, float]

_INITIAL_FILES = ("config.json", "metrics.jsonl")
"""The files of a run folder before anything is computed; beside them there may be others."""
_EVENTS, _START_CHECK = "events.jsonl", "start_check.json"
_BEFORE_THE_FIRST_STEP = (_EVENTS, _START_CHECK)
_LONGEST_ERROR = 1000
"""Characters of an error in `_EVENTS`."""


@dataclass(frozen=True)
class Run:
    """An existing run folder; `Run.create` makes a new one, `Run.open` finds an old one."""

    folder: Path

    @classmethod
    def create(cls, config: TrainConfig, root: str | PathLike[str]) -> Run:
        """Return a new run in the first free `root/NAME-N`: its config, and no steps yet.

        Raises:
            UserError: the folder cannot be created.
        """
        root = Path(root)
        try:
            root.mkdir(parents=True, exist_ok=True)
            folder = next(filter(_made, (root / f"{config.name}-{n}" for n in count(1))))
            write_text(folder / "config.json", config.to_json())
            (folder / "metrics.jsonl").touch()
        except OSError as error:
            raise UserError(f"cannot make a run folder in {root}: {error}") from error
        return cls(folder)

    @classmethod
    def exists(cls, folder: str | PathLike[str]) -> bool:
        """Return whether a folder holds a run."""
        return all(Path(folder, name).is_file() for name in _INITIAL_FILES)

    @classmethod
    def open(cls, folder: str | PathLike[str]) -> Run:
        """Return the run in a folder.

        Raises:
            UserError: the folder holds no run.
        """
        if not Path(folder, "config.json").is_file():
            raise UserError(f"{folder} holds no run: there is no config.json in it")
        return cls(Path(folder))

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def config(self) -> TrainConfig:
        """The settings of the run, as they are now."""
        return TrainConfig.read(self.folder / "config.json")

    @property
    def has_begun(self) -> bool:
        """Whether a training step has been recorded, or a checkpoint written."""
        return bool(self.metrics or self.checkpoints)

    def adopt(self, config: TrainConfig) -> None:
        """Record the config that the run is trained with from now on, and what it changes.

        Raises:
            UserError: as `changes_by`.
        """
        changes = self.changes_by(config)
        remove_unfinished(self.folder)
        if config != self.config:
            write_text(self.folder / "config.json", config.to_json())
        if changes:
            steps = [int(row["step"]) for row in self.metrics]
            self.record_event("changed", max(steps, default=0), settings=changes)

    def changes_by(self, config: TrainConfig) -> Changes:
        """Return the settings that a resumption with this config changes; none before the run.

        Raises:
            UserError: the run has begun, and the config differs in what decides what is learned, or
                its `steps` are fewer than the run has done.
        """
        if not self.has_begun:
            return {}
        changes = changed_settings(fitted_to_model(self.config), fitted_to_model(config))
        done = _step(self.checkpoints[-1]) if self.checkpoints else 0
        if config.steps < done:
            raise UserError(f"the run has done {done} steps; it cannot end after {config.steps}")
        return changes

    @property
    def events(self) -> list[dict[str, Any]]:
        """What happened to the run, in order: `event`, `time` (UTC), `step`, and more of some."""
        return [row for row in self._events_file.read() if isinstance(row, dict)]

    def has_finished(self, step: int) -> bool:
        """Return whether it is recorded that the run finished with this step."""
        return ("finished", step) in [(event["event"], event["step"]) for event in self.events]

    def record_event(self, event: str, step: int, **more: Any) -> None:
        """Append an event."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._events_file.append({"time": time, "event": event, "step": step, **more})

    @property
    def _events_file(self) -> JsonLines:
        return JsonLines(self.folder / _EVENTS)

    @property
    def metrics(self) -> list[dict[str, float]]:
        """The recorded metrics, a mapping per training step, in order.

        Raises:
            UserError: an invalid line; a last line that a crash truncated is ignored.
        """
        rows = self._metrics_file.read_with_places()
        for place, row in rows:
            if not _is_metrics(row):
                raise UserError(f"{place} holds no step's metrics: {row!r:.80}")
        return [row for _, row in rows]

    @property
    def _metrics_file(self) -> JsonLines:
        return JsonLines(self.folder / "metrics.jsonl")

    def record_check(self, step: int, gaps: Mapping[str, float], policy: PolicyCheck) -> None:
        """Write the outcome of the check before the first step, at a start or a resumption.

        Raises:
            UserError: the run goes on, and the ids of a prompt are no longer those of its start.
        """
        path = self.folder / _START_CHECK
        check = {
            "step": step,
            "mean_gap_nats": {**gaps, "rows": policy.rows_gap},
            "ends_of_turn": policy.ends,
            "prompt": policy.prompt,
        }
        if step and path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))["prompt"]
            if before != policy.prompt:
                raise UserError(
                    "the chat template or the tokenizer gives other prompts than at the run's"
                    f" start: go on with the versions that began it, or delete {path}"
                )
        write_text(path, json.dumps(check) + "\n")

    def record(self, step: int, metrics: Metrics) -> None:
        """Append a step's metrics."""
        self._metrics_file.append({"step": step, **metrics})

    def record_transcripts(self, step: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write a step's episodes, one JSON object a line."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_text(self.folder / "transcripts" / f"step-{step:06d}.jsonl", text)

    def record_latencies(self, step: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write the latencies of a step's expert replies, a line for each of its transcripts."""
        write_json_lines(self.folder / "latencies" / f"step-{step:06d}.jsonl", rows)

    def record_evaluation(self, step: int, report: Mapping[str, Any]) -> None:
        """Write a step's evaluation, every sample's verdict included."""
        path = self.folder / "evaluations" / f"step-{step:06d}.json"
        write_text(path, json.dumps(report) + "\n")

    def record_evaluated(self, step: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write episodes of a step's evaluation, one JSON object a line."""
        write_json_lines(self.folder / "evaluations" / f"step-{step:06d}.jsonl", rows)

    @property
    def last_evaluation(self) -> dict[str, Any] | None:
        """The newest evaluation; None before the first."""
        files = list(self.evaluations.values())
        return json.loads(files[-1].read_text(encoding="utf-8")) if files else None

    @property
    def evaluations(self) -> dict[int, Path]:
        """The files of the evaluations by training step, in order."""
        return _by_step(self.folder / "evaluations", "step-*.json")

    @property
    def evaluated(self) -> dict[int, Path]:
        """The files of the evaluations' episodes by training step, in order."""
        return _by_step(self.folder / "evaluations", "step-*.jsonl")

    @property
    def transcripts(self) -> dict[int, Path]:
        """The files of the transcripts by training step, in order."""
        return _by_step(self.folder / "transcripts", "step-*.jsonl")

    @property
    def latencies(self) -> dict[int, Path]:
        """The files of the latencies by training step, in order."""
        return _by_step(self.folder / "latencies", "step-*.jsonl")

    @property
    def checkpoints(self) -> list[Path]:
        """The complete checkpoints, oldest first."""
        return sorted(p for p in (self.folder / "checkpoints").glob("step-*") if p.is_dir())

    def save(self, step: int, write: Callable[[Path], None]) -> Path:
        """Return the new checkpoint of a step, which `write` fills; prune the oldest ones.

        Raises:
            UserError: it cannot be written; earlier checkpoints are unchanged.
        """
        place = self.folder / "checkpoints" / f"step-{step:06d}"
        write_folder(place, write, mode=(self.folder / "config.json").stat().st_mode)
        for old in self.checkpoints[: -self.config.keep_checkpoints]:
            remove_folder(old)
        return place

    def rewind(self, step: int) -> int:
        """Move what was recorded after a step to `superseded/`; return the number of its steps."""
        rows = self.metrics
        late = [row for row in rows if row["step"] > step]
        aside = self.folder / "superseded"
        if late:
            aside.mkdir(exist_ok=True)
            JsonLines(aside / self._metrics_file.path.name).append(*late)
        write_json_lines(self._metrics_file.path, [row for row in rows if row["step"] <= step])
        for recorded in (self.transcripts, self.latencies, self.evaluations, self.evaluated):
            for number, path in recorded.items():
                if number > step:
                    place = _free(aside / path.relative_to(self.folder))
                    place.parent.mkdir(parents=True, exist_ok=True)
                    path.replace(place)
        return len(late)

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Hold the lock for training in this folder; it ends with the process.

        Raises:
            UserError: another process holds it.
        """
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            _lock(handle, self.folder)
            yield
        finally:
            os.close(handle)

    @contextmanager
    def removed_if_unused(self) -> Iterator[None]:
        """Remove the folder of a run that fails before it has computed anything."""
        try:
            yield
        except BaseException:
            if self._is_untouched:
                for name in (*_INITIAL_FILES, *_BEFORE_THE_FIRST_STEP):
                    (self.folder / name).unlink(missing_ok=True)
                self.folder.rmdir()
            raise

    @property
    def _is_untouched(self) -> bool:
        names = {path.name for path in self.folder.iterdir()}.difference(_BEFORE_THE_FIRST_STEP)
        return names == set(_INITIAL_FILES) and not self.metrics

    @contextmanager
    def annotate_errors(self, step: int) -> Iterator[None]:
        """Record an error, and add to it its step and, if any, where the run can resume."""
        try:
            yield
        except KeyboardInterrupt:
            self.record_event("stopped", step)
            raise
        except Exception as error:
            with suppress(UserError):  # the disk may be full
                self.record_event("failed", step, error=repr(error)[:_LONGEST_ERROR])
            newest = self.checkpoints[-1].name if self.checkpoints else "its start"
            rest = "" if self._is_untouched else f"; {self.folder} can be resumed from {newest}"
            error.add_note(f"This was training step {step}{rest}")
            raise


def model_config(path: str, preset: TrainConfig) -> TrainConfig:
    """Return the config of a run with its newest checkpoint, or the preset with another model.

    Raises:
        UserError: the run has no checkpoint yet.
    """
    folder = Path(path)
    if not Run.exists(folder):
        return replace(preset, model=replace(preset.model, path=path))
    run = Run.open(folder)
    if not run.checkpoints:
        raise UserError(f"the run {path} has no checkpoint yet")
    return replace(run.config, model=replace(run.config.model, path=str(run.checkpoints[-1])))


def _is_metrics(row: object) -> bool:
    return (
        isinstance(row, dict)
        and isinstance(row.get("step"), int)
        and all(isinstance(value, int | float) for value in row.values())
    )


def _by_step(folder: Path, pattern: str) -> dict[int, Path]:
    return dict(sorted((_step(path), path) for path in folder.glob(pattern)))


def _step(path: Path) -> int:
    number = path.stem.removeprefix("step-")
    if not number.isdecimal():
        raise UserError(f"{path} names no training step: {number!r} is not a number")
    return int(number)


def _free(path: Path) -> Path:
    """Return the path, or `stem_2.suffix`, `stem_3.suffix`, ... if there are such files."""
    others = (path.with_stem(f"{path.stem}_{n}") for n in count(2))
    return next(place for place in chain([path], others) if not place.exists())


def _made(folder: Path) -> bool:
    """Make a folder; return whether it is new."""
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def _lock(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"another process is training in {folder}") from None


def read_evaluation(path: str | PathLike[str]) -> Evaluation:
    """Return the evaluation in a JSON file, also one of a run's, or the newest one in a run folder.

    Raises:
        UserError: there is none, or the file holds no evaluation.
    """
    path = Path(path)
    if path.is_dir():
        _refuse_folder_of_evaluations(path)
        return run_evaluation(Run.open(path))
    if path.parent.name == "evaluations" and Run.exists(path.parents[1]):
        run = Run.open(path.parents[1])
        return _evaluation_of(run, f"{run.name} at step {_step(path)}", path)
    return evaluation_in(path)


def _refuse_folder_of_evaluations(folder: Path) -> None:
    files = sorted(str(path) for path in folder.glob("*.json"))
    if files and str(folder / "config.json") not in files:
        raise UserError(f"{folder} is no run folder; name the evaluations in it: {' '.join(files)}")


def run_evaluation(run: Run) -> Evaluation:
    """Return the newest evaluation of a run.

    Raises:
        UserError: the run has none yet, or its file holds no evaluation.
    """
    paths = list(run.evaluations.values())
    if not paths:
        raise UserError(f"{run.folder} has no evaluation yet")
    return _evaluation_of(run, run.name, paths[-1])


def _evaluation_of(run: Run, name: str, path: Path) -> Evaluation:
    return Evaluation(name=name, reports={run.config.evaluation.problems.label: report_in(path)})
