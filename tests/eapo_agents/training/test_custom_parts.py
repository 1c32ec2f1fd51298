"""Parts of the user's own, named on the command line or handed to `Trainer.from_config`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from eapo_agents import Run, Trainer
from eapo_agents.cli import main
from eapo_agents.training.config import TrainConfig, with_settings
from eapo_env.validation import UserError

MODULE = """
from dataclasses import dataclass
from pathlib import Path

from eapo_agents import CustomAlgorithm, HFPolicy
from eapo_agents.learning import dapo_loss, group_advantages
from eapo_agents.policies import ModelSettings, load_model
from eapo_env import Problem, Reply, Verifier


@dataclass(frozen=True)
class Note:
    folder: str

    def write(self, name):
        with (Path(self.folder) / "used.txt").open("a") as file:
            file.write(name + "\\n")


@dataclass(frozen=True)
class Librarian(Note):
    async def ask(self, queries):
        self.write("experts")
        return [Reply("librarian", "3") for query in queries]


@dataclass(frozen=True)
class Half(Note):
    def reward(self, episode, correct, num_policy_tokens=0):
        self.write("reward")
        return correct / 2


class Grader(Verifier):
    folder = ""

    async def averify(self, pairs):
        Note(self.folder).write("verifier")
        return await super().averify(pairs)


def grader(folder):
    Grader.folder = folder
    return Grader()


class Traced(HFPolicy):
    def load_weights(self, state_dict):
        self.note.write("engine")
        self._model.load_state_dict(state_dict)


def engine(path, folder):
    policy = Traced(*load_model(ModelSettings(path=path)))
    policy.note = Note(folder)
    return policy


def traced_loss(inputs):
    return dapo_loss(inputs)


def algorithm(folder):
    Note(folder).write("algorithm")
    return CustomAlgorithm(name="mine", advantages=group_advantages, loss=traced_loss)


def problems(folder):
    Note(folder).write("problems")
    return [Problem(id=str(n), statement=f"{n}?", answer="3") for n in range(8)]


class Tracker(Note):
    def log(self, step, metrics):
        self.write("tracker")

    def close(self):
        self.write("tracker closed")


def tracker(run_folder, folder):
    return Tracker(folder)
"""

PARTS = {
    "experts": "Librarian",
    "reward": "Half",
    "verifier": "grader",
    "engine": "engine",
    "algorithm": "algorithm",
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a module that a user has written."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "custom_parts_of_a_user.py").write_text(MODULE, encoding="utf-8")
    sys.path.append(str(folder))
    yield "custom_parts_of_a_user"
    sys.path.remove(str(folder))


def test_every_part_can_be_named_on_the_command_line(
    parts: str, tiny_settings: list[str], tmp_path: Path
) -> None:
    arguments = {"folder": str(tmp_path)}
    settings = [*tiny_settings, "steps=2", "problems.source=python"]
    settings += [f"problems.factory={parts}:problems"]
    settings += [f"problems.arguments={json.dumps(arguments)}"]
    for section, name in PARTS.items():
        settings += [f"{section}.kind=python", f"{section}.factory={parts}:{name}"]
        settings += [f"{section}.arguments={json.dumps(arguments)}"]
    entry = {"kind": "python", "factory": f"{parts}:tracker", "arguments": arguments}
    settings += [f"trackers={json.dumps([entry])}"]
    options = [word for setting in settings for word in ("--set", setting)]
    assert main(["train", *options, "--runs", str(tmp_path / "runs")]) == 0
    used = (tmp_path / "used.txt").read_text().splitlines()
    assert set(used) == {*PARTS, "problems", "tracker", "tracker closed"}
    assert used.count("tracker") == 2
    [run] = (tmp_path / "runs").iterdir()
    rewards = {row["reward"] for row in transcripts(Run.open(run))}
    assert rewards <= {0.0, 0.5}


def transcripts(run: Run) -> list[dict[str, float]]:
    return [
        json.loads(line)
        for path in run.transcripts.values()
        for line in path.read_text(encoding="utf-8").splitlines()
    ]


@pytest.mark.parametrize("part", ["policy", "experts", "algorithm", "reward", "verifier"])
def test_a_part_without_the_methods_of_its_kind_is_refused(
    part: str, tiny_config: TrainConfig
) -> None:
    with pytest.raises(UserError, match=rf"^{part} must have .*, not be 0.5$"):
        Trainer.from_config(tiny_config, **{part: 0.5})  # type: ignore[arg-type]


def test_each_argument_of_from_config_replaces_one_part(
    parts: str, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    module = sys.modules.get(parts) or __import__(parts)
    folder = str(tmp_path)
    config = with_settings(tiny_config, ["steps=1"])
    trainer = Trainer.from_config(
        config,
        experts=module.Librarian(folder),
        reward=module.Half(folder),
        verifier=module.grader(folder),
        policy=module.engine(config.model.path, folder),
        algorithm=module.algorithm(folder),
        problems=module.problems(folder),
        trackers=[module.Tracker(folder)],
    )
    assert [problem.id for problem in trainer.problems] == [str(n) for n in range(8)]
    run = Run.create(config, tmp_path / "runs")
    assert trainer.train(run)
    assert run.config.trackers == ()
    used = (tmp_path / "used.txt").read_text().splitlines()
    assert set(used) == {*PARTS, "problems", "tracker", "tracker closed"}
