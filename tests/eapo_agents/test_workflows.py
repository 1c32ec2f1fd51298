"""Offline workflows: whom the policy meets under each condition, and the commands for real."""

from __future__ import annotations

import asyncio
import json
import runpy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from transformers import PreTrainedTokenizerFast

from eapo_agents.chat_model import PolicyChat
from eapo_agents.cli import main
from eapo_agents.config import TrainConfig, with_settings
from eapo_agents.console_evaluation import evaluated, problem_sets
from eapo_agents.console_workflows import _evaluations, _method
from eapo_agents.evaluate import Report
from eapo_agents.evaluations import read_evaluation
from eapo_agents.policy import ScriptedPolicy
from eapo_agents.pools import pool_endpoints
from eapo_agents.presets import embedded, preset_named, r1_distill_qwen_7b
from eapo_agents.solutions import Solution, read_solutions
from eapo_agents.workflows import (
    Condition,
    Workflow,
    draw_solutions,
    error_rate,
    usual_replies,
)
from eapo_env.endpoints import Endpoint
from eapo_env.types import Problem

STUB = runpy.run_path(str(Path(__file__).parents[1] / "eapo_env" / "stub_server.py"))
PROBLEMS = [Problem(id=f"p{n}", statement=f"statement {n}", answer="3") for n in range(3)]
CONFIG = with_settings(embedded(), ["evaluation.samples_per_problem=2"])


def solutions(num_right: int, num_wrong: int, whose: str = "p") -> list[Solution]:
    texts = ["\\boxed{3}"] * num_right + [f"\\boxed{{{10 + n}}}" for n in range(num_wrong)]
    return [
        Solution(
            problem=whose,
            sample=sample,
            expert="expert",
            text=text,
            status="correct" if sample < num_right else "wrong",
        )
        for sample, text in enumerate(texts)
    ]


RECORDED = {problem.id: solutions(4, 4, problem.id) for problem in PROBLEMS}


def played(
    tokenizer: PreTrainedTokenizerFast,
    condition: Condition,
    script: Callable[[str, np.random.Generator], str],
    workflow: Workflow | None = None,
    config: TrainConfig = CONFIG,
) -> Report:
    workflow = workflow or Workflow(solutions=RECORDED)
    model = PolicyChat(ScriptedPolicy(tokenizer, script))
    return asyncio.run(workflow.evaluate(config, model, condition, PROBLEMS))


def replies(prompt: str) -> list[str]:
    return [part.partition("</reply>")[0] for part in prompt.split("<reply>")[1:]]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("alone", []),
        ("self", ["7", "7", "7"]),
        ("meaningless", ["There is nothing I can tell you"] * 3),
    ],
)
def test_what_the_policy_reads(
    tokenizer: PreTrainedTokenizerFast, condition: Condition, expected: list[str]
) -> None:
    """A policy that answers 7 alone, and 3 once it has read replies."""
    seen: list[list[str]] = []

    def script(prompt: str, rng: np.random.Generator) -> str:
        heard = replies(prompt)
        if heard or condition == "alone":
            seen.append(heard)
        return "\\boxed{3}" if heard else "\\boxed{7}"

    report = played(tokenizer, condition, script)
    assert len(seen) == 3 * 2
    for heard in seen:
        assert [h[: len(e)] for h, e in zip(heard, expected, strict=True)] == expected
    assert report.mean_at_k == (0.0 if condition == "alone" else 1.0)
    assert report.call_rate == (0.0 if condition == "alone" else 1.0)
    assert report.response_tokens == 4, "replicas' and forced tokens are not the policy's"


@pytest.mark.parametrize("condition", ["recorded", "erroneous"])
def test_recorded_solutions_stand_in_for_the_experts(
    tokenizer: PreTrainedTokenizerFast, condition: Condition
) -> None:
    seen: list[tuple[str, ...]] = []

    def script(prompt: str, rng: np.random.Generator) -> str:
        seen.append(tuple(replies(prompt)))
        return "\\boxed{3}"

    played(tokenizer, condition, script)
    assert len(set(seen)) <= 3, "all samples of a problem meet the same solutions"
    texts = {text for heard in seen for text in heard}
    wrong = {str(10 + n) for n in range(4)}
    assert texts <= wrong if condition == "erroneous" else texts & {"3"}


