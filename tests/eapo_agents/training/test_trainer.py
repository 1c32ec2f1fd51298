"""The training loop: it learns, and an interrupted run ends as one that was not interrupted."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command import as_options, started, started_forked
from forked import Forked
from safetensors.torch import load_file
from same_training import assert_same_training, numbers, same, transcripts
from transformers import PreTrainedTokenizerFast

from eapo_agents.learning.algorithms import CustomAlgorithm
from eapo_agents.learning.losses import dapo_loss
from eapo_agents.policies.chat import Chat
from eapo_agents.policies.huggingface import HFPolicy
from eapo_agents.policies.models import load_model
from eapo_agents.policies.policy import PolicyError
from eapo_agents.testing import ScriptedPolicy
from eapo_agents.training.config import TrainConfig, with_settings
from eapo_agents.training.presets import embedded, self_exploratory
from eapo_agents.training.report.content import evaluated, summary
from eapo_agents.training.report.runs import methods_of
from eapo_agents.training.run_folder import Run, read_evaluation
from eapo_agents.training.trainer import Trainer
from eapo_env.episode import Episode
from eapo_env.json_lines import JsonLines
from eapo_env.types import ExpertReply, Problem, Query, Reply, Rules
from eapo_env.validation import UserError
from eapo_env.verifier import Status, Verdict

pytestmark = pytest.mark.slow

LONGER = ["steps=7", "annealing.steps=7", "checkpoint_every=3", "evaluation.every=4"]


def train(config: TrainConfig, root: Path) -> Run:
    run = Run.create(config, root)
    assert Trainer.from_config(config).train(run)
    return run


def resume(run: Run) -> Run:
    again = Run.open(run.folder)
    assert Trainer.from_config(again.config).train(again)
    return again


@pytest.fixture(scope="module")
def settings(tiny_settings: list[str]) -> list[str]:
    return [*tiny_settings, *LONGER]


@pytest.fixture(scope="module")
def config(tiny_config: TrainConfig) -> TrainConfig:
    return with_settings(tiny_config, LONGER)


@pytest.fixture(scope="module")
def uninterrupted(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = train(config, tmp_path_factory.mktemp("uninterrupted"))
    rows = numbers(run)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert rows[0]["call_rate"] > 0, "some consult"
    assert any("grad_norm" in row for row in rows), "something is learned"
    assert ["alone/mean_at_k" in row for row in rows] == [0, 0, 0, 1, 0, 0, 1]
    return run


# --- interrupted and resumed


def wait_for_lines(path: Path, count: int, child: Forked) -> None:
    while not path.exists() or path.read_text("utf-8").count("\n") < count:
        assert child.poll() is None, child.communicate()
        time.sleep(0.005)


def test_ctrl_c_leaves_a_run_that_goes_on_as_if_nothing_had_happened(
    settings: list[str], uninterrupted: Run, tmp_path: Path
) -> None:
    with started_forked("train", *as_options(settings), "--runs", tmp_path) as child:
        wait_for_lines(tmp_path / "tiny-1" / "metrics.jsonl", 1, child)
        child.send_signal(signal.SIGINT)
        output, errors = child.communicate()
    assert child.returncode == 130
    assert errors.strip().startswith("finishing this step")
    run = Run.open(tmp_path / "tiny-1")
    assert f"eapo train --resume {run.folder}" in output
    done = len(run.metrics)
    assert done < 7
    assert run.checkpoints[-1].name == f"step-{done:06d}"
    with started("train", "--resume", run.folder) as again:
        output, errors = again.communicate()
    assert (again.returncode, errors) == (0, "")
    assert f"run folder: {run.folder}" in output
    assert_same_training(run, uninterrupted)


def test_a_killed_run_goes_on_from_its_last_checkpoint(
    settings: list[str], uninterrupted: Run, tmp_path: Path
) -> None:
    with started_forked("train", *as_options(settings), "--runs", tmp_path) as child:
        wait_for_lines(tmp_path / "tiny-1" / "metrics.jsonl", 4, child)
        child.kill()
        child.communicate()
    assert child.returncode == -signal.SIGKILL
    run = Run.open(tmp_path / "tiny-1")
    assert len(run.metrics) >= 4
    assert_same_training(resume(run), uninterrupted)


def test_adapters_learn_from_rewards_and_resume_to_the_bit(
    config: TrainConfig, tmp_path: Path
) -> None:
    config = with_settings(config, ["model.lora.rank=4", "learner.learning_rate=0.01"])
    whole, run = train(config, tmp_path / "whole"), Run.create(config, tmp_path / "parts")
    trainer = Trainer.from_config(config)
    assert not trainer.train(run, lambda step, _: os.kill(os.getpid(), signal.SIGINT))
    assert_same_training(resume(run), whole)
    trained = {n for n, w in trainer.learner.model.named_parameters() if w.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    base, _ = load_model(config.model)
    learned = load_file(whole.checkpoints[-1] / "model.safetensors")
    changed = {
        n for n, w in base.state_dict().items() if n in learned and not torch.equal(w, learned[n])
    }
    assert {name.split(".")[-2] for name in changed} >= {"q_proj", "down_proj"}
    assert not any(name.endswith("embed_tokens.weight") or "norm" in name for name in changed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_in_any_step_changes_nothing(
    config: TrainConfig, uninterrupted: Run, tmp_path: Path, number: signal.Signals
) -> None:
    run, handler = Run.create(config, tmp_path), signal.getsignal(number)
    stops = [1, 2, 6]

    def interrupt(step: int, metrics: Mapping[str, float]) -> None:
        if step in stops:
            os.kill(os.getpid(), number)

    for stop in stops:
        assert not Trainer.from_config(config).train(Run.open(run.folder), interrupt)
        assert run.checkpoints[-1].name == f"step-{stop:06d}"
        assert signal.getsignal(number) == handler
    assert_same_training(resume(run), uninterrupted)


def test_a_second_ctrl_c_stops_at_once(
    config: TrainConfig, uninterrupted: Run, tmp_path: Path
) -> None:
    run, steps = Run.create(config, tmp_path), []

    def interrupt_twice(step: int, metrics: Mapping[str, float]) -> None:
        steps.append(step)
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        Trainer.from_config(config).train(run, interrupt_twice)
    assert steps == [1, 2, 3, 4, 5]
    assert run.checkpoints[-1].name == "step-000003"
    assert_same_training(resume(run), uninterrupted)


def test_an_interruption_in_the_last_step_comes_too_late(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    run = Run.create(tiny_config, tmp_path)

    def interrupt(step: int, metrics: Mapping[str, float]) -> None:
        if step == tiny_config.steps:
            os.kill(os.getpid(), signal.SIGINT)

    assert Trainer.from_config(tiny_config).train(run, interrupt)


def test_a_finished_run_is_left_as_it_is(uninterrupted: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(uninterrupted.folder, tmp_path / "copy"))
    before = numbers(run)
    assert numbers(resume(run)) == before
    assert_same_training(run, uninterrupted)


def test_training_runs_in_any_thread(
    config: TrainConfig, uninterrupted: Run, tmp_path: Path
) -> None:
    run = Run.create(config, tmp_path)
    thread = threading.Thread(target=lambda: Trainer.from_config(config).train(run))
    thread.start()
    thread.join()
    assert_same_training(run, uninterrupted)


def test_under_a_running_event_loop_training_says_what_to_do(
    config: TrainConfig, uninterrupted: Run, tmp_path: Path
) -> None:
    """As in a notebook; the run folder stays as it was, and the advice works."""

    async def cell() -> None:
        trainer, run = Trainer.from_config(config), Run.create(config, tmp_path)
        with pytest.raises(UserError, match=r"await asyncio\.to_thread\(trainer\.train, run\)"):
            trainer.train(run)
        assert not run.has_begun
        assert await asyncio.to_thread(trainer.train, run)
        assert_same_training(run, uninterrupted)

    asyncio.run(cell())


@pytest.mark.parametrize("damage", ["cut short", "missing"])
@pytest.mark.parametrize("name", ["model.safetensors", "learner.pt", "state.json"])
def test_a_damaged_checkpoint_is_an_error_that_says_how_to_go_on(
    uninterrupted: Run, tmp_path: Path, name: str, damage: str
) -> None:
    run = Run(shutil.copytree(uninterrupted.folder, tmp_path / "copy"))
    path = run.checkpoints[-1] / name
    content = path.read_bytes()
    path.unlink()
    if damage == "cut short":
        path.write_bytes(content[: len(content) // 2])
    metrics = (run.folder / "metrics.jsonl").read_bytes()
    trainer = Trainer.from_config(run.config)
    with pytest.raises(ValueError, match=r"is damaged .* delete it to resume") as caught:
        trainer.train(run)
    assert str(run.checkpoints[-1]) in str(caught.value)
    assert (run.folder / "metrics.jsonl").read_bytes() == metrics, "nothing was forgotten"


def test_without_the_newest_checkpoint_it_goes_on_from_the_one_before(
    uninterrupted: Run, tmp_path: Path
) -> None:
    run = Run(shutil.copytree(uninterrupted.folder, tmp_path / "copy"))
    assert [path.name for path in run.checkpoints] == ["step-000006", "step-000007"]
    shutil.rmtree(run.checkpoints[-1])
    assert_same_training(resume(run), uninterrupted)


# --- what training does


def test_evaluation_changes_nothing_in_training(
    config: TrainConfig, uninterrupted: Run, tmp_path: Path
) -> None:
    def training(run: Run) -> list[dict[str, float]]:
        rows = numbers(run)
        return [{k: v for k, v in row.items() if not k.startswith("alone/")} for row in rows]

    for every in (0, 1):
        run = train(with_settings(config, [f"evaluation.every={every}"]), tmp_path)
        assert list(run.evaluations) == list(run.evaluated)
        assert len(run.evaluations) == (7 if every else 1)
        assert training(run) == training(uninterrupted)
        assert run.last_evaluation == uninterrupted.last_evaluation
        last = [JsonLines(one.evaluated[7]).read() for one in (run, uninterrupted)]
        assert last[0] == last[1]
        report = run.last_evaluation
        assert report
        assert [row["problem_id"] for row in last[0]] == report["problem_ids"]
        assert [row["status"] == "correct" for row in last[0]] == [
            of_problem[0] for of_problem in report["correct_PK"]
        ]


def test_a_baseline_is_step_0_and_changes_nothing_in_training(
    config: TrainConfig, uninterrupted: Run, tmp_path: Path
) -> None:
    """Also if the run is killed after it, or in it, and resumed."""
    with_baseline = with_settings(config, ["evaluation.baseline=evaluated"])
    run, logged = Run.create(with_baseline, tmp_path), dict[int, float]()

    class Log:
        def log(self, step: int, metrics: Mapping[str, float]) -> None:
            logged[step] = metrics.get("alone/mean_at_k", -1.0)

        def close(self) -> None: ...

    def lose_power(step: int, metrics: Mapping[str, float]) -> None:
        shutil.copytree(run.folder, tmp_path / "copy")
        raise StopIteration

    trainer = Trainer.from_config(with_baseline, trackers=[Log()])
    with pytest.raises(StopIteration):
        trainer.train(run, lose_power)
    killed = Run.open(tmp_path / "copy")
    assert [row["step"] for row in killed.metrics] == [0, 1]
    first = killed.metrics[0]
    assert {"step", "seconds/evaluation"} < first.keys()
    assert all(name.startswith(("alone/", "seconds/", "step")) for name in first)
    assert logged == {0: first["alone/mean_at_k"], 1: -1.0}
    resumed = resume(killed)
    assert resumed.metrics[0] == first, "it is not repeated"
    assert list(resumed.evaluations) == [0, 4, 7]
    assert numbers(resumed)[1:] == numbers(uninterrupted)
    assert resumed.last_evaluation == uninterrupted.last_evaluation
    [method] = methods_of([resumed])
    assert method.curve("alone/mean_at_k").mean[0] == (0, first["alone/mean_at_k"])
    [shown] = summary([resumed])["runs"]
    assert (shown["steps"], shown["evaluated"]) == (7, [0, 4, 7])
    assert len(evaluated(resumed, 0)) == 4
    before = read_evaluation(resumed.evaluations[0])
    assert before.name == "copy at step 0"
    assert before.average()[0] == pytest.approx(first["alone/mean_at_k"])


def test_the_seed_decides_everything(
    config: TrainConfig, uninterrupted: Run, tmp_path: Path
) -> None:
    other = train(with_settings(config, ["seed=1", "steps=1"]), tmp_path)
    assert numbers(other)[0] != numbers(uninterrupted)[0]


def test_training_improves_the_policy(tiny_config: TrainConfig, tmp_path: Path) -> None:
    settings = ["steps=16", "annealing.turn_budget=1", "learner.learning_rate=0.01"]
    run = train(with_settings(tiny_config, settings), tmp_path)
    accuracy = [row["accuracy"] for row in run.metrics]
    assert np.mean(accuracy[:2]) < 0.4
    assert np.mean(accuracy[-2:]) > 0.7
    assert run.metrics[-1]["alone/mean_at_k"] > 0.7, "the held-out problems have the same answer"


def test_steps_that_teach_nothing_are_warned_of(
    tiny_config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No group can be right, so no step learns: told after every second one."""
    config = with_settings(tiny_config, ["standstill_alarm=2"])
    problems = [Problem(id=f"p{n}", statement=f"p{n}", answer="1000") for n in range(8)]
    run = Run.create(config, tmp_path)
    assert Trainer.from_config(config, problems=problems).train(run)
    told = [message for message in caplog.messages if "NOTHING WAS LEARNED" in message]
    assert [message.partition(",")[0] for message in told] == [
        f"STEP {step}: NOTHING WAS LEARNED FOR {step} STEPS" for step in (2, 4)
    ]
    assert "Try easier problems" in told[0]


