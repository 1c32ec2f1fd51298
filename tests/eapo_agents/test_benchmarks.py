"""The benchmarks through the harness: a tiny served model, and a model that knows every answer."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from eapo_agents.benchmarks import NAMES, BenchmarkSettings
from eapo_agents.cli import main

ROOT = Path(__file__).parents[2]
STUB = runpy.run_path(str(ROOT / "tests" / "eapo_env" / "stub_server.py"))
ROWS = resources.files("eapo_agents") / "benchmark_rows"

SCRIPTED = r"""
import json, sys
from pathlib import Path

from inspect_ai.model import ModelOutput, ModelUsage, get_model

from eapo_agents.benchmarks import (
    NAMES, BenchmarkExperts, BenchmarkSettings, Served, evaluate_model
)
from eapo_agents.settings import ExpertSettings
from eapo_env.endpoints import Endpoint

folder, experts_url = Path(sys.argv[1]), sys.argv[2]
SETTINGS = BenchmarkSettings(sample=True, sandbox="local", limit=2)


def values(answers):
    def reply(input, tools, tool_choice, config):
        return output_to(input[-1].text, answers)

    policy = get_model("mockllm/model", custom_outputs=reply, memoize=False)
    asked = helped(policy) if experts_url else policy
    results = evaluate_model(asked, SETTINGS, folder, grader=policy)
    return {result.name: result.value for result in results}


def helped(policy):
    # Two experts who echo the whole question, and then a replica who does.
    served = Served(experts_url, "echo")
    endpoint = Endpoint(base_url=experts_url, models=("echo",))
    experts = ExpertSettings(kind="openai", endpoints=(endpoint,))
    inner = BenchmarkExperts(experts=experts, num_replies=2).before(policy, served, SETTINGS)
    return BenchmarkExperts(num_replies=1).before(inner, served, SETTINGS)


def output_to(prompt, answers):
    for beginning, answer in answers:
        if beginning in prompt:
            output = ModelOutput.from_content("mockllm", answer)
            output.usage = ModelUsage()  # else the harness counts tokens with a downloaded file
            return output
    raise ValueError(prompt)


sets = json.loads((folder / "answers.json").read_text())
print(json.dumps([values(answers) for answers in sets]))
"""
"""The harness in a process of its own, with its scripted model."""


def rows(name: str) -> list[dict[str, Any]]:
    text = (ROWS / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def fenced(row: dict[str, Any]) -> str:
    return f"```python\n{row['prompt']}{row['canonical_solution']}```"


def right_answers() -> list[tuple[str, str]]:
    """Return what a prompt contains, and the right reply to it; the graders' prompts first."""
    return [
        ("Just return the letters", "A"),
        ("GRADE: C", "The same. GRADE: C"),
        *((row["prompt"], fenced(row)) for row in rows("humaneval")),
        *((row["Question"], "ANSWER: A") for row in rows("gpqa")),
        *((row["question"], f"ANSWER: {'ABCD'[row['answer']]}") for row in rows("mmlu")),
        *((row["question"], f"Answer: {row['answer']}") for row in rows("hle")),
        *((row["question"], row["answer"]) for row in rows("hotpotqa")),
        *((row["problem"], row["answer"]) for row in rows("simpleqa")),
    ]


def graded(
    folder: Path, *answers: list[tuple[str, str]], experts: str = ""
) -> list[dict[str, float]]:
    """Return the value of each benchmark when a model answers so, or after experts at a URL."""
    (folder / "script.py").write_text(SCRIPTED, encoding="utf-8")
    (folder / "answers.json").write_text(json.dumps(answers), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, folder / "script.py", folder, experts],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    values: list[dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return values


def environment() -> dict[str, str]:
    """Return ours, with this interpreter as `python`, which the local sandbox runs."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    python_path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PATH": path, "PYTHONPATH": python_path, "COLUMNS": "300"}


def test_right_answers_earn_full_marks_and_wrong_ones_none(tmp_path: Path) -> None:
    """The wrong ones: code that raises, a wrong letter, and graders who say so."""
    wrong = {"A": "B", "The same. GRADE: C": "Not the same. GRADE: I", "ANSWER: A": "ANSWER: B"}
    answers = right_answers()
    others = [(start, wrong.get(answer, "ANSWER: D")) for start, answer in answers]
    full, none = graded(tmp_path, answers, others)
    assert full == dict.fromkeys(NAMES, 1.0)
    assert none == dict.fromkeys(NAMES, 0.0)


def test_a_model_with_experts_answers_what_their_replies_say(tmp_path: Path) -> None:
    """It looks at nothing but the last message, which relays the echoes of the whole question."""
    with STUB["StubServer"]() as server:
        (full,) = graded(tmp_path, right_answers(), experts=server.url)
        texts = [call["text"] for call in server.records("echo")]
    assert full == dict.fromkeys(NAMES, 1.0)
    asked = [sum(row["question"] in text for text in texts) for row in rows("hotpotqa")[:2]]
    assert asked == [3, 3], "two experts and a replica"


def test_a_served_model_is_put_through_all_seven(tiny_model: Path, tmp_path: Path) -> None:
    few = ["--sample", "--sandbox", "local", "--max-tokens", "8", "--limit", "1"]
    few += ["--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "eapo_agents.cli", "benchmarks", tiny_model, *few],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert report["model"] == str(tiny_model)
    assert [r["name"] for r in report["results"]] == list(NAMES)
    assert [(r["status"], r["samples"], r["error"]) for r in report["results"]] == [
        ("success", 1, "")
    ] * len(NAMES)
    assert all(Path(r["log"]).is_file() for r in report["results"])
    for title in ("HumanEval", "HLE", "GPQA", "MMLU", "EvalPlus", "HotpotQA", "SimpleQA"):
        assert title in done.stdout
    assert "graded by the policy itself" in done.stdout


def test_a_served_model_consults_its_replicas(tiny_model: Path, tmp_path: Path) -> None:
    few = ["--sample", "--max-tokens", "8", "--limit", "1", "--tasks", "gpqa", "simpleqa"]
    few += ["--experts", "self", "--replies", "2", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "eapo_agents.cli", "benchmarks", tiny_model, *few],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [(r["status"], r["samples"], r["error"]) for r in report["results"]] == [
        ("success", 1, "")
    ] * 2
    assert report["experts"] == {"experts": None, "num_replies": 2, "max_reply_tokens": 32}
    assert "with replicas" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "mmmlu"], "unknown benchmark 'mmmlu': they are humaneval, hle, gpqa"),
        (["--limit", "0"], "limit must be at least 1, not 0"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmarks", "embedded", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_paper_has_seven() -> None:
    assert BenchmarkSettings().tasks == NAMES
    assert len(NAMES) == 7
