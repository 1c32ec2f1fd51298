"""Distillation of a tiny model: what is learned, what is not, and how it goes on."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from stub_server import StubServer
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from eapo_agents.learning.learner import Learner
from eapo_agents.methods.distillation import distill, distillation_trainer, encode_solution
from eapo_agents.methods.solutions import (
    Solution,
    SolutionCollector,
    add_solutions,
    read_solutions,
    right_solutions,
)
from eapo_agents.policies import LoRASettings
from eapo_agents.policies.chat import Chat
from eapo_agents.training.config import TrainConfig
from eapo_agents.training.imitation_settings import DistillationSettings
from eapo_agents.training.model_defaults import prompts_of
from eapo_agents.training.presets import distilled, embedded
from eapo_agents.training.run_folder import Run
from eapo_agents.training.settings import ExpertSettings
from eapo_agents.training.trainer import Trainer
from eapo_env.demonstrator import worked_solution
from eapo_env.endpoints import Endpoint
from eapo_env.guarded_experts import ExpertMonitor
from eapo_env.openai_experts import read_with_reasoning
from eapo_env.prompts import CUT_MARK, Prompts
from eapo_env.recordings import RecordingExperts
from eapo_env.synthetic import synthetic_problems
from eapo_env.testing import ScriptedExperts
from eapo_env.types import ExpertReply, Problem, Query, Reply, Unavailable
from eapo_env.validation import UserError
from eapo_env.verifier import Status, Verifier

RIGHT, WRONG = "\\boxed{3}", "\\boxed{7}"
PLAIN, REASONED = "1+1=2, so \\boxed{2}", "<think>\n1+1=2\n</think>\n\n\\boxed{2}"


@dataclass(frozen=True)
class Teachers:
    """Experts that are wrong in every second sample, and remember what they were asked."""

    asked: list[Query] = field(default_factory=list)

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        self.asked.extend(queries)
        return [Reply("teacher", (RIGHT, WRONG)[query.slot % 2]) for query in queries]


def recorded(config: TrainConfig, verifier: Verifier, folder: Path) -> Path:
    """Return a recording of the teachers' solutions of a config's problems."""
    path = folder / "recording.jsonl"
    assert config.distillation
    collection = SolutionCollector(
        solvers=RecordingExperts(Teachers(), path),
        verifier=verifier,
        prompts=prompts_of(config),
        settings=config.distillation,
        seed=config.seed,
    )
    asyncio.run(
        collection.collect(config.problems.load(), f"{folder}/solutions.jsonl", lambda *_: None)
    )
    return path


@pytest.fixture(scope="module", params=[0, 4], ids=["full", "lora"])
def config(
    request: pytest.FixtureRequest,
    tiny_config: TrainConfig,
    verifier: Verifier,
    tmp_path_factory: pytest.TempPathFactory,
) -> TrainConfig:
    """Twenty updates on the recording of half right solutions, all parameters or adapters."""
    config = replace(
        tiny_config,
        steps=20,
        model=replace(tiny_config.model, lora=LoRASettings(rank=request.param, alpha=8.0)),
        evaluation=replace(tiny_config.evaluation, samples_per_problem=8),
        checkpoint_every=8,
        distillation=DistillationSettings(
            samples_per_problem=4,
            batch_size=16,
            learning_rate=1e-2,
        ),
    )
    path = recorded(config, verifier, tmp_path_factory.mktemp("recording"))
    return replace(config, experts=ExpertSettings(kind="replay", recording=str(path)))


@pytest.fixture(scope="module")
def finished(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run.create(config, tmp_path_factory.mktemp("runs"))
    assert distill(run)
    return run


def numbers(run: Run) -> list[dict[str, float]]:
    """All metrics but those of the machine."""
    return [{k: v for k, v in row.items() if not k.startswith("seconds/")} for row in run.metrics]


def test_the_policy_learns_the_right_solutions(finished: Run) -> None:
    assert [row["step"] for row in finished.metrics] == list(range(1, 21))
    assert finished.metrics[-1]["loss"] < 0.5 * finished.metrics[0]["loss"]
    assert finished.metrics[-1]["alone/mean_at_k"] >= 0.25  # 0.1 before
    assert finished.last_evaluation
    solutions = read_solutions(f"{finished.folder}/solutions.jsonl")
    assert len(solutions) == 24
    assert [s.status for s in solutions["p0"]] == ["correct", "wrong"] * 2
    assert right_solutions(solutions["p0"]) == [RIGHT]  # the same text counts once


def restored(config: TrainConfig, run: Run) -> Learner:
    """Return the learner of a run's newest checkpoint, adapters not merged."""
    learner = distillation_trainer(config).learner
    learner.load(run.checkpoints[-1])
    return learner