def test_the_experts_are_withdrawn_on_schedule(uninterrupted: Run) -> None:
    rows = uninterrupted.metrics
    assert [row["acceptance_rate"] for row in rows] == pytest.approx([1 - s / 7 for s in range(7)])
    assert [row["turn_budget"] for row in rows] == pytest.approx([2 - s / 7 for s in range(7)])
    assert rows[0]["alone_rate"] == 0
    assert rows[5]["alone_rate"] > rows[1]["alone_rate"]


@pytest.mark.parametrize("who", ["member", "group"])
def test_turn_budgets_are_drawn_by_whom_the_settings_say(
    tiny_config: TrainConfig, tmp_path: Path, who: str
) -> None:
    settings = [f"rollout.turn_budgets={who}", "steps=2", "transcripts_every=2"]
    run = train(with_settings(tiny_config, settings), tmp_path)
    budgets: dict[str, set[int]] = {}
    for row in map(json.loads, transcripts(run)["step-000002.jsonl"].splitlines()):
        budgets.setdefault(row["problem_id"], set()).add(row["turn_budget"])
    assert set.union(*budgets.values()) == {1, 2}
    assert (max(map(len, budgets.values())) == 1) == (who == "group")


def test_self_exploratory_training_never_consults(tiny_config: TrainConfig, tmp_path: Path) -> None:
    run = train(self_exploratory(tiny_config), tmp_path)
    assert {(row["call_rate"], row["alone_rate"]) for row in run.metrics} == {(0.0, 1.0)}
    for text in transcripts(run).values():
        for row in map(json.loads, text.splitlines()):
            assert "ask" not in row["messages"][0]["content"]


