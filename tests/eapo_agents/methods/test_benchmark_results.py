"""Benchmarks that are interrupted keep what is finished."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from eapo_agents.methods.benchmarks.run import BenchmarkResult, Kept

ROOT = Path(__file__).parents[3]
RESULT = BenchmarkResult(name="gpqa", title="GPQA", status="success", samples=3, value=0.5)


def test_what_failed_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.json.partial"
    kept = Kept.open(path, {"model": "m"})
    kept.add(replace(RESULT, name="hle", error="a row that died"))
    kept.add(replace(RESULT, name="mmlu", status="error"))
    kept.add(RESULT)
    assert Kept.open(path, {"model": "m"}).results == {"gpqa": RESULT}
    with path.open("a", encoding="utf-8") as file:
        file.write('{"name": "cut sho')
    assert Kept.open(path, {"model": "m"}).results == {"gpqa": RESULT}
    with pytest.raises(ValueError, match="keeps results of another model or settings"):
        Kept.open(path, {"model": "another"})
    path.write_text('{"model": "m"}\n{"name": 7}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="holds no BenchmarkResult"):
        Kept.open(path, {"model": "m"})


INTERRUPTED = r"""
import json, os, signal, sys
from pathlib import Path

from inspect_ai.model import ModelOutput, ModelUsage, get_model

from eapo_agents.methods.benchmarks.run import Kept
from eapo_agents.methods.benchmarks.run import BenchmarkSettings, evaluate_model

folder, asked, interrupts = Path(sys.argv[1]), [], True


def reply(input, tools, tool_choice, config):
    asked.append(input[-1].text)
    if interrupts and len(asked) > 1:
        os.kill(os.getpid(), signal.SIGINT)
    output = ModelOutput.from_content("mockllm", "ANSWER: A")
    output.usage = ModelUsage()
    return output


def results():
    settings = BenchmarkSettings(tasks=("gpqa", "mmlu", "hotpotqa"), sample=True, limit=1)
    model = get_model("mockllm/model", custom_outputs=reply, memoize=False)
    kept = Kept.open(folder / "results.json.partial", {})
    found = evaluate_model(model, settings, folder, grader=model, kept=kept)
    return [[one.name, one.status, one.log] for one in found]


try:
    results()
except KeyboardInterrupt:
    before = list(Kept.open(folder / "results.json.partial", {}).results.values())
    interrupts, first = False, len(asked)
    print(json.dumps([[[r.name, r.log] for r in before], results(), len(asked) - first]))
"""


def test_interrupted_benchmarks_go_on(tmp_path: Path) -> None:
    """Ctrl-C in the second of three: the harness takes it for itself, and must not go on."""
    (tmp_path / "script.py").write_text(INTERRUPTED, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", tmp_path],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    [[kept], found, num_asked] = json.loads(done.stdout.splitlines()[-1])
    assert kept[0] == "gpqa"
    assert [row[:2] for row in found] == [
        [name, "success"] for name in ("gpqa", "mmlu", "hotpotqa")
    ]
    assert found[0][2] == kept[1], "its log is the first one's"
    assert num_asked == 2
