"""A run records what it was made of: parts handed over in Python stand in its config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest
from command import eapo_forked
from user_parts import Brief, Librarian, OnlySuccesses

from eapo_agents.cli import main
from eapo_agents.learning import GRPO, CustomAlgorithm, LossInputs, LossOutput, PythonAlgorithm
from eapo_agents.learning.advantages import Rewards
from eapo_agents.learning.losses import dapo_loss
from eapo_agents.training.config import TrainConfig, with_settings
from eapo_agents.training.parts import Parts
from eapo_agents.training.report.runs import methods_of
from eapo_agents.training.reward_step import RewardStep
from eapo_agents.training.run_folder import Run
from eapo_agents.training.settings import ExpertSettings, RewardSettings, VerifierSettings
from eapo_agents.training.trainer import Trainer
from eapo_env.experts import ErroneousExperts, SilentExperts
from eapo_env.reward import Overlong, RewardRule
from eapo_env.types import NO_ANSWER, ExpertReply, Problem, Query, Reply, Unavailable
from eapo_env.validation import UserError
from eapo_env.verifier import Verifier

CONFIG = TrainConfig()


@dataclass(frozen=True)
class Shelf:
    """A pool with settings that JSON can hold."""

    answers: dict[str, str] = field(default_factory=dict)
    default: str = "7"

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        return [Reply("shelf", self.answers.get(q.text, self.default)) for q in queries]


class Stateful:
    """A pool that is no dataclass, with a key."""

    def __init__(self, patience: int, api_key: str) -> None:
        self.patience, self.api_key, self._lock = patience, api_key, object()

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        return [Reply("stateful", "7")] * len(queries)


def test_a_part_that_can_be_made_again_by_name_is_its_factory() -> None:
    shelf = Shelf({"3 + 4?": "7"}, default="?")
    found = Parts(experts=shelf, algorithm=OnlySuccesses(name="x"), reward=Brief())
    config = found.recorded_in(CONFIG)
    assert config.experts.kind == "python"
    assert config.experts.factory == f"{__name__}:Shelf"
    assert config.experts.build() == shelf
    assert isinstance(config.algorithm, PythonAlgorithm)
    assert config.algorithm.build() == OnlySuccesses(name="x")
    assert config.reward.build() == Brief()
    assert TrainConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    "part",
    [
        Stateful(3, "sk-secret"),
        ErroneousExperts(inner=SilentExperts(), error_rate=0.5),
        Shelf({"?": ("7",)}),  # type: ignore[dict-item]  # JSON has no tuples
    ],
    ids=["no dataclass", "a pool in it", "a tuple in it"],
)
def test_another_part_is_described_and_cannot_be_made_from_the_config(part: Any) -> None:
    config = Parts(experts=part).recorded_in(CONFIG)
    assert config.experts.factory == f"<{type(part).__module__}.{type(part).__qualname__}>"
    assert TrainConfig.from_json(config.to_json()) == config
    assert "secret" not in config.to_json()
    with pytest.raises(UserError, match="was made in Python: resume the run, or evaluate it, from"):
        config.experts.build()


def test_what_a_config_can_say_by_itself_it_says() -> None:
    rule = RewardRule(consultation_penalty=0.1, overlong=Overlong(limit=9, cushion=3))
    parts = Parts(algorithm=GRPO(clip=0.1), reward=rule, verifier=Verifier(time_limit_s=3.0))
    config = parts.recorded_in(CONFIG)
    assert config.algorithm == GRPO(clip=0.1)
    assert config.reward == RewardSettings(
        consultation_penalty=0.1, overlong=Overlong(limit=9, cushion=3)
    )
    assert config.verifier == VerifierSettings(time_limit_s=3.0)
    assert Parts().recorded_in(CONFIG) == CONFIG


def test_problems_are_recorded_by_number_and_digest() -> None:
    problems = [Problem(id=str(n), statement=f"{n}?", answer="3") for n in range(8)]
    one, same, other = (
        Parts(problems=which).recorded_in(CONFIG).problems
        for which in (problems, tuple(problems), problems[::-1])
    )
    assert one.factory.startswith("<8 problems, sha256 ")
    assert one == same != other


@dataclass(frozen=True)
class Percent(Shelf):
    """A pool that changes what it is given."""

    percent: float = 50.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "percent", self.percent / 100)


class Inherited(Shelf):
    """A dataclass only by its base: what it is made of is not in the fields."""

    def __init__(self, noise: int) -> None:
        super().__init__()
        object.__setattr__(self, "noise", noise)


@dataclass
class OwnInit:
    """A dataclass that makes its instances itself."""

    size: int

    def __init__(self, size: int) -> None:
        self.size = abs(size)


@dataclass
class WithInitVar:
    """A part that is made of more than its fields."""

    size: int = 3
    scale: InitVar[int] = 1

    def __post_init__(self, scale: int) -> None:
        self.size *= scale


@dataclass
class Counting:
    """A part with a state that its arguments do not set."""

    size: int = 3
    count: int = field(default=0, init=False)


@dataclass
class Caching:
    """A part with a state that does not matter."""

    size: int = 3
    cache: list[int] = field(default_factory=list, init=False, compare=False)

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        return [Unavailable(NO_ANSWER) for _ in queries]


@dataclass
class Client:
    """A part with settings of a client, one of which is hidden."""

    options: Any = None
    hidden: str = field(default="sk-x", repr=False)


@dataclass
class OpenClient:
    """A part with settings of a client."""

    options: Any = None

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        return [Unavailable(NO_ANSWER) for _ in queries]


class Level(IntEnum):
    HIGH = 3


class Refusing(type):
    """A class whose instances cannot be made again."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if args:
            return super().__call__(*args, **kwargs)
        raise RuntimeError("not again")


