"""Benchmarks that are interrupted keep what is finished."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from forked import run_forked

from eapo_agents.files import resume_journal
from eapo_agents.methods.benchmarks.run import BenchmarkResult
from eapo_env.json_lines import JsonLines
from eapo_env.validation import UserError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
RESULT = BenchmarkResult(name="gpqa", title="GPQA", status="success", samples=3, value=0.5)


def test_the_list_of_benchmarks_does_not_need_the_harness() -> None:
    code = (
        "import sys; from eapo_agents.methods.benchmarks.tasks import BENCHMARKS;"
        "print(len(BENCHMARKS), sum(name.startswith('inspect_') for name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == ["7", "0"]


def test_what_failed_is_run_again() -> None:
    assert not RESULT.failed
    assert replace(RESULT, error="a row that died").failed
    assert replace(RESULT, status="error").failed


def test_a_journal_is_of_one_model_and_its_settings(tmp_path: Path) -> None:
    journal = JsonLines(tmp_path / "new" / "results.json.partial")
    assert resume_journal(journal, {"model": "m", "limits": (1, 2)}, BenchmarkResult) == []
    journal.append(asdict(RESULT))
    with journal.path.open("a", encoding="utf-8") as file:
        file.write('{"name": "cut sho')
    again = resume_journal(journal, {"model": "m", "limits": (1, 2)}, BenchmarkResult)
    assert again == [RESULT]
    with pytest.raises(UserError, match="holds results of another model, settings or problems"):
        resume_journal(journal, {"model": "another"}, BenchmarkResult)
    journal.path.write_text('{"model": "m"}\n{"name": 7}\n', encoding="utf-8")
    with pytest.raises(UserError, match="line 2 holds no BenchmarkResult"):
        resume_journal(journal, {"model": "m"}, BenchmarkResult)


INTERRUPTED = r"""
import json, os, signal, sys
from pathlib import Path

from inspect_ai.model import ModelOutput, ModelUsage, get_model

from eapo_agents.files import resume_journal
from eapo_agents.methods.benchmarks.run import BenchmarkResult, BenchmarkSettings, evaluate_model
from eapo_env.json_lines import JsonLines

folder, asked, interrupts = Path(sys.argv[1]), [], True
journal = JsonLines(folder / "results.json.partial")


def reply(input, tools, tool_choice, config):
    asked.append(input[-1].text)
    if interrupts and len(asked) > 1:
        os.kill(os.getpid(), signal.SIGINT)
    output = ModelOutput.from_content("mockllm", "ANSWER: A")
    output.usage = ModelUsage()
    return output


def finished():
    return resume_journal(journal, {}, BenchmarkResult)


def results():
    settings = BenchmarkSettings(tasks=("gpqa", "mmlu", "hotpotqa"), sample=True, limit=1)
    model = get_model("mockllm/model", custom_outputs=reply, memoize=False)
    found = evaluate_model(
        model, settings, folder, grader=model, finished=finished(), journal=journal
    )
    return [[one.name, one.status, one.log] for one in found]


try:
    results()
except KeyboardInterrupt:
    before, interrupts, first = finished(), False, len(asked)
    print(json.dumps([[[r.name, r.log] for r in before], results(), len(asked) - first]))
"""


def test_interrupted_benchmarks_go_on(tmp_path: Path) -> None:
    """Ctrl-C in the second of three: the harness takes it for itself, and must not go on."""
    (tmp_path / "script.py").write_text(INTERRUPTED, encoding="utf-8")
    done = run_forked(tmp_path / "script.py", tmp_path)
    assert done.returncode == 0, done.stderr
    [[kept], found, num_asked] = json.loads(done.stdout.splitlines()[-1])
    assert kept[0] == "gpqa"
    assert [row[:2] for row in found] == [
        [name, "success"] for name in ("gpqa", "mmlu", "hotpotqa")
    ]
    assert found[0][2] == kept[1], "its log is the first one's"
    assert num_asked == 2
