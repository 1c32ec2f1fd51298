"""[edge] Metric trackers besides `metrics.jsonl`: TensorBoard, Weights & Biases, Trackio.

A tracker has two methods, `log` and `close`. The classes here are the entries of the setting
`trackers`; each builds a tracker for a run, which opens nothing before its first metrics.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from eapo_agents.factories import Factory

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


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

    def build(self, folder: Path) -> Tracker:
        """Return the tracker of the run in a folder."""
        return _TensorBoardTracker(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wandb:
    """Weights & Biases; its key comes from the environment, and `WANDB_MODE=offline` sends nothing.

    Args:
        project: the project that the run belongs to.
    """

    kind: Literal["wandb"] = "wandb"
    project: str = "eapo"

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

    def build(self, folder: Path) -> Tracker:
        """Return the tracker of the run in a folder."""
        return _TrackioTracker(self.project, folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonTracker(Factory):
    """A custom tracker: what `factory(folder, **arguments)` returns for a run folder."""

    kind: Literal["python"] = "python"
    factory: str

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
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # Discard what an earlier process recorded from this step on.
            self._writer = SummaryWriter(str(self._folder / "tensorboard"), purge_step=step)
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _WandbTracker:
    def __init__(self, project: str, folder: Path) -> None:
        self._project, self._folder = project, folder
        self._session: Any = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._session is None:
            import wandb

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


def _identity(folder: Path) -> str:
    """Return a name that another run folder of the same name does not share."""
    return f"{folder.name}-{folder.stat().st_ino}"


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config