@dataclass
class Once(metaclass=Refusing):
    size: int = 3


@pytest.mark.parametrize(
    "part",
    [
        Percent(),
        Inherited(5),
        OwnInit(3),
        WithInitVar(3, 2),
        Counting(),
        Client(),
        Once(3),
        OpenClient(Level.HIGH),
        OpenClient(float("nan")),
        OpenClient({"headers": {"Authorization": "Bearer sk-x"}}),
        OpenClient([{"inner": {"API_KEY": "sk-x"}}]),
        OpenClient({"url": "https://me:sk-x@host/v1"}),
    ],
    ids=lambda part: f"{type(part).__name__} {getattr(part, 'options', '')}",
)
def test_a_part_that_its_fields_do_not_make_again_or_that_has_a_secret_is_no_factory(
    part: Any,
) -> None:
    config = Parts(experts=part).recorded_in(CONFIG)
    assert config.experts.factory == f"<{__name__}.{type(part).__name__}>"
    assert "sk-x" not in config.to_json()


@pytest.mark.parametrize(
    "part",
    [
        Caching(4),
        OpenClient({"max_tokens": 3, "api_key_env": "KEY", "url": "http://host/a@b"}),
    ],
    ids=["a cache", "names like those of secrets"],
)
def test_a_state_that_does_not_matter_and_a_harmless_name_do_not_prevent_a_factory(
    part: Any,
) -> None:
    config = Parts(experts=part).recorded_in(CONFIG)
    assert config.experts.build() == part


# --- trainings


def halved(rewards_G: Rewards) -> Rewards:
    return rewards_G / 2


def interrupted_after(run: Run, trainer: Trainer, steps: int) -> None:
    """Train so many steps; the last one ends by an error in the callback."""

    def stop(step: int, metrics: object) -> None:
        if step == steps:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        trainer.train(run, stop)
    assert run.checkpoints[-1].name == f"step-{steps:06d}"


