"""The report on the miniature reproduction: results -> `results.md` and its pictures.

What stands in it is computed from the committed results alone, so it can be made anew without
running anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from eapo_agents.evaluation import PairedDifference, seeds_difference, seeds_interval
from eapo_agents.reproduction.experiments import (
    EAPO,
    FIRST_SEEDS,
    SELF_EXPLORATORY,
    SLIPS,
    STEPS,
    TABLES,
    Cell,
    Claim,
    Line,
    PaperTable,
    gain_cells,
)
from eapo_agents.reproduction.results import Result, read_results
from eapo_env.validation import UserError

TWO_LOOKS = 0.975
"""The level of the aim's interval: its seeds were looked at twice, so each look has half of 5%."""


def write_report(docs: Path) -> Path:
    """Write `results.md` and its pictures in a folder of documents, from its `results/`.

    Raises:
        UserError: no results there, or a file that holds none.
    """
    results = read_results(docs / "results")
    if not results:
        raise UserError(f"{docs / 'results'} holds no results: run `eapo reproduce` first")
    draw_training(results, docs / "images" / "results-training.png")
    draw_gain(results, docs / "images" / "results-gain.png")
    path = docs / "results.md"
    path.write_text("\n".join(_lines(results)) + "\n", encoding="utf-8")
    return path


def _lines(results: Results) -> Iterator[str]:
    yield from INTRODUCTION.splitlines()
    yield from _provenance(results)
    yield from _missing(results)
    yield from ("", "## The aim", "", *AIM.splitlines(), "")
    yield from (*_headline(results), "")
    yield "![Training curves, a line a seed](images/results-training.png)"
    yield from ("", "## What the paper claims, and what came out", "", *_claims(results))
    yield from ("", "## Where it disagrees with the paper", "", *DISAGREEMENT.splitlines())
    for table in TABLES:
        yield from ("", f"## {table.title}", "", *_table(table, results))
    yield from ("", "## Where expert help pays", "", *CURVE.splitlines(), "")
    yield from _gains(results)
    yield from ("", "![Gain against the base's success](images/results-gain.png)")
    yield from ("", "## Appendix B: the call rate falls", "", *CALLS.splitlines(), "")
    yield from _call_rates(results)
    yield from ("", "## What it hangs on", "", *BEYOND.splitlines(), "")
    yield from _outcomes(results)
    yield from ("", "## Tuning", "", *TUNING.splitlines())
    yield from ("", "## How to read the intervals", "", *READING.splitlines())
    yield from ("", "## What could not be tested here", "", *NOT_TESTED.splitlines())


def _provenance(results: Results) -> Iterator[str]:
    runs = [run for cell in results.values() for run in cell]
    commits = sorted({run.commit or "unknown" for run in runs})
    machines = sorted({run.machine for run in runs})
    settings = sorted({setting for run in runs for setting in run.settings})
    hours = sum(run.seconds for run in runs) / 3600
    yield from ("", "| | |", "|---|---|")
    yield "| command | `eapo reproduce`; this text alone: `eapo reproduce --report` |"
    yield f"| runs | {len(runs)}, {hours:.1f} hours of computing in all |"
    yield f"| commit | {', '.join(commits)} |"
    yield f"| machine | {'; '.join(machines)}; one thread a run, on a machine with other work |"
    if settings:
        yield f"| changed settings | {' '.join(f'`{setting}`' for setting in settings)} |"


def _missing(results: Results) -> Iterator[str]:
    cells = dict.fromkeys(cell for table in TABLES for cell in table.cells)
    short = [
        f"{cell.name} ({len(results.get(cell.name, ()))} of {cell.num_seeds})"
        for cell in cells
        if len(results.get(cell.name, ())) < cell.num_seeds
    ]
    yield ""
    if short:
        yield f"**Not finished**: seeds run so far, of those planned: {', '.join(short)}."
        yield "`eapo reproduce` goes on with these. A cell that has not run has no number below."
    else:
        yield "Every cell has all of its seeds."


