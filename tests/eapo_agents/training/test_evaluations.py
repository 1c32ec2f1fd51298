"""Evaluations around a config: sets of problems, a run's newest, what a journal is about."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, fields, is_dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from eapo_agents.evaluation.evaluator import ProblemResult, report_on_results
from eapo_agents.evaluation.journal import Journal
from eapo_agents.training.config import TrainConfig
from eapo_agents.training.journal_subject import TRAINING_ONLY, evaluation_subject
from eapo_agents.training.presets import preset_named
from eapo_agents.training.problem_sets import ProblemSet
from eapo_agents.training.run_folder import Run, read_evaluation
from eapo_agents.training.settings import ProblemSettings
from eapo_env.types import Problem
from eapo_env.validation import UserError

SETS = [ProblemSet(name="x", problems=(Problem(id="p", statement="1 + 2", answer="3"),))]


def result(problem_id: str, *correct: bool) -> ProblemResult:
    k = len(correct)
    return ProblemResult(
        problem_id=problem_id,
        correct=correct,
        answers=tuple("3" if right else None for right in correct),
        response_tokens=(5,) * k,
        consulted=(False,) * k,
        truncated=(False,) * k,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correct_PK": [[True, False], [True]]}, r"correct_PK: problems of \[1, 2\] samples"),
        ({"correct_PK": []}, r"correct_PK: problems of \[\] samples"),
        ({"correct_PK": [[True, 7]]}, r"correct_PK.0.1: .*: 7"),
        ({"correct_PK": [[None]]}, r"correct_PK.0.0: .*: None"),
        ({"problem_ids": ["a"]}, "1 problem_ids for 2 problems"),
    ],
)
def test_verdicts_that_do_not_fit_are_an_error_with_the_file(
    change: dict[str, object], message: str, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    report = asdict(report_on_results([result("a", True, False), result("b", True, True)]))
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"sets": {"x": {**report, **change}}}), encoding="utf-8")
    run = Run.create(tiny_config, tmp_path)
    run.record_evaluation(1, {**report, **change})
    for given, named in ((path, path), (run.folder, run.evaluations[1])):
        with pytest.raises(UserError, match=f"{named} holds no Report: {message}"):
            read_evaluation(given)


def test_a_named_file_is_laid_out_as_its_source_or_as_any(tmp_path: Path) -> None:
    """AIME 2024 keeps its answers in the column of solutions."""
    solved, rest = tmp_path / "solved.jsonl", ProblemSettings()
    path = tmp_path / "rows.jsonl"
    row = {"id": "1", "problem": "p"}
    solved.write_text(json.dumps(row | {"solution": r"\boxed{7}"}), encoding="utf-8")
    path.write_text(json.dumps(row | {"answer": "8"}), encoding="utf-8")
    for text, name, answer in (
        (f"aime-2024={solved}", "aime-2024", "7"),
        (f"mine={path}", "mine", "8"),
        (str(path), "rows", "8"),
    ):
        found = ProblemSet.named(text, rest)
        assert (found.name, [one.answer for one in found.problems]) == (name, [answer])


def test_a_named_file_is_read_with_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"id": str(n), "problem": f"p{n}", "solution": r"\boxed{7}"} for n in range(3)]
    rows[0]["solution"] = ""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(UserError, match="column 'solution'"):
        ProblemSet.named(f"aime-2024={path}", ProblemSettings())
    with pytest.warns(UserWarning, match="1 "):
        found = ProblemSet.named(f"aime-2024={path}", ProblemSettings(skip_bad=True))
    assert [problem.id for problem in found.problems] == ["1", "2"]


def test_a_runs_newest_evaluation_goes_by_the_run_and_its_problems(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    run = Run.create(tiny_config, tmp_path)
    with pytest.raises(UserError, match="tiny-1 has no evaluation yet"):
        read_evaluation(run.folder)
    for step, right in ((9, False), (10, True)):
        run.record_evaluation(step, asdict(report_on_results([result("a", right)])))
    found = read_evaluation(str(run.folder))
    assert found.name == "tiny-1"
    assert found.reports == {"held_out": report_on_results([result("a", True)])}


def variants(config: TrainConfig) -> Iterator[tuple[tuple[str, ...], TrainConfig]]:
    """Yield, for each setting, its section and the config with another value, valid or not."""

    def places(section: Any, where: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        for field in fields(section):
            value = getattr(section, field.name)
            if is_dataclass(value) and fields(value):
                yield from places(value, (*where, field.name))
            else:
                yield *where, field.name

    for *sections, name in places(config, ()):
        other = deepcopy(config)
        section = reduce(getattr, sections, other)
        object.__setattr__(section, name, ["another value"])
        yield (*sections, name), other


@pytest.mark.parametrize("preset", ["embedded", "r1_distill_qwen_7b"])
def test_a_journal_is_refused_when_any_setting_but_a_few_has_changed(
    preset: str, tmp_path: Path
) -> None:
    config, path = preset_named(preset), tmp_path / "journal"
    Journal.open(path, evaluation_subject(config, SETS))
    changed = 0
    for (section, *rest), other in variants(config):
        subject = evaluation_subject(other, SETS)
        if {section, ".".join((section, *rest))} & set(TRAINING_ONLY):
            Journal.open(path, subject)
            continue
        with pytest.raises(UserError, match="results of another model, settings or problems"):
            Journal.open(path, subject)
        changed += 1
    assert changed > 20


def test_a_journal_is_refused_for_other_problems(tmp_path: Path) -> None:
    config, path = TrainConfig(), tmp_path / "journal"
    Journal.open(path, evaluation_subject(config, SETS))
    other = replace(SETS[0].problems[0], answer="4")
    for sets in ([replace(SETS[0], name="y")], [replace(SETS[0], problems=(other,))], []):
        with pytest.raises(UserError, match="results of another model, settings or problems"):
            Journal.open(path, evaluation_subject(config, sets))


def test_what_only_training_reads_is_a_setting() -> None:
    assert {name.split(".")[0] for name in TRAINING_ONLY} <= set(asdict(TrainConfig()))