@pytest.mark.slow
def test_the_command_line_resumes_a_run_with_the_parts_it_was_made_of(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    config = with_settings(tiny_config, ["steps=3", "checkpoint_every=9"])
    whole, half = Run.create(config, tmp_path), Run.create(config, tmp_path)
    parts: dict[str, Any] = {
        "experts": Librarian(),
        "algorithm": OnlySuccesses(),
        "reward": Brief(),
    }
    assert Trainer.from_config(config, **parts).train(whole)
    interrupted_after(half, Trainer.from_config(config, **parts), 1)
    assert half.config.algorithm == PythonAlgorithm(
        factory="user_parts:OnlySuccesses", arguments={"name": "only-successes"}
    )
    assert main(["train", "--resume", str(half.folder)]) == 0
    assert [row["reward"] for row in half.metrics] == [row["reward"] for row in whole.metrics]
    assert [row.get("loss") for row in half.metrics] == [row.get("loss") for row in whole.metrics]
    assert any(row["reward"] != row["accuracy"] for row in half.metrics[1:])
    assert [event["event"] for event in half.events] == ["started", "failed", "resumed", "finished"]


@pytest.mark.slow
def test_a_run_with_a_part_that_only_its_script_can_make_is_resumed_there_alone(
    tiny_config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = with_settings(tiny_config, ["steps=2", "checkpoint_every=9"])
    mine = CustomAlgorithm(name="mine", advantages=halved, loss=dapo_loss)
    run = Run.create(config, tmp_path)
    interrupted_after(run, Trainer.from_config(config, algorithm=mine), 1)
    before = (run.folder / "config.json").read_text()
    assert '"dapo"' not in before
    assert "mine" in before
    assert main(["train", "--resume", str(run.folder)]) == 2
    assert "CustomAlgorithm> was made in Python" in capsys.readouterr().err
    others: tuple[dict[str, Any], ...] = (
        {"algorithm": replace(mine, loss=other_loss)},
        {"algorithm": mine, "experts": SilentExperts()},
        {"algorithm": mine, "reward": RewardRule(consultation_penalty=0.1)},
        {"algorithm": mine, "problems": [Problem(id="p", statement="?", answer="7")]},
        {},
    )
    for parts in others:
        trainer = Trainer.from_config(config, **parts)
        with pytest.raises(UserError, match="keeps the settings that decide what is learned"):
            trainer.train(run)
    assert (run.folder / "config.json").read_text() == before
    assert len(run.metrics) == 1
    assert Trainer.from_config(config, algorithm=mine).train(run)
    assert len(run.metrics) == 2


def other_loss(inputs: LossInputs) -> LossOutput:
    return dapo_loss(inputs, clip_low=0.1)


@pytest.mark.slow
def test_a_part_that_is_replaced_in_the_trainer_is_recorded_too(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    config = with_settings(tiny_config, ["steps=1"])
    trainer = Trainer.from_config(config)
    assert isinstance(trainer.step, RewardStep)
    rollout = replace(trainer.rollout, experts=Librarian())
    run = Run.create(config, tmp_path)
    assert replace(trainer, step=replace(trainer.step, rollout=rollout)).train(run)
    assert run.config.experts == ExpertSettings(kind="python", factory="user_parts:Librarian")
    rollout_settings = replace(config.rollout, wording="terse")  # the model's
    assert run.config == replace(config, experts=run.config.experts, rollout=rollout_settings)


@pytest.mark.slow
def test_a_report_keeps_runs_apart_that_were_made_of_other_parts(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    runs: list[Run] = []
    made: tuple[dict[str, Any], ...] = ({}, {"algorithm": OnlySuccesses()}, {})
    for seed, parts in enumerate(made):
        config = with_settings(tiny_config, ["steps=1", f"seed={seed}"])
        runs.append(Run.create(config, tmp_path))
        assert Trainer.from_config(config, **parts).train(runs[-1])
    labels = [method.label for method in methods_of(runs)]
    assert len(labels) == 2
    assert "(2 seeds)" in labels[0]


@pytest.mark.slow
def test_a_run_whose_experts_only_its_script_can_make_is_still_evaluated(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    config = with_settings(tiny_config, ["steps=1"])
    run = Run.create(config, tmp_path)
    assert Trainer.from_config(config, experts=Stateful(3, "sk-secret")).train(run)
    done = eapo_forked("evaluate", run.folder)
    assert (done.returncode, done.stderr) == (0, "")