def _headline(results: Results) -> Iterator[str]:
    found = _difference(EAPO, SELF_EXPLORATORY, results)
    if found is None:
        yield "Not run yet."
        return
    if min(len(results[cell.name]) for cell in (EAPO, SELF_EXPLORATORY)) < 2:
        yield "**Not decided: one seed.**"
    elif found.mean < 0.05:
        yield "**The aim is not reached.**"
    elif found.interval.low > 0:
        yield "**The aim is reached.**"
    else:
        yield "**Ahead by more than five points, but not beyond chance.**"
    yield from (
        "",
        "| seeds | EAPO - self-exploratory RL, points (interval) | p |",
        "|---|---|---|",
    )
    for label, seeds, level in (
        ("the first five, 95%", range(FIRST_SEEDS), 0.95),
        ("the later five alone, 95%", range(FIRST_SEEDS, EAPO.num_seeds), 0.95),
        ("all, 97.5%", range(EAPO.num_seeds), TWO_LOOKS),
    ):
        a, b = (_of(results.get(cell.name, ()), seeds) for cell in (EAPO, SELF_EXPLORATORY))
        part = seeds_difference(means(a), means(b), level=level) if a and b else None
        numbers = f"{_points(part)} | {part.p_value:.4f}" if part else "not run | "
        yield f"| {label}: {len(a)} and {len(b)} | {numbers} |"


def _of(runs: Sequence[Result], seeds: range) -> list[Result]:
    return [run for run in runs if run.seed in seeds]


def _claims(results: Results) -> Iterator[str]:
    yield "| claim | paper, points | here, points (95% interval) | seeds | verdict |"
    yield "|---|---|---|---|---|"
    for claim in (claim for table in TABLES for claim in table.claims):
        found = _difference(claim.better, claim.worse, results)
        seeds = _seeds(claim, results)
        here = _points(found) if found else "-"
        verdict = _verdict(found, claim, results)
        yield f"| {claim.text} | {claim.points:+.2f} | {here} | {seeds} | {verdict} |"


def _verdict(found: PairedDifference | None, claim: Claim, results: Results) -> str:
    if found is None:
        return "not run"
    if min(len(results[cell.name]) for cell in (claim.better, claim.worse)) < 2:
        return "not decided: one seed"
    if found.interval.low > 0:
        return "holds"
    return "does not hold" if found.interval.high < 0 else "not decided"


def _table(table: PaperTable, results: Results) -> Iterator[str]:
    yield "| | mean@k | 95% interval | each seed | half-time | Var | tokens | seeds | paper |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for line in table.lines:
        paper = "-" if line.paper is None else f"{line.paper:.2f}"
        yield f"| {line.label} | {_numbers(line, results)} | {paper} |"


def _numbers(line: Line, results: Results) -> str:
    runs = results.get(line.cell.name, ())
    if not runs:
        return f"not run | | | | | | 0 of {line.cell.num_seeds}"
    low, high = (100 * min(max(bound, 0.0), 1.0) for bound in seeds_interval(means(runs)))
    each = " ".join(f"{100 * run.means_P.mean():.1f}" for run in runs)
    return (
        f"{100 * means(runs).mean():.1f} | {low:.1f} to {high:.1f} | {each}"
        f" | {_at_half_time(runs)}"
        f" | {_mean([run.variance for run in runs]):.4f}"
        f" | {_mean([run.response_tokens for run in runs]):.0f}"
        f" | {len(runs)} of {line.cell.num_seeds}"
    )


