"""The benchmarks through the harness: a tiny served model, and a model that knows every answer."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from command import ENVIRONMENT, eapo_forked
from stub_server import StubServer

from eapo_agents.cli import main
from eapo_agents.methods.benchmarks.run import BenchmarkSettings
from eapo_agents.methods.benchmarks.served_model import ServedModel, serve_model
from eapo_agents.methods.benchmarks.tasks import BENCHMARKS
from eapo_agents.policies.models import ModelSettings
from eapo_agents.policies.openai import OpenAIEngine
from eapo_agents.policies.policy import NO_TRUNCATION, Sampling, Truncation
from eapo_env.types import Message

pytestmark = pytest.mark.slow

ROWS = resources.files("eapo_agents.methods.benchmarks") / "rows"

SCRIPTED = r"""
import json, sys
from dataclasses import asdict
from pathlib import Path

from inspect_ai.model import ModelOutput, ModelUsage, get_model

from eapo_agents.methods.benchmarks.run import BenchmarkExperts, BenchmarkSettings, evaluate_model
from eapo_agents.methods.benchmarks.served_model import ServedModel
from eapo_agents.policies.policy import Truncation
from eapo_agents.training.settings import ExpertSettings
from eapo_env.endpoints import Endpoint

folder, url = Path(sys.argv[1]), sys.argv[2]
asked = []


def results(case):
    def reply(input, tools, tool_choice, config):
        asked.append([config.max_tokens, config.temperature, config.top_p, config.extra_body])
        return output_to(input[-1].text, case["answers"])

    truncation = Truncation(**case.get("truncation", {}))
    settings = BenchmarkSettings(**case["settings"], truncation=truncation)
    model = get_model("mockllm/model", custom_outputs=reply, memoize=False)
    policy = helped(model, settings) if case.get("helped") else model
    fields = ServedModel(url, "echo").sampling_fields(settings.temperature, truncation)
    found = evaluate_model(policy, settings, folder, grader=model, fields=fields)
    return [asdict(one) for one in found]


def helped(model, settings):
    # Two experts who echo the whole question are asked after a replica who does.
    endpoint = Endpoint(base_url=url, models=("echo",))
    experts = ExpertSettings(kind="openai", endpoints=(endpoint,))
    served = ServedModel(url, "echo")
    inner = BenchmarkExperts(experts=experts, num_replies=2).before(model, served, settings)
    return BenchmarkExperts(num_replies=1).before(inner, served, settings)


def output_to(prompt, answers):
    for beginning, answer in answers:
        if beginning in prompt:
            output = ModelOutput.from_content("mockllm", answer)
            output.usage = ModelUsage()  # else the harness counts tokens with a downloaded file
            return output
    raise ValueError("nobody knows: " + prompt)


