"""Train in processes, do to them what a plan says, resume them, and say how each one ended."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from forked import Forked

from tests.soak.faults import Engine, Fault
from tests.soak.invariants import Row, Session, Trained, allowed_statuses, read_rows
from tests.soak.servers import EXPERTS, ServePolicy, Server, serve_experts

PATIENCE_S = 180.0
"""A trainer that has not ended by then hangs."""
ORPHANS_S = 10.0
"""A process whose trainer is gone ends within this time."""
BATCH_TIMEOUT_S = 2.0
_POLL_S = 0.02
_BREAKER = {"max_failures": 5, "cooldown_s": 0.5}
_SMALL_BYTES = 20_000  # less than the weights of the tiny model, more than its other files


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """What trainings that follow one another share: the settings, the engine and the servers."""

    folder: Path
    settings: tuple[str, ...]
    engine: Engine
    experts: Server
    policy: Server

    @classmethod
    def open(cls, folder: Path, settings: Sequence[str], engine: Engine, model: Path) -> Lane:
        """Return a lane whose servers are not started yet."""
        folder.mkdir()
        return cls(
            folder=folder,
            settings=(*settings, f"model.path={model}"),
            engine=engine,
            experts=Server(folder / "experts", serve_experts),
            policy=Server(folder / "policy", ServePolicy(model)),
        )

    @property
    def servers(self) -> Sequence[Server]:
        """The servers that its trainings need."""
        return (self.experts, self.policy) if self.engine == "vllm-server" else (self.experts,)

    def cure(self) -> None:
        """Make all servers serve, and well."""
        for server in self.servers:
            server.start()

    def close(self) -> None:
        """Kill the servers."""
        for server in self.servers:
            server.kill()

    def all_settings(self) -> list[str]:
        """Return the settings of a training; one completion at a time decodes bit for bit."""
        served = [f'engine.base_urls=["{self.policy.root}"]', "engine.call_timeout_s=2"]
        own = served if self.engine == "vllm-server" else ["engine.max_batch=1"]
        experts = ["experts.kind=openai", self.endpoints]
        return [*self.settings, f"engine={self.engine}", *own, *experts]

    @property
    def endpoints(self) -> str:
        """The setting that names the experts' server."""
        endpoint = {"base_url": f"{self.experts.root}/v1", "models": EXPERTS, "breaker": _BREAKER}
        return f"experts.endpoints={json.dumps([endpoint])}"


def train(
    lane: Lane,
    name: str,
    faults: Sequence[Fault],
    until: float,
    reference: Sequence[Row] | None,
) -> Trained:
    """Return a training that has finished, in spite of the faults that came while it lasted.

    Args:
        until: the time (of `time.monotonic`) from which on no more faults come.
        reference: the rows to compare with; None takes its own.
    """
    folder = lane.folder / name
    (folder / "tmp").mkdir(parents=True)
    lane.cure()
    under_way = _Training(lane, folder, list(faults), until)
    sessions: list[Session] = []
    while not sessions or not _is_finished(sessions):
        sessions.append(under_way.session())
    under_way.cure_all()
    return Trained(
        run=under_way.run,
        temporary=folder / "tmp",
        sessions=tuple(sessions),
        reference=tuple(read_rows(under_way.metrics) if reference is None else reference),
    )


def _is_finished(sessions: Sequence[Session]) -> bool:
    """Return whether a training ended well, or as nothing explains: then it is not resumed."""
    last = sessions[-1]
    return last.status not in set[int]().union(*map(allowed_statuses, last.faults))


