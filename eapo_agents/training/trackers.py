"""[edge] Metric trackers besides `metrics.jsonl`: TensorBoard, Weights & Biases, Trackio.

A tracker has two methods, `log` and `close`. The classes here are the entries of the setting
`trackers`; each checks that its tracker can work, and builds one for a run, which opens nothing
before its first metrics.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from eapo_agents._lazy import install_command
from eapo_agents.factories import Factory, found
from eapo_agents.files import writing
from eapo_env.validation import UserError


class Tracker(Protocol):
    """Logs the metrics of each training step."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of a step; steps increase, except when a run is resumed."""

    def close(self) -> None:
        """Flush and close; called once, also after an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorBoard:
    """Event files in the run folder, for `tensorboard --logdir RUN`."""

    kind: Literal["tensorboard"] = "tensorboard"

    def check(self) -> None:
        """Check that the package is there; a `UserError` names the extra that installs it."""
        _check_installed("tensorboard")

    def build(self, folder: Path) -> Tracker:
        """Return the tracker of the run in a folder."""
        return _TensorBoardTracker(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wandb:
    """Weights & Biases; it needs `wandb login` or `WANDB_API_KEY`, unless `WANDB_MODE=offline`.

    Args:
        project: the project that the run belongs to.
    """

    kind: Literal["wandb"] = "wandb"
    project: str = "eapo"

    def check(self) -> None:
        """Log in, unless Weights & Biases is offline or disabled; a terminal is asked for the key.

        Raises:
            UserError: the package is missing, there is no key, or the server refuses it.
        """
        _check_installed("wandb")
        import wandb

        if wandb.setup().settings.mode in ("online", "shared"):
            with _refusals():
                wandb.login(verify=True)

    def build(self, folder: Path) -> Tracker:
        """Return the tracker of the run in a folder."""
        return _WandbTracker(self.project, folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trackio:
    """Trackio: local files in `TRACKIO_DIR`, for `trackio show`.

    Args:
        project: the project that the run belongs to.
    """

    kind: Literal["trackio"] = "trackio"
    project: str = "eapo"

    def check(self) -> None:
        """Check that the package is there; a `UserError` names the extra that installs it."""
        _check_installed("trackio")

    def build(self, folder: Path) -> Tracker:
        """Return the tracker of the run in a folder."""
        return _TrackioTracker(self.project, folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonTracker(Factory):
    """A custom tracker: what `factory(folder, **arguments)` returns for a run folder."""

    kind: Literal["python"] = "python"
    factory: str

    def check(self) -> None:
        """Check that something callable is found under the factory's name, as `build` does."""
        found(self.factory, "eapo.trackers")

    def build(self, folder: Path) -> Tracker:
        """Return the tracker of the run in a folder.

        Raises:
            UserError: nothing callable is found under the factory's name.
        """
        tracker: Tracker = self.make("eapo.trackers", folder)
        return tracker


TrackerSettings = TensorBoard | Wandb | Trackio | PythonTracker
"""One entry of the setting `trackers`, distinguished by `kind`."""


class _TensorBoardTracker:
    """Appends a step at a time: TensorBoard's own writer is a thread, and fails where none sees."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "tensorboard"
        self._path: Path | None = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=x) for name, x in metrics.items()]
        events = [Event(step=step, summary=Summary(value=values))]
        if self._path is None:
            self._path = self._folder / f"events.out.tfevents.{time.time_ns():020d}.{os.getpid()}"
            # Discard what an earlier process recorded from this step on.
            start = Event(step=step, session_log=SessionLog(status=SessionLog.START))
            events = [Event(file_version="brain.Event:2"), start, *events]
        self._append(self._path, events)

    def _append(self, path: Path, events: Sequence[Any]) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        with writing(path), path.open("ab") as file:
            for event in events:
                event.wall_time = time.time()
                RecordWriter(file).write(event.SerializeToString())

    def close(self) -> None:
        """Do nothing: every step is in its file."""


class _WandbTracker:
    def __init__(self, project: str, folder: Path) -> None:
        self._project, self._folder = project, folder
        self._session: Any = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._session is None:
            import wandb

            with _refusals():
                self._session = wandb.init(
                    project=self._project,
                    name=self._folder.name,
                    id=_identity(self._folder),
                    resume="allow",
                    dir=str(self._folder),
                    config=_config(self._folder),
                )
        self._session.log(dict(metrics), step=step)

    def close(self) -> None:
        if self._session is not None:
            self._session.finish()


class _TrackioTracker:
    def __init__(self, project: str, folder: Path) -> None:
        self._project, self._folder = project, folder
        self._session: Any = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._session is None:
            import trackio

            self._session = trackio.init(
                project=self._project,
                name=_identity(self._folder),
                resume="allow",
                config=_config(self._folder),
                embed=False,
            )
        self._session.log(dict(metrics), step=step)

    def close(self) -> None:
        if self._session is not None:
            self._session.finish()


def _check_installed(package: str) -> None:
    """Raise a `UserError` without the package; it names the extra that installs it."""
    try:
        import_module(package)
    except ModuleNotFoundError as error:
        command = install_command(error)
        if command is None:
            raise
        raise UserError(
            f"the tracker {package!r} needs {error.name}; install it with: {command}"
        ) from error


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what Weights & Biases refuses, such as a run without a key, into a `UserError`."""
    import wandb

    try:
        yield
    except wandb.Error as error:
        raise UserError(f"the tracker 'wandb': {' '.join(str(error).split())}") from error


def _identity(folder: Path) -> str:
    """Return a name that another run folder of the same name does not share."""
    return f"{folder.name}-{folder.stat().st_ino}"


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config