def _at_half_time(runs: Sequence[Result]) -> str:
    """Return what each policy could do alone after half of its training; "-" without training."""
    found = [dict(run.curves.get("alone/mean_at_k", ())).get(STEPS // 2) for run in runs]
    return " ".join(f"{100 * mean:.1f}" for mean in found if mean is not None) or "-"


def _gains(results: Results) -> Iterator[str]:
    yield "| slip | base, mean@k | self-exploratory RL | EAPO | gain (95% interval) | seeds |"
    yield "|---|---|---|---|---|---|"
    for slip in SLIPS:
        cells = gain_cells(slip)
        numbers = [_percent(results.get(cell.name, ())) for cell in cells]
        found = _difference(cells[2], cells[1], results)
        gain = _points(found) if found else "-"
        seeds = "/".join(str(len(results.get(cell.name, ()))) for cell in cells)
        yield f"| {slip} | {' | '.join(numbers)} | {gain} | {seeds} |"


def _call_rates(results: Results) -> Iterator[str]:
    yield "EAPO, means over seeds and over each quarter of training:"
    yield ""
    yield "| | first | second | third | last |"
    yield "|---|---|---|---|---|"
    for curve, label in (
        ("call_rate", "call rate"),
        ("acceptance_rate", "acceptance rate"),
        ("accuracy", "accuracy in training"),
    ):
        runs = [[v for _, v in run.curves.get(curve, ())] for run in results.get(EAPO.name, ())]
        quarters = [_mean([v for run in runs for v in _quarter(run, q)]) for q in range(4)]
        yield f"| {label} | {' | '.join(f'{value:.2f}' for value in quarters)} |"


def _outcomes(results: Results) -> Iterator[str]:
    """Yield what the trainings of the aim looked like, each seed on its line, the best first."""
    yield "| | mean@k at the end | entropy, by quarters | groups all wrong | response tokens |"
    yield "|---|---|---|---|---|"
    for cell, name in ((EAPO, "EAPO"), (SELF_EXPLORATORY, "self-exploratory RL")):
        for run in sorted(results.get(cell.name, ()), key=lambda run: -run.means_P.mean()):
            columns = (
                _by_quarters(run, "entropy", 2),
                _by_quarters(run, "groups_all_wrong", 2),
                _by_quarters(run, "response_tokens", 0),
            )
            yield (
                f"| {name}, seed {run.seed} | {100 * run.means_P.mean():.1f}"
                f" | {' | '.join(columns)} |"
            )


def _by_quarters(run: Result, curve: str, digits: int) -> str:
    values = [value for _, value in run.curves.get(curve, ())]
    return " ".join(f"{_mean(_quarter(values, q)):.{digits}f}" for q in range(4)) if values else "-"


def _quarter(values: Sequence[float], quarter: int) -> Sequence[float]:
    return values[len(values) * quarter // 4 : len(values) * (quarter + 1) // 4]


def _difference(better: Cell, worse: Cell, results: Results) -> PairedDifference | None:
    """Return the difference of two cells in mean@k; None until both have run."""
    a, b = results.get(better.name, ()), results.get(worse.name, ())
    level = TWO_LOOKS if (better, worse) == (EAPO, SELF_EXPLORATORY) else 0.95
    return seeds_difference(means(a), means(b), level=level) if a and b else None


def _points(found: PairedDifference) -> str:
    low, high = found.interval
    return f"{100 * found.mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _percent(runs: Sequence[Result]) -> str:
    return f"{100 * means(runs).mean():.1f}" if runs else "-"


def _seeds(claim: Claim, results: Results) -> str:
    return "/".join(str(len(results.get(c.name, ()))) for c in (claim.better, claim.worse))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


INTRODUCTION = """\
# Results in miniature

The paper's comparisons on the embedded model, a Llama of a million parameters, and procedural
problems: sums of three brackets modulo 100. Every score is mean@32 (the paper's "Pass@32") on the
same 64 held-out problems, in percent; alone, except for self collaboration, the expert-assisted
workflow, LeaP and Appendix E, which are what a model does with help. The tables are written by a
command from the files in [results/](results).

A miniature tests orderings, not sizes: it says whether the method can do what the paper says it
does, and where it does not.
"""

AIM = """\
EAPO ahead of self-exploratory RL by at least 5 points of mean@32 after the same number of
training steps, with an interval above zero, from a base model that finds few rewards by itself.
Both start from the same weights, see the same problems with the same settings, and differ in the
turn budget alone: 2, falling to 1, or 1 from the start. The experts answer one bracket at a time.

Five seeds a method were planned. They left the matter open, so five more were added, once, and
nothing else was changed. All ten together were looked at twice, so their interval is one of 97.5%
and the verdict is drawn from it. The later five alone, decided on before they ran, point the same
way, but their interval of 95% holds zero, as does that of the first five.
"""

DISAGREEMENT = """\
**Distillation wins here, by far.** The expert's solutions are right, of the very form in which the
policy writes its own, and eighty tokens long: supervised learning has a signal for each token, and
a student of this size can copy all there is to know. The paper's experts write ten thousand tokens
in a manner of their own, and knowing the answer is not all there is to their reasoning. What the
miniature says is that EAPO is no rival to demonstrations where good ones can be had and imitated.

**The base with experts beats EAPO alone.** Experts that do the brackets leave two sums to the base,
which it can do. They know all that the task asks; the paper's experts do not.

**LeaP, and copies of oneself, do not help.** Their use rests on peers that are right more often
than chance and err in different ways. A base that is right once in eighty times has none, so its
copies are as good as experts that are meaningless.

**A constant rate does best, and the slow schedule learns next to nothing.** What a policy can do
alone at half-time goes with how much it was refused by then: in the mean over that half, `constant`
accepts 0.50 of the replies, `fast` 0.58, `linear` 0.75 and `slow` 0.92. Where a reply is accepted
the policy only adds up; it works out a bracket, and is rewarded for doing it right, where a reply
is refused. That work is all there is to learn here, so a schedule that refuses early teaches more,
and one that refuses late leaves the policy without skill when the help goes.

**One query a turn does no worse than three.** It is the same story: with three queries all brackets
are asked about at once; with one a turn some are left to the policy whenever fewer than four turns
are drawn, so it does more by itself and can do more at half-time. In the paper more queries bring
information that the policy lacks; here all can be worked out. That this makes the difference was
not measured. Both cells start from a base that was taught both ways (base *), for longer than the
tables' own, so they are to be compared with each other alone.
"""

CURVE = """\
The base models differ in one number: the rate at which the student slipped whom they imitate. A
guess is right once in a hundred times. Two of the five points are decided: at a slip of 0.35 all
seeds of self-exploratory RL succeed, and help costs points; at 0.5 most of its seeds fail, and help
pays. At 0.42 and 0.6 one method or both succeed in some seeds only, and three do not tell.
"""

CALLS = """\
The call rate must fall here, because the turn budget does: an episode of one turn cannot consult.
What can be read from the table is the accuracy of the training episodes, which are helped at
first: it falls as long as help goes faster than skill comes, and rises again in the end, when
nearly all are played alone. The paper's accuracy holds throughout.
"""

BEYOND = """\
**Experts of parts or of wholes.** With experts that work out whole problems the policy asks for
the whole, by the second quarter of the training in two seeds and by the third in the other, and
asks about parts no more. We had taken from single trials that it then learns nothing for itself;
two of the three seeds say otherwise, with a third of the problems solved alone, and three seeds do
not decide whether experts of parts are better. They are what the tables use, since a refused part
makes an easier problem out of a hard one: one bracket to work out instead of three. That is where a
policy that almost never solves three brackets finds its rewards, and the gate that closes is a
curriculum.

**Who draws the turn budget**, each member of a group or the group as a whole, makes no difference
that three seeds could show.

**It can fail.** Within a seed the outcome is mostly one of two, for both methods: either the steps
of arithmetic become reliable, and then success climbs to a third of all problems and more, or
rewards stay too rare, and it ends at about a tenth or below. EAPO makes the first likelier; it does
not make it certain.

Entropy tells the two outcomes apart long before success does, as the table below shows: it falls
where the training works. The failures of the two methods differ. Self-exploratory RL fails by
hunger: nine groups of ten hold no right answer, and the entropy stays about where it began. EAPO
begins with right answers in most groups and loses them: help is withdrawn faster than skill comes,
half of the groups are all wrong by the second quarter, and the entropy rises from then on. What we
take to happen, without having measured it: the few right answers that are reinforced are lucky
chains, and the many wrong ones take probability from what the policy was sure of, so that fewer
chains are right, and so on. A remedy would slow the withdrawal down while the entropy rises; it has
not been tried, since the schedule is the paper's.
"""

TUNING = """\
Learning rate, number of steps, and batch (3e-4, 80, 16 problems of 8 episodes) were chosen for
self-exploratory RL, on the embedded base model, where it learns well (preset `embedded`), and are
the same for all. Tried for EAPO alone: turn budgets drawn per member or per group, and the two
kinds of experts. The base of the tables was chosen in trials on another base of the same slip
(EAPO 49 to 57, self-exploratory RL 1 or 2), none of which is counted here; how the outcome
depends on it is shown above. LeaP's four paths stop after 42 tokens, with two of three brackets
done, and read each other's last value like experts' replies; other numbers (32, 64) were tried on
other problems and did not matter. The base that asks either way (base *) was taught three times:
after 200 and 800 steps it could not ask one by one, right in 1% and 2% of the episodes with all
replies accepted, so it was taught for 1600 (52%); the cells were run to the end from that alone.
"""

READING = """\
Intervals are for other seeds and other problems of the same kind
(`eapo_agents.evaluation.comparison.seeds_difference`): Student's t, variance of the seeds plus variance of
the problems, problems paired. They are of 95%, but for EAPO against self-exploratory RL at the
tables' base, which is one of 97.5%, as said above. With a single seed an interval counts problems
alone and says nothing about other seeds; no verdict is given then. Seeds of an untrained policy are
seeds of its sampling.
"""

NOT_TESTED = """\
Real models and real mathematics: nothing here says that the paper's numbers would come out again.
Table 4 and Appendix D need models that know more than sums, Figure 3 a larger policy, Table 10
and Table 11 other models; their presets and commands are in [the map of the paper](paper-map.md).
"""

Results = Mapping[str, Sequence[Result]]

_PANELS = (
    ("call_rate", "call rate (Figure 5)"),
    ("acceptance_rate", "acceptance rate"),
    ("accuracy", "accuracy in training"),
    ("alone/mean_at_k", "mean@k alone, held-out"),
)


def draw_training(results: Results, path: Path) -> None:
    """Write a PNG of EAPO and self-exploratory RL over training, a thin line a seed."""
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False}):
        figure = Figure(figsize=(10, 5), layout="constrained")
        for axis, (curve, title) in zip(figure.subplots(2, 2).flat, _PANELS, strict=True):
            for cell, colour in ((EAPO, "C0"), (SELF_EXPLORATORY, "C1")):
                for number, run in enumerate(results.get(cell.name, ())):
                    points = run.curves.get(curve, ())
                    label = cell.name if number == 0 else None
                    style = {"color": colour, "alpha": 0.6, "lw": 1, "label": label}
                    marker = "o" if len(points) < 10 else ""
                    axis.plot(
                        [s for s, _ in points], [v for _, v in points], marker=marker, **style
                    )
            axis.set(title=title, xlabel="training step", ylim=(0, None))
            axis.grid(alpha=0.3)
        if figure.axes[0].lines:
            figure.axes[0].legend()
        _save(figure, path)


def draw_gain(results: Results, path: Path) -> None:
    """Write a PNG of the gain of EAPO over self-exploratory RL against the base's own mean@k."""
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False}):
        figure = Figure(figsize=(6, 3.5), layout="constrained")
        axis = figure.subplots()
        axis.axhline(0, color="grey", lw=1)
        for slip in SLIPS:
            base, other, eapo = (results.get(cell.name, ()) for cell in gain_cells(slip))
            if not (base and other and eapo):
                continue
            gain = seeds_difference(means(eapo), means(other))
            low, high = gain.interval
            bars = [[100 * (gain.mean - low)], [100 * (high - gain.mean)]]
            place = 100 * float(means(base).mean())
            axis.errorbar([place], [100 * gain.mean], bars, fmt="o", color="C0", capsize=3)
            axis.annotate(
                f"slip {slip}", (place, 100 * gain.mean), xytext=(5, 5), textcoords="offset points"
            )
        axis.set(
            xlabel="mean@k of the base, alone (%)", ylabel="EAPO - self-exploratory RL (points)"
        )
        axis.grid(alpha=0.3)
        _save(figure, path)


def means(runs: Sequence[Result]) -> np.ndarray:
    """Return the means of the samples as [seeds, problems]."""
    return np.stack([run.means_P for run in runs])


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