@dataclass
class _Training:
    lane: Lane
    folder: Path
    faults: list[Fault]
    until: float
    change: str = ""
    active: list[tuple[float, Fault]] = field(default_factory=list)

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "soak-1"

    @property
    def metrics(self) -> Path:
        return self.run / "metrics.jsonl"

    def session(self) -> Session:
        """Start the training, or resume it; return how it went once the process is gone."""
        before, config = self._steps_taken, self._config
        began = datetime.now(UTC)
        met = [fault for _, fault in self.active]
        process = self._started()
        try:
            stop_s = self._disturb(process, met)
            status = self._ended(process)
        finally:
            process.kill()
            process.wait()
        ended = datetime.now(UTC)
        return Session(
            began=began,
            ended=ended,
            faults=tuple(met),
            status=status,
            stderr=process.stderr.read(),
            steps_taken=self._steps_taken - before,
            changed=config not in ("", self._config),
            stop_s=stop_s,
            orphans=orphans_of(process.pid),
        )

    @property
    def _steps_taken(self) -> int:
        return _num_lines(self.metrics) + _num_lines(self.run / "superseded" / "metrics.jsonl")

    @property
    def _config(self) -> str:
        path = self.run / "config.json"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def _started(self) -> Forked:
        """Start the command; return once it has said what it does, or is gone."""
        if self._config:
            which, settings = ["--resume", str(self.run)], self._changes()
        else:  # nothing was computed yet, and the folder is gone
            which, settings = ["--runs", str(self.folder / "runs")], self.lane.all_settings()
        options = [part for setting in settings for part in ("--set", setting)]
        process = Forked(
            "-m",
            "eapo_agents.cli",
            "train",
            *which,
            *options,
            env=os.environ | {"TMPDIR": str(self.folder / "tmp")},
        )
        process.stdout.readline()
        return process

    def _changes(self) -> list[str]:
        """Return the settings to change; that of a server that moved until it is recorded."""
        change, self.change = self.change, ""
        if change == "experts.endpoints":
            self.lane.experts.move()
        moved = [] if self.lane.experts.root in self._config else [self.lane.endpoints]
        return [*moved, *([change] if change not in ("", "experts.endpoints") else [])]

    def _disturb(self, process: Forked, met: list[Fault]) -> float | None:
        """Do to a trainer what is due; return what a second Ctrl-C took, if there was one."""
        while self.faults:
            fault = self.faults[0]
            if not self._reached(process, fault.at_step):
                return None
            if not self._slept(process, fault.delay_s):
                return None
            met.append(self.faults.pop(0))
            self.change = fault.change
            if fault.target == "trainer":
                return self._signalled(process, fault)
            self._strike(process, fault)
        return None

    def _signalled(self, process: Forked, fault: Fault) -> float | None:
        match fault.kind:
            case "kill":
                process.kill()
            case "INT":
                process.send_signal(signal.SIGINT)
            case "TERM":
                process.send_signal(signal.SIGTERM)
            case _:
                process.send_signal(signal.SIGINT)
                if not self._slept(process, fault.lasts_s):
                    return None
                process.send_signal(signal.SIGINT)
                second = time.monotonic()
                self._ended(process)
                return time.monotonic() - second
        return None

    def _strike(self, process: Forked, fault: Fault) -> None:
        if fault.target == "disk":
            self._limit(process, self._room(fault.kind))
        else:
            server = self._server(fault)
            match fault.kind:
                case "kill":
                    server.kill()
                case "stop":
                    server.stop()
                case _:
                    server.behave(fault.how)
        self._add(fault)

    def _add(self, fault: Fault) -> None:
        """Add a fault to those of its target, which is cured once all of them are over."""
        others = [one for one in self.active if one[1].target != fault.target]
        together = [one for one in self.active if one[1].target == fault.target]
        until = max(time.monotonic() + fault.lasts_s, *(until for until, _ in together), 0.0)
        self.active = [*others, *((until, other) for _, other in together), (until, fault)]

    def _server(self, fault: Fault) -> Server:
        return self.lane.experts if fault.target == "experts" else self.lane.policy

    def _room(self, kind: str) -> int:
        """Return the largest size of a file on a disk so full."""
        match kind:
            case "nothing fits":
                return 0
            case "no checkpoint fits":
                return _SMALL_BYTES
            case _:
                return _size(self.metrics) + 100

    def _limit(self, process: Forked, num_bytes: int) -> None:
        limits = (num_bytes, resource.RLIM_INFINITY)
        with suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limits)

    def cure_all(self) -> None:
        """End all faults."""
        self.active.clear()
        self.lane.cure()

    def _cure(self, process: Forked) -> None:
        """End the faults that have lasted long enough."""
        now = time.monotonic()
        for until, fault in tuple(self.active):
            if now < until:
                continue
            self.active.remove((until, fault))
            if fault.target == "disk":
                self._limit(process, resource.RLIM_INFINITY)
            else:
                self._server(fault).start()

    def _reached(self, process: Forked, step: int) -> bool:
        return self._waited(process, lambda: _num_lines(self.metrics) >= step)

    def _slept(self, process: Forked, seconds: float) -> bool:
        until = time.monotonic() + seconds
        return self._waited(process, lambda: time.monotonic() >= until)

    def _waited(self, process: Forked, is_due: Callable[[], bool]) -> bool:
        """Wait, and cure meanwhile; return False if the process ended or the time is up."""
        until = min(time.monotonic() + PATIENCE_S, self.until)
        while process.poll() is None and time.monotonic() < until:
            if is_due():
                return True
            self._cure(process)
            time.sleep(_POLL_S)
        return False

    def _ended(self, process: Forked) -> int | None:
        """Return the exit status of a process; None if it had to be killed."""
        until = time.monotonic() + PATIENCE_S
        while process.poll() is None and time.monotonic() < until:
            self._cure(process)
            time.sleep(_POLL_S)
        return process.poll()


def _num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def orphans_of(session: int) -> tuple[str, ...]:
    """Return the commands of a session's processes that do not end by themselves; kill them."""
    until = time.monotonic() + ORPHANS_S
    while (left := _processes(lambda _, own: own == session)) and time.monotonic() < until:
        time.sleep(_POLL_S)
    for process in left:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return tuple(left.values())


def kill_descendants(ancestor: int) -> None:
    """Kill the processes that a process started, and those that they did."""
    for process in _processes(lambda parent, session: parent == ancestor):
        kill_descendants(process)
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _processes(chosen: Callable[[int, int], bool]) -> dict[int, str]:
    """Return the live processes that are chosen by parent and session, and their commands."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, parent, _, session, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
            if chosen(int(parent), int(session)) and state != "Z":
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(folder.name)] = command.decode("utf-8", "replace")
    return found
