"""The report on the reproduction: numbers by hand, what is missing, and the committed one."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from eapo_agents.reproduction.belief_study import BELIEF
from eapo_agents.reproduction.noise_study import NOISE
from eapo_agents.reproduction.report import page, read_template, write_report
from eapo_agents.reproduction.results import Result, curves_of, read_results
from eapo_agents.reproduction.study import Study
from eapo_env.validation import UserError

DOCS = Path(__file__).parents[3] / "docs"

EARLIER = DOCS / "earlier"
TEMPLATE = EARLIER / "template.md"
PAGES = {DOCS: (DOCS / "results" / "template.md", BELIEF), EARLIER: (TEMPLATE, NOISE)}
"""The folders of the committed pages, with their templates and studies."""

RUN = Result(
    experiment="eapo",
    seed=0,
    samples_per_problem=4,
    correct_P=(4, 3, 2, 3),
    variance=0.125,
    response_tokens=20.0,
    curves={"call_rate": ((1, 1.0), (2, 0.5), (3, 0.25), (4, 0.0))},
    seconds=1800.0,
    commit="abc",
    machine="two cores",
)


def report(folder: Path, *runs: Result, template: Path | None = None, study: Study = NOISE) -> str:
    for run in runs:
        run.write(folder / "results")
    return write_report(folder, read_template(template), study).read_text(encoding="utf-8")


def test_a_result_is_read_back(tmp_path: Path) -> None:
    other = replace(RUN, seed=1, settings=("steps=2",))
    for run in (other, RUN):
        run.write(tmp_path)
    assert read_results(tmp_path) == {"eapo": [RUN, other]}


@pytest.mark.parametrize("text", ["", "{}", "[1", '{"cell": 3}'])
def test_a_file_that_holds_no_result_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "eapo" / "seed-0.json"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"seed-0\.json holds no result"):
        read_results(tmp_path)


def test_counts_beyond_the_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="are not counts out of 4"):
        replace(RUN, correct_P=(5,))


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="variance must be a finite number, not nan"):
        replace(RUN, variance=float("nan"))


@pytest.mark.parametrize("place", ["eapo/seed-7.json", "eapo-backup/seed-0.json"])
def test_a_copy_is_no_further_evidence(tmp_path: Path, place: str) -> None:
    RUN.write(tmp_path)
    (tmp_path / place).parent.mkdir(exist_ok=True)
    shutil.copy(tmp_path / "eapo" / "seed-0.json", tmp_path / place)
    with pytest.raises(ValueError, match=f"{place} holds the result of eapo, seed 0"):
        read_results(tmp_path)


def test_curves_keep_what_a_step_recorded() -> None:
    rows = [{"step": 1, "accuracy": 0.123456}, {"step": 2, "accuracy": 0.5, "other": 1.0}]
    curves = curves_of(rows)
    assert curves["accuracy"] == ((1, 0.1235), (2, 0.5))
    assert curves["call_rate"] == ()


def test_the_tables_say_what_the_results_say(tmp_path: Path) -> None:
    text = report(tmp_path, RUN, replace(RUN, seed=1, correct_P=(4, 4, 4, 4)))
    # (12 + 16) / 32 samples
    row = next(line for line in text.splitlines() if line.startswith("| EAPO | - | 87.5 "))
    assert "| 75.0 100.0 | - | - | - | 0.1250 | 20 | 2 of 10 |" in row
    assert "eapo (2 of 10), " in text
    assert "self-exploratory (0 of 10)" in text
    assert "| runs | 2, 1.0 hours" in text
    assert "| call rate | 1.00 | 0.50 | 0.25 | 0.00 |" in text
    assert "| commit | abc |" in text


def test_greedy_answers_and_pass_at_k_are_shown_where_they_were_measured(tmp_path: Path) -> None:
    # Of 256 samples each, none, one, and all are right: pass@32 is (0 + 1 / 8 + 1) / 3.
    run = replace(
        RUN, samples_per_problem=256, correct_P=(0, 1, 256), greedy_P=(False, False, True)
    )
    text = report(tmp_path, run, replace(run, seed=1, greedy_P=(True, False, True)), study=BELIEF)
    row = next(line for line in text.splitlines() if line.startswith("| EAPO | 33.3 66.7 | 33.5 "))
    assert "| 33.5 33.5 | 37.5 | 66.7 | - | 0.1250 |" in row


def test_what_a_training_moved_is_told_against_the_base_that_it_began_from(tmp_path: Path) -> None:
    # Greedy, then pass@256 of 256 samples each; sampling loses no points where the noise is 0.
    measured = {
        "base": ((False, False), (0, 1)),
        "base-0.65": ((True, False), (256, 0)),
        "self-exploratory": ((True, False), (256, 0)),
        "self-exploratory-0.65": ((True, False), (256, 0)),
        "self-exploratory-0.85": ((True, True), (256, 256)),  # its base was not evaluated
        "distilled": ((True, True), (256, 256)),
    }
    runs = [
        replace(
            RUN, experiment=name, samples_per_problem=256, correct_P=correct_P, greedy_P=greedy_P
        )
        for name, (greedy_P, correct_P) in measured.items()
    ]
    told = [line for line in report(tmp_path, *runs, study=BELIEF).splitlines() if "Moved" in line]
    both = "distillation, all parameters: the mode (+100) and the support (+50); "
    assert told[0] == f"Moved, against its base: {both}self-exploratory RL: the mode (+50)."
    assert told[-1] == (
        "Moved, against its base: self-exploratory RL: the mode (+50);"
        " belief 0.65: self-exploratory RL: nothing."
    )


@pytest.mark.parametrize(
    ("others", "verdict", "aim"),
    [
        ([(0, 0, 0, 0), (0, 1, 0, 0)], "holds", "**The aim is reached.**"),
        ([(4, 4, 4, 4), (4, 4, 4, 3)], "not decided", "**The aim is not reached.**"),
        ([(0, 0, 0, 0), (4, 4, 4, 3)], "not decided", "but the interval is not high enough.**"),
        ([(0, 0, 0, 0)], "not decided: one seed", "**Not decided: one seed.**"),
    ],
)
def test_verdicts(tmp_path: Path, others: list[tuple[int, ...]], verdict: str, aim: str) -> None:
    eapo = [replace(RUN, seed=s, correct_P=c) for s, c in enumerate([(4, 3, 3, 4), (3, 4, 3, 4)])]
    rest = [
        replace(RUN, experiment="self-exploratory", seed=s, correct_P=c)
        for s, c in enumerate(others)
    ]
    text = report(tmp_path, *eapo, *rest)
    (row,) = (line for line in text.splitlines() if line.startswith("| EAPO is ahead of self"))
    assert row.endswith(f"| 2/{len(others)} | {verdict} |")
    assert (" to " in row) == (len(others) > 1), "one seed tells nothing of the others"
    assert aim in text


@pytest.mark.parametrize(("study", "reached"), [(NOISE, True), (BELIEF, False)])
def test_each_study_has_an_aim_of_its_own(study: Study, reached: bool, tmp_path: Path) -> None:
    """A quarter of the problems, in all seeds: 25 points are enough for the earlier one alone."""
    runs = [
        replace(RUN, experiment=name, seed=seed, correct_P=correct)
        for name, correct in (
            (study.main_claim.better, (1,) * 4),
            (study.main_claim.worse, (0,) * 4),
        )
        for seed in range(3)
    ]
    assert ("**The aim is reached.**" in report(tmp_path, *runs, study=study)) == reached


def test_the_later_seeds_of_the_aim_are_a_test_of_their_own(tmp_path: Path) -> None:
    right, wrong = (4, 4, 4, 4), (0, 0, 0, 0)
    good = {("eapo", 0), ("eapo", 5), ("eapo", 6)}
    runs = [
        replace(
            RUN,
            experiment=experiment,
            seed=seed,
            correct_P=right if (experiment, seed) in good else wrong,
        )
        for experiment in ("eapo", "self-exploratory")
        for seed in (0, 1, 5, 6)
    ]
    text = report(tmp_path, *runs)
    assert "| the first 5, 95%: 2 and 2 | +50.0 (" in text
    assert "| the later 5 alone, 95%: 2 and 2 | +100.0 (" in text
    assert "| all, 97.5%: 4 and 4 | +75.0 (" in text


def test_pictures_are_drawn_from_whatever_is_there(tmp_path: Path) -> None:
    for experiment in ("eapo", "self-exploratory", "base"):
        replace(RUN, experiment=experiment).write(tmp_path / "results")
    write_report(str(tmp_path), read_template(), NOISE)
    for name in ("results-training.png", "results-gain.png"):
        assert (tmp_path / "images" / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("folder", PAGES, ids=lambda folder: folder.name)
def test_the_committed_pages_are_those_of_the_committed_results_and_templates(
    folder: Path,
) -> None:
    template, study = PAGES[folder]
    made = page(read_template(template), study, read_results(folder / "results"))
    assert made == (folder / "results.md").read_text(encoding="utf-8")


def test_committed_results_are_written_with_the_keys_that_they_have(tmp_path: Path) -> None:
    for folder in PAGES:
        results, again = folder / "results", tmp_path / folder.name
        for runs in read_results(results).values():
            for run in runs:
                run.write(again)
        paths = sorted(path.relative_to(again) for path in again.glob("*/*.json"))
        assert len(paths) == len(list(results.glob("*/*.json")))
        for path in paths:
            written, committed = (json.loads((at / path).read_text()) for at in (again, results))
            assert list(written.items()) == list(committed.items())
    assert len(list((EARLIER / "results").glob("*/*.json"))) > 100


def test_other_results_have_none_of_our_conclusions(tmp_path: Path) -> None:
    right, wrong = (4, 4, 4, 4), (0, 0, 0, 0)
    others = [
        replace(RUN, experiment=name, seed=seed, correct_P=correct)
        for name, correct in (("eapo", right), ("eapo-constant", wrong), ("distilled", wrong))
        for seed in range(3)
    ]
    other_page = report(tmp_path, *others)
    assert "| EAPO is ahead of distillation | +28.76 | +100.0 (" in other_page
    sections = dict(re.findall(r"^## (.+)\n([^#]+)", TEMPLATE.read_text("utf-8"), re.MULTILINE))
    ours = {one for title in OURS for one in sentences(sections[title])} - NEUTRAL
    assert "A constant rate does best, and the slow schedule learns next to nothing" in ours
    assert len(ours) > 50
    assert sentences(other_page) & ours == set()
    assert "same way, but their interval of 95% holds zero" not in other_page


OURS = (
    "Where it disagrees with the paper",
    "Where expert help pays",
    "Appendix B: the call rate falls",
    "What it hangs on",
    "Tuning",
)
"""The sections of our page whose sentences are about our results."""
NEUTRAL = {"EAPO, means over seeds and over each quarter of training"}


def sentences(page: str) -> set[str]:
    """The sentences of a page and its tables, with single spaces, without pictures."""
    prose = re.sub(r"\*\*|!\[.*", "", page)
    found = re.split(r"[.:;|]|\n\n", prose)
    return {" ".join(one.split()) for one in found if len(one.split()) > 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{{ claims }} {{ nonsense }}", "unknown placeholder '{{ nonsense }}'; known are prov"),
        (b"\xff", "cannot read the template"),
    ],
)
def test_an_invalid_template_is_refused(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "template.md").write_bytes(text)
    with pytest.raises(UserError, match=message):
        read_template(f"{tmp_path}/template.md")


def test_each_training_of_the_aim_shows_how_it_went(tmp_path: Path) -> None:
    entropy = tuple((step, 0.02 * step) for step in range(1, 9))
    text = report(
        tmp_path,
        replace(RUN, curves={"entropy": entropy}),
        replace(RUN, seed=1, correct_P=(4, 4, 4, 4)),
    )
    rows = [line for line in text.splitlines() if line.startswith("| EAPO, seed ")]
    assert rows == [  # (0.02 + 0.04) / 2, ...
        "| EAPO, seed 1 | 100.0 | - | - | - |",
        "| EAPO, seed 0 | 75.0 | 0.03 0.07 0.11 0.15 | - | - |",
    ]


def test_a_trained_experiment_shows_what_it_could_do_alone_at_half_training(tmp_path: Path) -> None:
    slow = replace(
        RUN, experiment="eapo-slow", curves={"alone/mean_at_k": ((40, 0.125), (80, 0.5))}
    )
    text = report(tmp_path, slow, replace(slow, seed=1))
    (row,) = (line for line in text.splitlines() if line.startswith("| slow |"))
    assert "| 75.0 75.0 | - | - | 12.5 12.5 | 0.1250 |" in row


def test_quarters_are_of_the_training_where_a_step_recorded_nothing(tmp_path: Path) -> None:
    """Of eight steps the first four have no entropy; half of a longer training is later."""
    curves = {"entropy": tuple((step, step / 10) for step in range(5, 9))}
    ended = {"accuracy": tuple((step, 0.5) for step in range(1, 9))}
    half = {"alone/mean_at_k": ((4, 0.25), (8, 0.5))}
    text = report(tmp_path, replace(RUN, experiment="eapo", curves=curves | ended | half))
    assert "| EAPO, seed 0 | 75.0 | - - 0.55 0.75 | - | - |" in text
    assert "| 75.0 | - | - | 25.0 | 0.1250 |" in text