def test_every_checkpoint_is_a_plain_model(finished: Run, config: TrainConfig) -> None:
    """A LoRA checkpoint holds merged weights: the model computes what model and adapters did."""
    learned = restored(config, finished)
    assert learned.step == 20
    ids = torch.tensor([[5, 9, 12, 40, 41]])
    merged = AutoModelForCausalLM.from_pretrained(finished.checkpoints[-1])
    with torch.no_grad():
        expected = learned.model(ids).logits
        torch.testing.assert_close(merged(ids).logits, expected, atol=1e-4, rtol=1e-4)
    assert not any("lora" in name for name in merged.state_dict())


def test_weights_for_another_engine_are_those_of_the_checkpoint(
    finished: Run, config: TrainConfig
) -> None:
    learned = restored(config, finished)
    before = {name: weight.clone() for name, weight in learned.model.state_dict().items()}
    merged = learned.weights()
    saved = AutoModelForCausalLM.from_pretrained(finished.checkpoints[-1]).state_dict()
    assert merged.keys() == saved.keys()
    for name, weight in merged.items():
        torch.testing.assert_close(weight, saved[name], atol=1e-5, rtol=1e-5)
    for name, weight in learned.model.state_dict().items():
        assert torch.equal(weight, before[name])


def test_adapters_leave_the_weights_of_the_model_alone(config: TrainConfig) -> None:
    assert config.distillation
    trained = {
        name
        for name, weight in distillation_trainer(config).learner.model.named_parameters()
        if weight.requires_grad
    }
    assert trained
    assert all("lora_" in name for name in trained) == bool(config.model.lora.rank)


class KilledError(BaseException):
    """The process dies."""


def test_an_interrupted_distillation_goes_on_as_if_nothing_had_happened(
    config: TrainConfig, finished: Run, tmp_path: Path
) -> None:
    run = Run.create(config, tmp_path)

    def die(step: int, metrics: Mapping[str, float]) -> None:
        if step == 12:
            raise KilledError

    with pytest.raises(KilledError):
        distill(run, on_step=die)
    assert len(run.checkpoints) == 1
    assert distill(Run.open(run.folder))
    assert numbers(run) == numbers(finished)
    assert run.last_evaluation == finished.last_evaluation


def test_without_a_right_solution_there_is_nothing_to_learn(
    config: TrainConfig, tmp_path: Path
) -> None:
    silent = ScriptedExperts(lambda query: None)
    with pytest.raises(ValueError, match="of 96 solutions of 24 problems, 0 are right"):
        distillation_trainer(config, experts=silent).train(Run.create(config, tmp_path))
    with pytest.raises(ValueError, match="kind=silent"):
        distillation_trainer(replace(config, experts=ExpertSettings(kind="silent")))


def test_each_kind_of_run_has_its_command(config: TrainConfig, tiny_config: TrainConfig) -> None:
    with pytest.raises(ValueError, match="'tiny' has a section distillation"):
        Trainer.from_config(config)
    with pytest.raises(ValueError, match="'tiny' has no section distillation"):
        distillation_trainer(tiny_config)


def test_two_distillations_in_one_folder_are_refused(config: TrainConfig, tmp_path: Path) -> None:
    run = Run.create(config, tmp_path)
    with run.exclusively(), pytest.raises(ValueError, match="another process is training in"):
        distill(run)
    assert not (run.folder / "solutions.jsonl").exists()


@pytest.mark.parametrize("name", ["learner.pt", "state.json"])
def test_a_damaged_checkpoint_is_an_error_that_says_how_to_resume(
    finished: Run, tmp_path: Path, name: str
) -> None:
    run = Run(shutil.copytree(finished.folder, tmp_path / "copy"))
    path = run.checkpoints[-1] / name
    path.write_bytes(path.read_bytes()[:5])
    with pytest.raises(ValueError, match=r"is damaged .* delete it to resume") as caught:
        distill(run)
    assert str(run.checkpoints[-1]) in str(caught.value)
    shutil.rmtree(run.checkpoints[-1])
    assert distill(run)
    assert numbers(run) == numbers(finished)


@pytest.mark.parametrize("step", [1, 9])
def test_ctrl_c_ends_the_step_and_leaves_a_checkpoint(
    config: TrainConfig, finished: Run, tmp_path: Path, step: int
) -> None:
    run = Run.create(config, tmp_path)

    def interrupt(done: int, metrics: Mapping[str, float]) -> None:
        if done == step:
            os.kill(os.getpid(), signal.SIGINT)

    assert not distill(run, on_step=interrupt)
    assert run.checkpoints[-1].name == f"step-{step:06d}"
    assert distill(run)
    assert numbers(run) == numbers(finished)


