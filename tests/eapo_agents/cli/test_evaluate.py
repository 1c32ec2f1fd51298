"""`eapo evaluate`: what it prints, the file it writes, the journal beside it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from transformers import PreTrainedTokenizerFast

from eapo_agents.cli.evaluate import (
    EvaluationFiles,
    EvaluationMethod,
    problem_sets,
    show_evaluation,
)
from eapo_agents.rollouts.rollout import Rollout
from eapo_agents.testing import ScriptedPolicy
from eapo_agents.training.build import evaluate_alone
from eapo_agents.training.config import TrainConfig, with_settings
from eapo_env.experts import SilentExperts
from eapo_env.json_lines import JsonLines
from eapo_env.prompts import Prompts
from eapo_env.validation import UserError
from eapo_env.verifier import Verifier


def test_the_journal_beside_the_file_lasts_until_all_is_done(
    tokenizer: PreTrainedTokenizerFast, verifier: Verifier, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    """The policy dies in the second set; the same command resumes there, another model does not."""
    calls: list[str] = []

    def script(prompt: str, rng: np.random.Generator) -> str:
        calls.append(prompt)
        if len(calls) == dies_at:
            raise KeyError("the policy dies")
        return f"\\boxed{{{rng.integers(2, 4)}}}"

    held_out = tiny_config.evaluation.problems.source
    sets = problem_sets(tiny_config, [held_out, f"again={held_out}"])
    rollout = Rollout(
        policy=ScriptedPolicy(tokenizer, script),
        experts=SilentExperts(),
        verifier=verifier,
        prompts=Prompts.terse(),
    )
    method = EvaluationMethod(name="alone", evaluator=partial(evaluate_alone, tiny_config, rollout))
    shown, file = StringIO(), tmp_path / "result.json"
    files = EvaluationFiles(report=file, transcripts=tmp_path / "episodes.jsonl")
    console = Console(file=shown, width=200)
    dies_at = 12
    with pytest.raises(KeyError, match="the policy dies"):
        show_evaluation(console, tiny_config, method, sets, files)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "episodes.jsonl",
        "result.json.partial",
    ]
    other = replace(tiny_config, model=replace(tiny_config.model, path="other"))
    with pytest.raises(UserError, match="results of another model, settings or problems"):
        show_evaluation(console, other, method, sets, files)
    dies_at = 0
    calls.clear()
    show_evaluation(console, tiny_config, method, sets, files)
    assert 0 < len(calls) <= 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["episodes.jsonl", "result.json"]
    rows = JsonLines(tmp_path / "episodes.jsonl").read()
    played = {(row["set"], row["problem_id"]) for row in rows}
    assert played == {(name, f"q{n}") for name in ("held_out", "again") for n in range(4)}
    assert len(rows) == 16, "those of the first attempt are still there"
    written = json.loads(file.read_text(encoding="utf-8"))
    assert list(written["sets"]) == ["held_out", "again"]
    assert 'the paper\'s "Pass@2"' in shown.getvalue()


def test_two_episodes_are_shown_and_all_are_kept(
    tokenizer: PreTrainedTokenizerFast, verifier: Verifier, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    """One right, one wrong; what a model writes is text, and control characters are escapes."""

    def script(prompt: str, rng: np.random.Generator) -> str:
        text = "[bold]I think[/bold]: " + "x" * 1200
        return text if rng.random() < 0.5 else "Sure, \\boxed{3}"

    config = with_settings(tiny_config, ["evaluation.samples_per_problem=8"])
    rollout = Rollout(
        policy=ScriptedPolicy(tokenizer, script),
        experts=SilentExperts(),
        verifier=verifier,
        prompts=Prompts.terse(),
    )
    method = EvaluationMethod(name="alone", evaluator=partial(evaluate_alone, config, rollout))
    shown, file = StringIO(), tmp_path / "episodes.jsonl"
    file.write_text("an older evaluation\n")
    sets = problem_sets(config, [])
    files = EvaluationFiles(transcripts=file)
    found = show_evaluation(Console(file=shown, width=200), config, method, sets, files)
    rows = JsonLines(file).read()
    assert len(rows) == 32
    assert {row["given"] for row in rows if row["status"] == "correct"} == {"3"}
    wrong = [row for row in rows if row["status"] != "correct"]
    assert {(row["given"], row["status"], row["method"]) for row in wrong} == {
        (None, "no_answer", "alone")
    }
    report = found.reports["held_out"]
    assert report.no_answer_rate == report.malformed_rate == len(wrong) / 32
    assert report.truncation_rate == 0
    text = " ".join(shown.getvalue().split())
    assert text.count("example: problem q") == 2
    assert "correct (answered), gold answer '3', given '3'" in text
    assert "[bold]I think[/bold]:" in text
    assert "characters more)" in text
    for row in ("no final answer", "malformed turns", "cut by a limit"):
        assert row in text


def test_the_columns_of_a_file_are_a_setting(tiny_config: TrainConfig, tmp_path: Path) -> None:
    file = tmp_path / "my.jsonl"
    file.write_text('{"question": "1+1", "final": "2"}\n', encoding="utf-8")
    with pytest.raises(UserError, match="name them: columns=") as caught:
        problem_sets(tiny_config, [f"mine={file}"])
    assert "'evaluation.problems.columns={...}' for evaluation" in caught.value.__notes__[0]
    remedy = f"evaluation.problems.{str(caught.value).rpartition('name them: ')[2]}"
    [mine] = problem_sets(with_settings(tiny_config, [remedy]), [f"mine={file}"])
    assert (mine.name, mine.problems[0].statement) == ("mine", "1+1")


def test_two_sets_of_one_name_are_refused(tiny_config: TrainConfig) -> None:
    source = tiny_config.evaluation.problems.source
    with pytest.raises(UserError, match="two problem sets are named 'held_out'"):
        problem_sets(tiny_config, [source, source])