def test_with_turns_the_policy_consults_as_it_likes(tokenizer: PreTrainedTokenizerFast) -> None:
    def script(prompt: str, rng: np.random.Generator) -> str:
        if "statement 0" in prompt and not replies(prompt):
            return "<consult>\n<query>ask</query>\n</consult>"
        return "\\boxed{3}"

    workflow = Workflow(turn_budget=2, solutions=RECORDED)
    report = played(tokenizer, "recorded", script, workflow)
    assert report.call_rate == pytest.approx(1 / 3)
    assert report.mean_at_k == 1.0


@given(
    num_right=st.integers(0, 6),
    num_wrong=st.integers(0, 6),
    number=st.integers(1, 4),
    wrong=st.booleans(),
    seed=st.integers(0, 99),
)
def test_drawing_solutions(
    num_right: int, num_wrong: int, number: int, wrong: bool, seed: int
) -> None:
    """Distinct ones; all wrong if that is wanted and there are enough wrong ones."""
    there = solutions(num_right, num_wrong)
    lost = Solution(problem="p", sample=99, expert="", text="", status="unavailable")

    def drawn() -> list[Solution]:
        rng = np.random.default_rng(seed)
        return draw_solutions([*there, lost], number, rng, wrong=wrong, whose="p")

    if num_right + num_wrong < number:
        with pytest.raises(ValueError, match=f"{len(there)} recorded solutions of problem 'p'"):
            drawn()
        return
    first = drawn()
    assert first == drawn()
    assert len({solution.sample for solution in first}) == number
    assert lost not in first
    if wrong and num_wrong >= number:
        assert error_rate([first]) == 1.0


def test_the_error_rate_by_hand() -> None:
    assert error_rate([solutions(2, 1), solutions(0, 3)]) == 4 / 6


MODELS = ("R1-Qwen-7B", "R1-Qwen-14B", "QwQ-32B")
SERVED = tuple(
    Endpoint(base_url=f"http://127.0.0.1:{port}/v1", models=(model,))
    for port, model in enumerate(MODELS, start=8000)
)


@pytest.mark.parametrize(
    ("pool", "models"),
    [
        ("7B+14B+32B", MODELS),
        ("32b x3", ("QwQ-32B",) * 3),
        (" 14B x2 + QwQ-32B", ("R1-Qwen-14B", "R1-Qwen-14B", "QwQ-32B")),
    ],
)
def test_pools_by_name(pool: str, models: Sequence[str]) -> None:
    assert [endpoint.models for endpoint in pool_endpoints(pool, SERVED)] == [(m,) for m in models]