def test_ctrl_c_while_experts_are_asked_stops_at_once_and_keeps_their_solutions(
    config: TrainConfig, tmp_path: Path
) -> None:
    run = Run.create(config, tmp_path)

    def interrupt(done: int, of: int) -> None:
        if done == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        distill(run, on_problem=interrupt)
    assert len(read_solutions(run.folder / "solutions.jsonl")) >= 5
    assert not run.metrics


def test_parts_given_in_python_replace_those_of_the_config(
    config: TrainConfig, tmp_path: Path
) -> None:
    teachers = Teachers()
    problems = [Problem(id=f"mine-{n}", statement=f"p{n}", answer="7") for n in range(3)]
    held_out = [Problem(id="q", statement="q", answer="7")]
    trainer = distillation_trainer(
        replace(config, steps=1), experts=teachers, problems=problems, held_out=held_out
    )
    assert trainer.held_out == held_out
    run = Run.create(config, tmp_path)
    assert trainer.train(run)
    assert {query.statement for query in teachers.asked} == {"p0", "p1", "p2"}
    assert right_solutions(read_solutions(run.folder / "solutions.jsonl")["mine-0"]) == [WRONG]


def test_what_was_collected_is_not_asked_for_again(verifier: Verifier, tmp_path: Path) -> None:
    """Half the problems first, a line cut short by a crash, then all of them."""
    problems = [Problem(id=f"p{n}", statement=f"p{n}", answer="3") for n in range(6)]
    teachers, told = Teachers(), []
    collection = SolutionCollector(
        solvers=teachers,
        verifier=verifier,
        prompts=Prompts.terse(),
        settings=DistillationSettings(samples_per_problem=2, problems_at_once=1),
    )
    path = tmp_path / "solutions.jsonl"

    def collect(some: Sequence[Problem]) -> dict[str, list[Solution]]:
        return asyncio.run(
            collection.collect(some, path, lambda done, total: told.append((done, total)))
        )

    collect(problems[:3])
    assert told == [(n, 3) for n in range(4)]
    path.write_bytes(path.read_bytes()[:-5])
    teachers.asked.clear()
    found = collect(problems)
    assert sorted({query.statement for query in teachers.asked}) == ["p2", "p3", "p4", "p5"]
    assert {id: [s.text for s in of] for id, of in found.items()} == {
        problem.id: [RIGHT, WRONG] for problem in problems
    }
    teachers.asked.clear()
    assert collect(problems) == found
    assert not teachers.asked
    fewer = replace(collection, settings=DistillationSettings(samples_per_problem=1))
    kept = asyncio.run(fewer.collect(problems, path, lambda *_: None))
    assert {id: [s.sample for s in of] for id, of in kept.items()} == {p.id: [0] for p in problems}
    path.write_text('{"problem": 7}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"solutions.jsonl, line 1 holds no Solution"):
        collect(problems)


def test_a_recording_is_used_before_anybody_is_asked(
    verifier: Verifier, config: TrainConfig, tmp_path: Path
) -> None:
    run, recording = Run.create(config, tmp_path), tmp_path / "recording.jsonl"
    rows = [
        Solution(problem=f"p{n}", sample=0, expert="e", text=RIGHT, status="correct")
        for n in (1, 2)
    ]
    recording.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))
    add_solutions(recording, run)
    add_solutions(recording, run)
    found = read_solutions(run.folder / "solutions.jsonl")
    assert found == {row.problem: [row] for row in rows}
    with pytest.raises(UserError, match="there is no recording nowhere"):
        add_solutions(Path("nowhere"), run)
    recording.write_text(json.dumps(asdict(Query(text="?"))) + "\n")
    with pytest.raises(UserError, match=r"holds replies to queries, .* experts.kind=replay"):
        add_solutions(recording, run)


def test_what_a_limit_cut_is_no_solution(verifier: Verifier, tmp_path: Path) -> None:
    """The box is there, and perhaps not the last one."""
    collection = SolutionCollector(
        solvers=ScriptedExperts(lambda query: f"{RIGHT} or{CUT_MARK}"),
        verifier=verifier,
        prompts=Prompts.terse(),
        settings=DistillationSettings(samples_per_problem=1),
    )
    path = tmp_path / "solutions.jsonl"
    problems = [Problem(id="p", statement="p", answer="3")]
    found = asyncio.run(collection.collect(problems, path, lambda *_: None))
    assert [(one.status, one.text) for one in found["p"]] == [("unavailable", "")]