cases = json.loads((folder / "cases.json").read_text())
replicas = BenchmarkExperts()._pool(ServedModel(url, "echo"), BenchmarkSettings())
deadline_s = replicas.model.endpoint.call_timeout_s
print(json.dumps([[results(case) for case in cases], asked, deadline_s]))
"""
"""The harness in a process of its own, with its scripted model."""

LOCAL = ENVIRONMENT | {
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
}
"""The local sandbox runs `python`: it is this interpreter."""
WHOLE = {"top_k": -1, "min_p": 0.0}
"""The fields of a request to vLLM that keep every token."""

SAMPLE = {"sample": True, "sandbox": "local"}


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


def values(results: dict[str, Any]) -> dict[str, float]:
    return {name: result["value"] for name, result in results.items()}


def wrong_answers() -> list[tuple[str, str]]:
    """Code that raises, a wrong letter, and graders who say so."""
    wrong = {"A": "B", "The same. GRADE: C": "Not the same. GRADE: I", "ANSWER: A": "ANSWER: B"}
    return [(start, wrong.get(answer, "ANSWER: D")) for start, answer in right_answers()]


CASES: dict[str, dict[str, Any]] = {
    "right": {"settings": {**SAMPLE, "limit": 2}, "answers": right_answers()},
    "wrong": {"settings": {**SAMPLE, "limit": 2}, "answers": wrong_answers()},
    "settings": {
        "settings": {
            **SAMPLE,
            "tasks": ["gpqa", "simpleqa"],
            "limit": 1,
            "max_tokens": 7,
            "temperature": 0.5,
            "grader": "mockllm/model",
        },
        "truncation": {"top_p": 0.9, "top_k": 5, "min_p": 0.1},
        "answers": right_answers(),
    },
    "partial": {
        "settings": {**SAMPLE, "tasks": ["hotpotqa"], "limit": 1},
        "answers": [("", f"{rows('hotpotqa')[0]['answer']} perhaps maybe")],
    },
    "absent": {"settings": {"tasks": ["hotpotqa", "mmlu"]}, "answers": right_answers()},
    "helped": {
        "settings": {**SAMPLE, "limit": 1, "max_tokens": 9},
        "answers": right_answers(),
        "helped": True,
    },
    "dying": {"settings": {**SAMPLE, "tasks": ["gpqa"], "limit": 2}, "answers": []},
}


@dataclass(frozen=True, slots=True)
class Played:
    """What the cases came to: results by case and benchmark; how every call wanted to be sampled;
    what the experts and the replica were asked; how long a replica may take."""

    results: dict[str, dict[str, dict[str, Any]]]
    asked: list[list[Any]]
    questions: list[str]
    deadline_s: float


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """All cases, in one process and without any data of the hub."""
    folder = tmp_path_factory.mktemp("played")
    (folder / "script.py").write_text(SCRIPTED, encoding="utf-8")
    (folder / "cases.json").write_text(json.dumps(list(CASES.values())), encoding="utf-8")
    with StubServer() as server:
        done = subprocess.run(
            [sys.executable, folder / "script.py", folder, server.url],
            capture_output=True,
            text=True,
            env={**LOCAL, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub")}
            | {"XDG_CACHE_HOME": str(folder / "cache")},
        )
        questions = [call["text"] for call in server.records("echo")]
    assert done.returncode == 0, done.stderr
    found, asked, deadline_s = json.loads(done.stdout.splitlines()[-1])
    by_name = [{result["name"]: result for result in results} for results in found]
    return Played(dict(zip(CASES, by_name, strict=True)), asked, questions, deadline_s)


def test_right_answers_earn_full_marks_and_wrong_ones_none(played: Played) -> None:
    assert values(played.results["right"]) == dict.fromkeys(BENCHMARKS, 1.0)
    assert values(played.results["wrong"]) == dict.fromkeys(BENCHMARKS, 0.0)


def test_the_papers_column_is_the_f1_of_the_words(played: Played) -> None:
    """The answer's two words (articles do not count) and two more: precision 1/2, recall 1."""
    assert played.results["partial"]["hotpotqa"]["value"] == pytest.approx(2 / 3, abs=0.01)


def test_the_settings_reach_the_harness(played: Played) -> None:
    """A grader of its own says nothing that could be read as a grade; the letters need none."""
    found = played.results["settings"]
    assert (found["gpqa"]["value"], found["gpqa"]["samples"]) == (1.0, 1)
    assert found["simpleqa"]["value"] != 1.0
    sampled = [7, 0.5, 0.9, {"top_k": 5, "min_p": 0.1}]
    assert played.asked.count(sampled) == 2, "the policy answers both and grades none"
    assert [20_480, 1.0, 1.0, WHOLE] in played.asked, "the defaults, in the other cases"


def test_a_model_with_experts_answers_what_their_replies_say(played: Played) -> None:
    """It looks at nothing but the last message, which relays the echoes of the whole question."""
    assert values(played.results["helped"]) == dict.fromkeys(BENCHMARKS, 1.0)
    question = rows("hotpotqa")[0]["question"]
    assert sum(question in text for text in played.questions) == 3, "two experts and a replica"
    assert [9, 1.0, 1.0, WHOLE] in played.asked
    assert played.deadline_s == OpenAIEngine().call_timeout_s, (
        "a replica writes as long as a policy"
    )


def test_what_fails_says_so_and_stops_nothing_else(played: Played) -> None:
    """Two benchmarks whose data are not there, and rows that the model dies on."""
    assert list(played.results["absent"]) == ["hotpotqa", "mmlu"]
    for result in played.results["absent"].values():
        assert (result["status"], result["value"], result["samples"]) == ("error", None, 0)
        assert result["error"]
    dead = played.results["dying"]["gpqa"]
    assert "nobody knows" in dead["error"]
    assert (dead["samples"], dead["value"]) == (0, None)