@pytest.mark.parametrize(
    ("pool", "message"), [("70B", "'70B' fits none"), ("Qwen", "'Qwen' fits"), ("7B+", "NAME")]
)
def test_a_pool_that_is_not_served_is_refused(pool: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pool_endpoints(pool, SERVED)


def test_the_pool_of_table_6_is_served_by_a_preset() -> None:
    endpoints = preset_named("mixed_experts").experts.endpoints
    assert len(pool_endpoints("7B+14B+32B", endpoints)) == 3


def test_the_commands_on_a_model_and_served_experts(
    tiny_settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every held-out problem's answer is 3; one expert knows it, the other says 4."""
    recording, out = tmp_path / "recording.jsonl", tmp_path / "out"
    with STUB["StubServer"]() as server:
        endpoint = {"base_url": server.url, "models": ["solve:3", "solve:4"]}
        pool = f"experts.endpoints={json.dumps([endpoint])}"
        given = [part for s in (*tiny_settings, pool) for part in ("--set", s)]
        given += ["--pool", "solve:3 + solve:4 x3"]
        record = ["record-experts", str(recording), "--samples", "4", *given]
        assert main(record) == 0
        assert "16 solutions of 4 problems, 4 right, 12 wrong" in capsys.readouterr().out
        asked = len(server.records("solve:4"))
        assert main(record) == 0
        assert len(server.records("solve:4")) == asked, "what is recorded is not asked again"
        model = next(s for s in tiny_settings if s.startswith("model.path=")).partition("=")[2]
        conditions = ["alone", "self", "experts", "recorded", "erroneous", "meaningless"]
        command = ["workflow", model, *conditions, "--recording", str(recording), *given]
        assert main([*command, "--out", str(out)]) == 0
        texts = [call["text"] for call in server.records("solve:3")]
    assert {"q0", "q1", "q2", "q3"} <= set(texts)
    assert len(read_solutions(recording)["q0"]) == 4
    files = [out / f"{condition}.json" for condition in conditions]
    assert sorted(out.iterdir()) == sorted(files)
    found = {file.stem: read_evaluation(file) for file in files}
    assert found["erroneous"].wrong_replies == {"held_out": 1.0}
    assert found["recorded"].wrong_replies["held_out"] >= 2 / 3
    reports = [one.reports["held_out"] for one in found.values()]
    assert all(len(report.correct_PK) == 4 for report in reports)
    assert [report.call_rate for report in reports] == [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]

    alone = str(tmp_path / "alone.json")
    assert main(["evaluate", model, *given[:-2], "--json", alone]) == 0
    assert read_evaluation(Path(alone)).reports == found["alone"].reports
    assert main(["compare", str(out / "experts.json"), alone]) == 0
    assert f"{model}, experts - {model}, alone" in " ".join(capsys.readouterr().out.split())


def test_a_served_model_collaborates_with_itself(
    tiny_settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with STUB["StubServer"]() as server:
        settings = [s for s in tiny_settings if not s.startswith("model.path")]
        settings.append(f"model.api.base_url={server.url}")
        given = [part for s in settings for part in ("--set", s)]
        command = ["workflow", "solve:3", "self", *given, "--out", str(tmp_path)]
        assert main(command) == 0
        calls = server.records("solve:3")
    assert len(calls) == 4 * 2 * (3 + 1), "three replicas and the policy in each episode"
    last = [call["body"]["messages"] for call in calls if len(call["body"]["messages"]) == 3]
    assert len(last) == 4 * 2
    assert all(messages[2]["content"].count("<reply>3</reply>") == 3 for messages in last)
    assert read_evaluation(tmp_path / "self.json").reports["held_out"].mean_at_k == 1.0


def test_a_workflow_whose_server_died_goes_on(
    tiny_settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight turns, half a second each, one at a time; the server dies in the fifth."""
    with STUB["StubServer"]() as server:
        settings = [s for s in tiny_settings if not s.startswith("model.path")]
        settings += [f"model.api.base_url={server.url}", "model.api.max_live_calls=1"]
        given = [part for s in [*settings, "model.api.max_retries=0"] for part in ("--set", s)]
        command = ["workflow", "delay:0.5", "meaningless", *given, "--out", str(tmp_path)]
        with ThreadPoolExecutor() as pool:
            status = pool.submit(main, command)
            server.wait_for("delay:0.5", 5)
            server.kill()
        assert status.result() == 2
        assert "eapo: " in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ["meaningless.json.partial"]
        _, *done = (tmp_path / "meaningless.json.partial").read_text().splitlines()
        assert done
        server.start()
        assert main(command) == 0
        assert len(server.records("delay:0.5")) == 8 - 2 * len(done)
    (report,) = read_evaluation(tmp_path / "meaningless.json").reports.values()
    assert report.num_problems == 4
    assert not (tmp_path / "meaningless.json.partial").exists()


def test_a_condition_that_is_finished_is_not_played_again(
    tokenizer: PreTrainedTokenizerFast, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    """The model dies in the second condition; the same evaluations go on from there."""
    prompts: list[str] = []

    def script(prompt: str, rng: np.random.Generator) -> str:
        prompts.append(prompt)
        if len(prompts) == dies_at:
            raise KeyError("the policy dies")
        return "\\boxed{3}"

    sets = problem_sets(tiny_config, [])
    model = PolicyChat(ScriptedPolicy(tokenizer, script))
    methods = [
        _method(tiny_config, Workflow(), model, condition, sets)
        for condition in ("alone", "meaningless")
    ]
    dies_at = 8 + 3
    with pytest.raises(KeyError, match="the policy dies"):
        asyncio.run(_evaluations(tiny_config, methods, sets, tmp_path))
    assert (tmp_path / "alone.json").exists()
    dies_at = 0
    prompts.clear()
    asyncio.run(_evaluations(tiny_config, methods, sets, tmp_path))
    assert 0 < len(prompts) <= 8, "nothing but the second condition"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"alone.json", "meaningless.json"}


@pytest.mark.parametrize(
    "changed",
    [
        lambda c: replace(c, vllm=replace(c.vllm, max_batch=3)),
        lambda c: replace(c, policy_server=replace(c.policy_server, base_url="http://other:1")),
    ],
)
def test_an_evaluation_does_not_go_on_with_another_sampler(
    tokenizer: PreTrainedTokenizerFast,
    tiny_config: TrainConfig,
    changed: Callable[[TrainConfig], TrainConfig],
    tmp_path: Path,
) -> None:
    sets = problem_sets(tiny_config, [])
    model = PolicyChat(ScriptedPolicy(tokenizer, lambda *_: "\\boxed{3}"))
    method = _method(tiny_config, Workflow(), model, "alone", sets)
    file, console = tmp_path / "alone.json", Console(file=StringIO())
    asyncio.run(evaluated(console, tiny_config, method, sets, file))
    with pytest.raises(ValueError, match="results of another model, settings or problems"):
        asyncio.run(evaluated(console, changed(tiny_config), method, sets, file))


def test_an_evaluation_does_not_go_on_with_another_recording(
    tokenizer: PreTrainedTokenizerFast, tiny_config: TrainConfig
) -> None:
    """The same experts and samples, and one other text."""
    sets = problem_sets(tiny_config, [])
    model = PolicyChat(ScriptedPolicy(tokenizer, lambda *_: "\\boxed{3}"))
    recorded = {p.id: solutions(3, 0, p.id) for p in sets[0].problems}
    (first, *_), *_ = recorded.values()
    other = recorded | {first.problem: [replace(s, text="?") for s in recorded[first.problem]]}
    one, same, another = (
        _method(tiny_config, Workflow(solutions=texts), model, "recorded", sets).subject
        for texts in (recorded, dict(recorded), other)
    )
    assert one == same
    assert one != another


def test_a_model_is_given_as_many_replies_as_it_knows() -> None:
    assert usual_replies(r1_distill_qwen_7b(), None) == 3
    assert usual_replies(embedded(), None) == 1
    assert usual_replies(embedded(), 2) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recorded"], "0 recorded solutions of problem 'q0', of 1 wanted"),
        (["experts", "--turns", "1"], "a turn budget of 2 or more: 1"),
        (["experts", "--replies", "0"], "num_replies must be at least 1, not 0"),
        (["experts", "--pool", "32B"], "'32B' fits none of the served models []"),
    ],
)
def test_bad_input_is_told_in_a_line(
    tiny_settings: list[str],
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [part for s in tiny_settings for part in ("--set", s)]
    model: Any = next(s for s in tiny_settings if s.startswith("model.path=")).partition("=")[2]
    assert main(["workflow", model, *arguments, *given]) == 2
    error = capsys.readouterr().err
    told = error.splitlines()[-1]
    assert told.startswith("eapo: ")
    assert message in told