@dataclass(frozen=True)
class Absent:
    """Experts that never come."""

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        raise ConnectionError("nobody there")


def test_experts_that_fail_are_reported_once(
    verifier: Verifier, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    collection = SolutionCollector(
        solvers=Absent(),
        verifier=verifier,
        prompts=Prompts.terse(),
        settings=DistillationSettings(samples_per_problem=2),
        monitor=ExpertMonitor(clock=lambda: 0.0),
    )
    problems = [Problem(id=f"p{n}", statement=f"p{n}", answer="3") for n in range(6)]
    asyncio.run(collection.collect(problems, tmp_path / "solutions.jsonl", lambda *_: None))
    [told] = [one for one in caplog.messages if "expert replies did not come" in one]
    assert "nobody there" in told


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_the_procedural_expert_writes_right_solutions(
    brackets: int, operations: int, seed: int
) -> None:
    (problem,) = synthetic_problems(1, brackets=brackets, operations=operations, seed=seed)
    text = worked_solution(Query(text="", statement=problem.statement))
    assert text
    assert text.endswith(f"\\boxed{{{int(problem.answer):02}}}")
    assert text.count("=") == brackets * operations + brackets + (brackets - 1)


@given(st.text())
def test_other_statements_have_no_worked_solution(statement: str) -> None:
    assert worked_solution(Query(text=statement, statement=statement)) is None


def test_the_preset_keeps_all_but_the_method() -> None:
    config = distilled(embedded(), lora_rank=8)
    assert config.name == "embedded-distilled-lora"
    assert config.distillation
    assert config.model.lora.rank == 8
    assert TrainConfig.from_json(config.to_json()) == config
    assert config.experts == embedded().experts


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with StubServer() as server:
        yield server


def test_servers_are_asked_for_whole_solutions_with_their_reasoning(server: Any) -> None:
    experts = ExpertSettings(
        kind="openai", endpoints=(Endpoint(base_url=server.url, models=("think",)),)
    )
    pool = experts.solvers(max_tokens=99, timeout_s=60.0)
    (reply,) = asyncio.run(pool.ask([Query(text="6 x 7?")]))
    assert reply == Reply("think", "<think>\nseven times six\n</think>\n\n42")
    body = server.records("think")[-1]["body"]
    assert body["messages"] == [{"role": "user", "content": "6 x 7?"}]
    assert body["max_tokens"] == 99


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_that_is_sent_apart_is_put_before_the_answer(name: str) -> None:
    message = {"content": "42", name: "six sevens\n"}
    reply = read_with_reasoning({"choices": [{"message": message}]}, "m")
    assert reply == Reply("m", "<think>\nsix sevens\n</think>\n\n42")


@given(st.recursive(st.none() | st.text() | st.integers(), lambda x: st.lists(x), max_leaves=5))
def test_reading_with_reasoning_is_total(value: object) -> None:
    message = {"content": value, "reasoning": value}
    reply = read_with_reasoning({"choices": [{"message": message}]}, "m")
    assert isinstance(reply, Reply | Unavailable)


@pytest.mark.parametrize(
    ("text", "opens", "learned"),
    [
        (REASONED, False, REASONED),
        (REASONED, True, REASONED.removeprefix("<think>\n")),
        (PLAIN, False, PLAIN),
        (PLAIN, True, f"</think>\n\n{PLAIN}"),
    ],
)
def test_a_lesson_is_a_turn_that_counts(
    tokenizer: PreTrainedTokenizerFast,
    verifier: Verifier,
    text: str,
    opens: bool,
    learned: str,
) -> None:
    """Templates of some reasoning models open the thought themselves: it is closed once."""
    template = tokenizer.chat_template + ("{{ '<think>\\n' }}" if opens else "")
    changed = tokenizer.__class__(
        tokenizer_object=tokenizer.backend_tokenizer,
        eos_token=tokenizer.eos_token,
        chat_template=template,
    )
    chat = Chat(changed)
    problem = Problem(id="p", statement="1+1", answer="2")
    lesson = encode_solution(problem, text, chat, Prompts.terse())
    whole = changed.decode(lesson.token_ids, skip_special_tokens=False)
    assert whole.count("<think>") == (opens or "<think>" in text)
    written = lesson.token_ids[np.asarray(lesson.mask)].tolist()
    assert chat.text(written) == learned
    (verdict,) = verifier.verify([(chat.turn(written), problem.answer)])
    assert verdict.status is Status.CORRECT