def test_transformers_is_told_to_sample() -> None:
    """Unless a request says so, it takes the likeliest token always."""
    served = ServedModel("http://here/v1", "m", "transformers")
    fields = served.sampling_fields(0.5, Truncation(top_p=0.9, top_k=5))
    assert list(fields) == ["generation_config"]
    assert json.loads(str(fields["generation_config"])) == {
        "do_sample": True,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": None,
    }
    greedy = served.sampling_fields(0.0, Truncation())
    assert json.loads(str(greedy["generation_config"]))["do_sample"] is False
    assert json.loads(str(greedy["generation_config"]))["top_k"] == 0


def test_a_served_model_samples_and_a_truncation_reaches_it(tiny_model: Path) -> None:
    """The answers are random digits; of the likeliest token alone, always the same."""
    with serve_model(str(tiny_model)) as address:

        def answers(truncation: Truncation) -> set[str]:
            fields = {"top_k": None, "min_p": None} | address.sampling_fields(1.0, truncation)
            engine = OpenAIEngine(base_url=address.base_url, extra_body=fields)
            policy = engine.build(ModelSettings(path=address.name))
            sampling = Sampling(max_tokens=8, truncation=truncation)
            asked = (Message(role="user", content="p1"),)
            return {asyncio.run(policy.write(asked, sampling, seed)).text for seed in range(8)}

        assert len(answers(NO_TRUNCATION)) > 1
        assert len(answers(Truncation(top_k=1))) == 1


def reported(tiny_model: Path, folder: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """Return what the command writes into the folder, and what it prints."""
    done = eapo_forked("benchmarks", tiny_model, *arguments, "--out", folder, env=LOCAL)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    found = [(r["status"], r["samples"], r["error"]) for r in report["results"]]
    assert found == [("success", 1, "")] * len(found)
    return report, done.stdout


def test_a_served_model_and_its_replicas_are_put_through_all_seven(
    tiny_model: Path, tmp_path: Path
) -> None:
    few = ["--sample", "--sandbox", "local", "--max-tokens", "8", "--limit", "1", "--top-k", "5"]
    few += ["--experts", "self", "--replies", "2"]
    report, told = reported(tiny_model, tmp_path, *few)
    assert report["model"] == str(tiny_model)
    assert report["settings"]["truncation"] == {"top_p": 1.0, "top_k": 5, "min_p": 0.0}
    assert report["experts"] == {"experts": None, "num_replies": 2, "max_reply_tokens": 32}
    assert [r["name"] for r in report["results"]] == list(BENCHMARKS)
    assert all(Path(r["log"]).is_file() for r in report["results"])
    for title in ("HumanEval", "HLE", "GPQA", "MMLU", "EvalPlus", "HotpotQA", "SimpleQA"):
        assert title in told
    assert "graded by the policy itself" in told
    assert "with replicas" in told


def test_what_is_finished_is_kept_when_another_fails(tiny_model: Path, tmp_path: Path) -> None:
    """Code is to run in Docker, which is not there; then the same command is given again."""
    few = ["--tasks", "gpqa", "humaneval", "--sample", "--limit", "1", "--max-tokens", "8"]
    logs = []
    for _ in range(2):
        done = eapo_forked(
            "benchmarks",
            tiny_model,
            *few,
            "--out",
            tmp_path,
            env=LOCAL | {"DOCKER_HOST": "tcp://127.0.0.1:9"},
        )
        assert done.returncode == 1, done.stdout + done.stderr
        report = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
        gpqa, humaneval = report["results"]
        assert (gpqa["status"], humaneval["status"]) == ("success", "error")
        logs.append(gpqa["log"])
    assert logs[0] == logs[1], "it was not run again"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature", "-1"], "temperature must be at least 0, not -1.0"),
        (["--tasks", "mmmlu"], "unknown benchmark 'mmmlu': they are humaneval, hle, gpqa"),
        (["--limit", "0"], "limit must be at least 1, not 0"),
        (["--experts", "self", "--replies", "0"], "num_replies must be at least 1, not 0"),
        (["--experts", "experts"], "experts.kind=synthetic knows procedural problems only"),
        (["--experts", "experts", "--pool", "32B"], "'32B' fits none of the served models"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmarks", "embedded", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_paper_has_seven() -> None:
    assert BenchmarkSettings().tasks == tuple(BENCHMARKS)
    assert len(BENCHMARKS) == 7
