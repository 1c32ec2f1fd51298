"""Two evaluations on the same problems: pairs by name and id, the command end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import matplotlib.image
import pytest

from eapo_agents.cli import main
from eapo_agents.cli.compare import difference_table, score_bars, scores_table
from eapo_agents.evaluation.evaluator import Report
from eapo_agents.evaluation.journal import Evaluation, paired, write_evaluation
from eapo_agents.evaluation.metrics import mean_at_k, variance
from eapo_agents.training.presets import embedded
from eapo_agents.training.run_folder import Run


def report(**correct: Sequence[bool]) -> Report:
    """A report on some problems by their ids; correctness, its mean and Var are looked at."""
    return Report(
        samples_per_problem=2,
        num_problems=len(correct),
        mean_at_k=mean_at_k(list(correct.values())),
        interval=(0.125, 0.875),
        variance=variance(list(correct.values())),
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
    assert main(["compare", str(tmp_path / "new.json"), str(tmp_path / "old.json")]) == 0
    shown = capsys.readouterr().out
    assert "new - old" in shown
    assert "+50.0" in shown
    assert "0.833 (0.125 to 0.875), 0.0833" in shown
    assert main(["compare", str(tmp_path / "new.json"), str(tmp_path / "none.json")]) == 2
    assert "no evaluation can be read from" in capsys.readouterr().err


def test_a_folder_of_evaluations_or_a_single_one_says_what_is_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "old.json", tmp_path / "new.json"]
    for path in files:
        write_evaluation(FIRST, path)
    for others in ([], [str(files[0])]):
        assert main(["compare", str(tmp_path), *others]) == 2
        there = f"{tmp_path} is no run folder; name the evaluations in it: {files[1]} {files[0]}\n"
        assert capsys.readouterr().err == f"eapo: {there}"
    assert main(["compare", str(files[0])]) == 2
    message = capsys.readouterr().err
    assert message == f"eapo: eapo compare takes two evaluations or more, not {files[0]} alone\n"
    (tmp_path / "empty").mkdir()
    assert main(["compare", str(tmp_path / "empty"), str(files[0])]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_several_are_compared_with_the_first_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, one in (("a", FIRST), ("b", SECOND), ("c", SECOND)):
        write_evaluation(replace(one, name="model"), tmp_path / f"{name}.json")
    files = [str(tmp_path / f"{name}.json") for name in "abc"]
    assert main(["compare", *files, "--plot", str(tmp_path / "bars.png")]) == 0
    shown = capsys.readouterr().out
    assert "a - b, points" in shown
    assert "a - c, points" in shown
    assert matplotlib.image.imread(tmp_path / "bars.png")[..., :3].std() > 0.05


def test_the_picture_stands_where_the_command_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for one in (FIRST, SECOND):
        write_evaluation(one, tmp_path / f"{one.name}.json")
    files = [str(tmp_path / f"{name}.json") for name in ("new", "old")]
    assert main(["compare", *files, "--plot", str(tmp_path / "bars")]) == 0
    place = tmp_path / "bars.png"
    assert f"plot: {place}\n" in capsys.readouterr().out
    assert place.read_bytes().startswith(b"\x89PNG")
    assert main(["compare", *files, "--plot", str(tmp_path / "bars.exe")]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "is no image format" in shown.err


def test_the_table_of_differences_by_hand() -> None:
    """Of 8 problems 4 are half a point better; in the other set nothing differs.

    The sign-flip test over 4 nonzero differences has p = 2 / 2^4. In the average of two sets all
    is half as large.
    """
    names = "abcdefgh"
    better = report(**{name: (True, name in "abcd") for name in names})
    half = report(**dict.fromkeys(names, (True, False)))
    same, other = report(s=(True, False), t=(False, False)), report(u=(True, True))
    new = evaluation("new", x=better, y=same, z=other)
    table = difference_table(new, evaluation("old", z=same, y=same, x=half))
    assert table.title == "new - old, points of mean@k"
    x, y, average = table.rows
    assert x[:4] == ["x", "8", "+25.0", "+6.2 to +43.8"]
    assert y == ["y", "2", "+0.0", "+0.0 to +0.0", "1.000"]
    assert average[:4] == ["average of the sets", "10", "+12.5", "+3.1 to +21.9"]
    assert all(0.11 < float(row[4]) < 0.14 for row in (x, average))
    assert len(difference_table(new, evaluation("few", x=half)).rows) == 1


def test_a_run_folder_is_compared_by_its_newest_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [Run.create(replace(embedded(), name=name), tmp_path) for name in ("good", "bad")]
    for run, right in zip(runs, (True, False), strict=True):
        run.record_evaluation(1, asdict(report(p=(right, right), q=(right, right))))
    assert main(["compare", *(str(run.folder) for run in runs)]) == 0
    shown = capsys.readouterr().out
    assert "good-1 - bad-1" in shown
    assert "+100.0" in shown


def test_the_average_is_shown_where_all_have_the_same_sets() -> None:
    x, y = report(p=(True, True)), report(q=(True, False), r=(False, False))
    both, other = evaluation("both", x=x, y=y), evaluation("other", y=y, x=x)
    table = scores_table([both, other])
    assert table.header == ["", "x", "y", "Avg."]
    assert [row[0] for row in table.rows] == ["both", "other"]
    assert table.rows[0][1] == "1.000 (0.125 to 0.875), 0.0000"
    assert table.rows[1][3].startswith("0.625 (")
    assert table.rows[1][3].endswith(", 0.0625")
    assert score_bars([both, other])["other"]["Avg."].value == 0.625
    few = evaluation("few", x=x)
    assert scores_table([both, few]).header == ["", "x", "y"]
    assert scores_table([both, few]).rows[1][1:] == [table.rows[0][1], "-"]
    assert list(score_bars([both, few])["both"]) == ["x", "y"]
