"""Train for a while, let everything go wrong meanwhile, and see that nothing is lost.

    python -m tests.soak [--seconds 600] [--seed SEED]

Two trainings run at a time, one with the policy in process and one with a policy server. Each is
first trained undisturbed, and then again and again with faults; what must hold of each is in
`invariants.py`. The seed decides which faults come, at which step, and for how long; what a
training is doing at that moment is up to the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import mkdtemp

from tests.soak.driver import BATCH_TIMEOUT_S, Lane, kill_descendants, train
from tests.soak.faults import STEPS, Engine, Fault, plan
from tests.soak.invariants import Trained, violations
from tests.soak.servers import is_listening

ENGINES: tuple[Engine, ...] = ("hf", "vllm-server")
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "COLUMNS": "400"}


@dataclass
class Tally:
    """What was done and survived so far."""

    injected: Counter[str] = field(default_factory=Counter)
    survived: Counter[str] = field(default_factory=Counter)
    totals: Counter[str] = field(default_factory=Counter)
    violated: list[str] = field(default_factory=list)

    def add(self, trained: Trained) -> bool:
        """Check a training; return whether all invariants hold."""
        wrong = violations(trained)
        names = [fault.name for fault in _faults(trained)]
        self.injected.update(names)
        self.survived.update(() if wrong else names)
        self.totals.update(_totals(trained))
        self.violated += [f"{trained.run}: {one}" for one in wrong]
        print("\n    ".join([f"{trained.run}: {_in_brief(trained)}", *wrong]), flush=True)
        return not wrong

    def lines(self) -> Iterator[str]:
        """Yield the table."""
        yield f"{'fault':<28}{'injected':>10}{'survived':>10}"
        for name in sorted(self.injected):
            yield f"{name:<28}{self.injected[name]:>10}{self.survived[name]:>10}"
        yield f"{'all':<28}{self.injected.total():>10}{self.survived.total():>10}"
        yield "; ".join(f"{number} {what}" for what, number in self.totals.items())


def _in_brief(trained: Trained) -> str:
    return ", ".join(f"{number} {what}" for what, number in _totals(trained).items() if number)


def _faults(trained: Trained) -> Iterable[Fault]:
    """Return each fault once: one may last over several sessions."""
    return dict.fromkeys(fault for session in trained.sessions for fault in session.faults)


def _totals(trained: Trained) -> dict[str, int]:
    metrics = trained.metrics
    return {
        "trainings": 1,
        "steps": len(metrics),
        "steps taken back": len(trained.superseded),
        "steps with failed replies": sum(row.get("expert_failure_rate", 0) > 0 for row in metrics),
        "resumptions": sum(event["event"] == "resumed" for event in trained.events),
        "processes": len(trained.sessions),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Soak:
    """One run of the soak.

    Args:
        folder: for everything that is written.
        seconds: faults come for so long; then the trainings under way are finished.
        seed: of the faults.
    """

    folder: Path
    seconds: float
    seed: int

    def run(self) -> Tally:
        """Return what was done and survived."""
        tally, model, settings = Tally(), made_model(self.folder), made_settings(self.folder)
        lanes = [Lane.open(self.folder / name, settings, name, model) for name in ENGINES]
        with ThreadPoolExecutor(len(lanes)) as threads:
            try:
                references = list(threads.map(undisturbed, lanes))
                for reference in references:
                    tally.add(reference)
                until = time.monotonic() + self.seconds
                disturb = partial(self._disturbed, tally, until)
                list(threads.map(disturb, range(len(lanes)), lanes, references))
            except KeyboardInterrupt:  # the threads would go on
                kill_descendants(os.getpid())
                os._exit(130)
            finally:
                for lane in lanes:
                    lane.close()
        tally.violated += _still_served(lanes)
        return tally

    def _disturbed(
        self, tally: Tally, until: float, number: int, lane: Lane, reference: Trained
    ) -> None:
        """Train one training after another until the time is up."""
        for attempt in count():
            if time.monotonic() >= until:
                return
            faults = plan(self.seed, number, attempt, lane.engine)
            name = f"training-{attempt}"
            trained = train(lane, name, faults, until, reference.metrics)
            if tally.add(trained):
                shutil.rmtree(lane.folder / name)


def undisturbed(lane: Lane) -> Trained:
    """Return the training that nothing is done to."""
    return train(lane, "reference", (), until=0.0, reference=None)


def _still_served(lanes: Iterable[Lane]) -> Iterator[str]:
    """Yield the ports at which somebody still listens."""
    for lane in lanes:
        for server in lane.servers:
            left = [port for port in server.ports if is_listening(port)]
            if left:
                yield f"somebody listens at the ports {left} of {server.behaviour}"


def made_model(folder: Path) -> Path:
    """Return the folder of the tests' tiny model, which consults now and then."""
    from tiny_llama import saved, teach, tiny_llama

    model = tiny_llama(hidden_size=24, intermediate_size=32)
    teach(model, updates=100)
    return saved(model, folder / "model")


def made_settings(folder: Path) -> list[str]:
    """Return the settings of all trainings: the preset `embedded`, much smaller."""
    for name, letter, number in (("train", "p", 24), ("held_out", "q", 4)):
        rows = [
            {"id": f"{letter}{n}", "problem": f"{letter}{n}", "answer": "3"} for n in range(number)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return [
        "name=soak",
        f"steps={STEPS}",
        "annealing.steps=1000",
        "checkpoint_every=3",
        "transcripts_every=1",
        f"problems.source={folder / 'train.jsonl'}",
        f"evaluation.problems.source={folder / 'held_out.jsonl'}",
        "evaluation.samples_per_problem=2",
        "evaluation.every=10",
        f"experts.batch_timeout_s={BATCH_TIMEOUT_S}",
        "rollout.group_size=4",
        "rollout.sampling.groups_per_step=2",
        "rollout.sampling.problems_per_round=3",
        "rollout.sampling.surplus=carry",
        "rollout.limits.max_response_tokens=48",
        "rollout.limits.max_reply_tokens=16",
        "learner.learning_rate=1e-4",
        "learner.warmup_steps=1",
        "learner.device=cpu",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak; return 1 if an invariant was violated."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    options = parser.parse_args(arguments)
    os.environ.update(_ENVIRONMENT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    folder = Path(mkdtemp(prefix="eapo-soak-"))
    print(f"soak: seed {options.seed}, {options.seconds:g} s, in {folder}", flush=True)
    tally = Soak(folder=folder, seconds=options.seconds, seed=options.seed).run()
    print("\n".join(tally.lines()))
    if tally.violated:
        print("\n".join([f"violated, kept in {folder}:", *tally.violated]))
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