def test_every_problem_comes_once_an_epoch(tiny_config: TrainConfig, tmp_path: Path) -> None:
    run = train(with_settings(tiny_config, ["transcripts_every=1", "steps=6"]), tmp_path)
    ids: list[str] = []
    for name in sorted(transcripts(run)):
        rows = [json.loads(line) for line in transcripts(run)[name].splitlines()]
        ids += [row["problem_id"] for row in rows if row["member"] == 0]
    assert len(ids) == sum(row["problems_used"] for row in run.metrics) > 30
    assert sorted(ids[:24]) == sorted(f"p{n}" for n in range(24))
    assert len(set(ids[24:48])) == len(ids[24:48])
    assert ids[24:30] != ids[:6], "in another order each time"


def test_transcripts_say_which_episodes_were_learned_from(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    run = train(with_settings(tiny_config, ["transcripts_every=1"]), tmp_path)
    for metrics, name in zip(run.metrics, sorted(transcripts(run)), strict=True):
        rows = [json.loads(line) for line in transcripts(run)[name].splitlines()]
        learned = [row for row in rows if row["use"] == "learned"]
        assert len(learned) == metrics.get("learned_sequences", 0)
        assert all((row["advantage"] > 0) == (row["status"] == "correct") for row in learned)
        assert {row["advantage"] for row in rows if row["use"] == "dropped"} <= {None}
        latencies = (run.folder / "latencies" / name).read_text("utf-8").splitlines()
        assert len(latencies) == len(rows)


# --- parts given in Python


def test_given_experts_are_asked(tiny_config: TrainConfig, tmp_path: Path) -> None:
    asked: list[Query] = []

    class Mine:
        async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
            asked.extend(queries)
            return [Reply("me", "three")] * len(queries)

    run = Run.create(tiny_config, tmp_path)
    assert Trainer.from_config(tiny_config, experts=Mine()).train(run)
    assert asked
    assert "<reply>three</reply>" in transcripts(run)["step-000001.jsonl"]


def test_a_given_algorithm_is_used(tiny_config: TrainConfig, tmp_path: Path) -> None:
    config = with_settings(tiny_config, ["learner.weight_decay=0"])
    idle = CustomAlgorithm(name="idle", advantages=np.zeros_like, loss=dapo_loss)
    trainer = Trainer.from_config(config, algorithm=idle)
    before = {name: weight.clone() for name, weight in trainer.learner.model.state_dict().items()}
    run = Run.create(config, tmp_path)
    assert trainer.train(run)
    assert same(dict(trainer.learner.model.state_dict()), before)
    assert any("loss" in row for row in run.metrics)


def test_a_given_policy_plays_and_takes_the_weights(
    tiny_config: TrainConfig, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    taken: list[int] = []

    class Mine(ScriptedPolicy):
        def load_weights(self, state_dict: Mapping[str, torch.Tensor]) -> None:
            taken.append(len(state_dict))

    mine = Mine(
        tokenizer, lambda prompt, rng: f"\\boxed{{{3 if rng.random() < 0.5 else 4}}}", logprob=-0.7
    )
    config = with_settings(tiny_config, ["sync.tolerance=100"])
    run = Run.create(config, tmp_path)
    assert Trainer.from_config(config, policy=mine).train(run)
    assert len(taken) == 1 + config.steps  # before the first step, and after each
    assert all(row["learned_sequences"] >= 4 for row in run.metrics)
    assert all(row["sync_gap"] > 0 for row in run.metrics)


def test_a_given_policy_must_sample_from_the_learners_weights(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    class Deaf(HFPolicy):
        def load_weights(self, state_dict: Mapping[str, torch.Tensor]) -> None:
            pass

    run = Run.create(tiny_config, tmp_path)
    assert Trainer.from_config(tiny_config, policy=HFPolicy(*load_model(tiny_config.model))).train(
        run
    )
    assert all(row["sync_gap"] < 1e-4 for row in run.metrics)
    run = Run.create(tiny_config, tmp_path)
    with pytest.raises(PolicyError, match="does not sample from the learner's weights"):
        Trainer.from_config(tiny_config, policy=Deaf(*load_model(tiny_config.model))).train(run)


def test_a_given_reward_verifier_and_problems_are_used(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    problems = [Problem(id=f"mine-{n}", statement=f"p{n}", answer="3") for n in range(5)]

    class AlwaysRight:
        def verify(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
            return [Verdict(status=Status.CORRECT) for _ in pairs]

        async def averify(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
            return self.verify(pairs)

        def close(self) -> None:
            pass

    class Seven:
        def reward(self, episode: Episode, score: float, num_policy_tokens: int) -> float:
            return 7.0 if score else 0.0

    run = Run.create(tiny_config, tmp_path)
    trainer = Trainer.from_config(
        tiny_config,
        reward=Seven(),
        verifier=AlwaysRight(),
        problems=problems,
        held_out=[replace(problem, statement=f"held out {problem.id}") for problem in problems[:3]],
    )
    assert trainer.train(run)
    for row in run.metrics:
        assert row["reward"] == pytest.approx(7.0 * row["accuracy"])
        assert row["accuracy"] == pytest.approx(1.0 - row["no_answer_rate"])
    assert run.last_evaluation
    assert run.last_evaluation["problem_ids"] == ["mine-0", "mine-1", "mine-2"]
    rows = map(json.loads, transcripts(run)["step-000001.jsonl"].splitlines())
    assert {row["problem_id"] for row in rows} == {problem.id for problem in problems}


@pytest.mark.parametrize(
    ("held_out", "message"),
    [([], "nothing to evaluate"), ([0, 0], "1 ids are of several problems each")],
)
def test_held_out_problems_are_checked_before_a_training(
    tiny_config: TrainConfig, held_out: list[int], message: str
) -> None:
    problems = [Problem(id=str(n), statement=f"held out {n}", answer="1") for n in held_out]
    with pytest.raises(UserError, match=message):
        Trainer.from_config(tiny_config, held_out=problems)


def test_a_served_model_is_refused_before_any_is_loaded(tiny_config: TrainConfig) -> None:
    config = with_settings(tiny_config, ["engine=openai", "model.path=my-served-model"])
    with pytest.raises(UserError, match="a model behind such a server can be evaluated, not"):
        Trainer.from_config(config)


@dataclass
class Remembering:
    """A tracker that keeps everything, and fails in a step."""

    fails_in: int = 99
    logged: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    closed: int = 0

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if step == self.fails_in:
            raise OSError("the network is down")
        self.logged.append((step, dict(metrics)))

    def close(self) -> None:
        self.closed += 1


def test_given_trackers_get_the_metrics_and_are_closed(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    run, trackers = Run.create(tiny_config, tmp_path), [Remembering(), Remembering()]
    assert Trainer.from_config(tiny_config, trackers=trackers).train(run)
    for tracker in trackers:
        assert [{"step": step} | metrics for step, metrics in tracker.logged] == run.metrics
        assert tracker.closed == 1
    assert not (run.folder / "tensorboard").exists(), "they replace the config's"


def test_trackers_are_closed_after_an_error_too(tiny_config: TrainConfig, tmp_path: Path) -> None:
    run, failing, other = Run.create(tiny_config, tmp_path), Remembering(fails_in=2), Remembering()
    with pytest.raises(OSError, match="the network is down") as caught:
        Trainer.from_config(tiny_config, trackers=[failing, other]).train(run)
    assert "This was training step 2" in caught.value.__notes__[0]
    assert (failing.closed, other.closed) == (1, 1)


def test_a_step_without_signal_learns_nothing_and_goes_on(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    hopeless = [Problem(id=str(n), statement=f"p{n}", answer="12345") for n in range(5)]
    run = Run.create(tiny_config, tmp_path)
    assert Trainer.from_config(tiny_config, problems=hopeless).train(run)
    assert [row["groups_kept"] for row in run.metrics] == [0.0] * 4
    assert [row["problems_used"] for row in run.metrics] == [12.0] * 4
    assert not any("loss" in row for row in run.metrics)


# --- settings that do not fit together


def test_held_out_problems_are_left_out_of_training(tiny_config: TrainConfig) -> None:
    easy = ["problems.source=synthetic", "problems.brackets=1", "problems.operations=1"]
    settings = [*easy, *[f"evaluation.{setting}" for setting in easy]]
    settings += ["problems.num_problems=500", "evaluation.problems.num_problems=500"]
    trainer = Trainer.from_config(with_settings(tiny_config, settings))
    held_out = {problem.statement for problem in trainer.held_out}
    assert len(held_out) == 500
    assert 300 < len(trainer.problems) < 500
    assert not held_out & {problem.statement for problem in trainer.problems}


def test_training_on_the_held_out_problems_is_an_error(tiny_config: TrainConfig) -> None:
    source = tiny_config.problems.source
    with pytest.raises(UserError, match="all 24 problems are held out"):
        Trainer.from_config(with_settings(tiny_config, [f"evaluation.problems.source={source}"]))
    same = ["source=synthetic", "num_problems=9", "seed=5"]
    settings = [
        f"{section}.{one}" for section in ("problems", "evaluation.problems") for one in same
    ]
    message = "all 9 problems are held out, .* hold the same ones; change evaluation.problems.seed"
    with pytest.raises(UserError, match=message):
        Trainer.from_config(with_settings(tiny_config, settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["learner.device=gpu"], "learner.device must be 'auto' or 'cpu' .*, not 'gpu'"),
        (["model.path=./nowhere"], "no such run or model folder: ./nowhere"),
        (['trackers=[{"kind": "python", "factory": "os:nothing"}]'], "factory 'os:nothing'"),
        (["experts=python", "experts.factory=os:nothing"], "factory 'os:nothing'"),
        (["reward=python", "reward.factory=os:nothing"], "factory 'os:nothing'"),
        (["verifier=python", "verifier.factory=os:nothing"], "factory 'os:nothing'"),
        (["experts=replay", "experts.recording=no"], "experts.recording: there is no file 'no'"),
        (
            [
                'experts={"kind": "openai", "endpoints": [{"base_url": "http://x", "models": ["m"],'
                ' "api_key_env": "EAPO_TESTS_HAVE_NO_SUCH_KEY"}]}'
            ],
            "EAPO_TESTS_HAVE_NO_SUCH_KEY holds no key",
        ),
    ],
)
def test_what_is_cheap_is_checked_before_problems_and_model_are_loaded(
    settings: list[str], message: str, tmp_path: Path
) -> None:
    slow = [f"model.path={tmp_path}", "evaluation.problems.source=missing.jsonl"]
    config = with_settings(embedded(), [*slow, *settings])
    with pytest.raises(UserError, match=message):
        Trainer.from_config(config)
    with pytest.raises(UserError, match=r"no such file: 'missing\.jsonl'"):
        Trainer.from_config(with_settings(embedded(), slow))


def test_problems_with_long_prompts_are_left_out_of_training(tiny_config: TrainConfig) -> None:
    mixed = ["problems.source=sample"]
    trainer = Trainer.from_config(with_settings(tiny_config, mixed))
    chat = Chat(trainer.rollout.policy.tokenizer)
    openings = [trainer.rollout.prompts.opening(p, Rules()) for p in trainer.problems]
    lengths = [len(chat.opening([opening])) for opening in openings]
    limit = sorted(lengths)[len(lengths) // 2]
    assert min(lengths) < limit < max(lengths)
    limited = [*mixed, f"rollout.limits.max_prompt_tokens={limit}"]
    kept = Trainer.from_config(with_settings(tiny_config, limited)).problems
    expected = [p for p, n in zip(trainer.problems, lengths, strict=True) if n <= limit]
    assert list(kept) == expected
    with pytest.raises(ValueError, match=r"none of \d+ prompts is within 5 tokens"):
        Trainer.from_config(with_settings(tiny_config, ["rollout.limits.max_prompt_tokens=5"]))


def test_the_learner_has_the_samplers_temperature(tiny_config: TrainConfig, tmp_path: Path) -> None:
    config = with_settings(tiny_config, ["rollout.temperature=0.5", "steps=1"])
    run = Run.create(config, tmp_path)
    assert Trainer.from_config(config).train(run)
    assert abs(run.metrics[0]["mismatch_kl"]) < 1e-6
