"""Two evaluations on the same problems: pairs by name and id, the command end to end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from eapo_agents import cli
from eapo_agents.evaluate import Report
from eapo_agents.evaluations import Evaluation, paired, write_evaluation


def report(**correct: Sequence[bool]) -> Report:
    """A report on some problems by their ids; only correctness is looked at."""
    return Report(
        samples_per_problem=2,
        num_problems=len(correct),
        mean_at_k=0.0,
        interval=(0.0, 0.0),
        variance=0.0,
        pass_at_k=0.0,
        majority_at_k=0.0,
        call_rate=0.0,
        response_tokens=0.0,
        truncation_rate=0.0,
        correct_PK=tuple(tuple(one) for one in correct.values()),
        problem_ids=tuple(correct),
    )


def evaluation(name: str, **sets: Report) -> Evaluation:
    return Evaluation(name=name, reports=sets)


FIRST = evaluation("new", x=report(p=(True, True), q=(True, False), r=(True, True)))
SECOND = evaluation("old", x=report(q=(False, False), p=(True, False), s=(True, True)))


def test_problems_are_paired_by_their_ids() -> None:
    [(a_P, b_P)] = paired(FIRST, SECOND).values()
    assert a_P.tolist() == [1.0, 0.5]
    assert b_P.tolist() == [0.5, 0.0]


def test_nothing_in_common_is_an_error() -> None:
    for other in (
        evaluation("o", y=SECOND.reports["x"]),
        evaluation("o", x=report(z=(True, True))),
    ):
        with pytest.raises(ValueError, match="new and o were not evaluated on the same problems"):
            paired(FIRST, other)


def test_the_command_says_how_much_better_the_first_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for one in (FIRST, SECOND):
        write_evaluation(one, tmp_path / f"{one.name}.json")
    assert cli.main(["compare", str(tmp_path / "new.json"), str(tmp_path / "old.json")]) == 0
    shown = capsys.readouterr().out
    assert "new - old" in shown
    assert "+50.0" in shown
    assert cli.main(["compare", str(tmp_path / "new.json"), str(tmp_path / "none.json")]) == 2
    assert "no evaluation can be read from" in capsys.readouterr().err
