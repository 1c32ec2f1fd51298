"""The verifier's accuracy on graded cases, time on hostile ones, and speed on integers.

    python benchmarks/verifier.py [--cases FILE.jsonl]

A case is a line of JSON with `gold`, `answer`, `expected`, `tag`, and `kind`: `response` (a whole
response) or `bare` (an answer by itself, which is put in a box). Cases tagged `hostile` are timed
and kept out of the accuracy. The speeds are beside math-verify's own `parse` and `verify` on the
same pairs in the same run: responses of 2 kB with a boxed integer or an answer line in prose, both
against integer golds, by the CPU time of this process; and pairs that take algebra, all different,
by wall time with one worker, since a worker does them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from eapo_env.verifier import Verdict, Verifier

CASES = Path(__file__).parents[1] / "tests" / "eapo_env" / "data" / "verifier_cases.jsonl"
NUM_FAST, NUM_SLOW, NUM_PEER = 20_000, 200, 200
_WORDS = "we then see that the value of this sum grows with every step and so on"
SENTENCE = "We compute $\\frac{a}{b} + x_{1}^{2}$, note that \\(y = 3\\), and add 12 to it. "

Case = dict[str, object]
Pair = tuple[str, str]


def pair(case: Case) -> Pair:
    answer = str(case["answer"])
    return (answer if case["kind"] == "response" else f"\\boxed{{{answer}}}"), str(case["gold"])


def judged(verifier: Verifier, cases: Sequence[Case]) -> tuple[list[Verdict], list[float]]:
    verdicts, seconds = [], []
    for case in cases:
        start = time.perf_counter()
        verdicts += verifier.verify([pair(case)])
        seconds.append(time.perf_counter() - start)
    return verdicts, seconds


def report_accuracy(cases: Sequence[Case], verdicts: Sequence[Verdict]) -> None:
    got = np.array([verdict.correct for verdict in verdicts])
    expected = np.array([bool(case["expected"]) for case in cases])
    right = got == expected
    print(f"plain cases        {len(cases)}")
    print(f"accuracy           {right.mean():.3f}   (to reach .970)")
    print(f"precision          {(got & expected).sum() / max(got.sum(), 1):.3f}   (to reach .990)")
    print(f"recall             {(got & expected).sum() / max(expected.sum(), 1):.3f}")
    for case, verdict, fine in zip(cases, verdicts, right, strict=True):
        if not fine:
            print(f"  {verdict.status}: {case['tag']}: {case['gold']!r:.60} {case['answer']!r:.90}")


def report_hostile(
    cases: Sequence[Case], verdicts: Sequence[Verdict], seconds: list[float]
) -> None:
    wrong_true = sum(v.correct and not c["expected"] for c, v in zip(cases, verdicts, strict=True))
    print(f"hostile cases      {len(cases)}")
    print(f"wrong True         {wrong_true}   (to reach 0)")
    print(f"slowest            {max(seconds, default=0.0):.2f} s   (to reach 2.5 s)")


def integer_pairs(count: int, rng: np.random.Generator) -> list[Pair]:
    """Return responses of about 2 kB with a boxed integer, half of them right."""
    filler = SENTENCE * 30
    pairs = []
    for gold, is_right in zip(rng.integers(0, 1000, count), rng.random(count) < 0.5, strict=True):
        answer = gold if is_right else gold + 1
        pairs.append((f"{filler[: 1960 + gold % 40]}\nSo it is \\boxed{{{answer}}}.", str(gold)))
    return pairs


def prose_pairs(count: int, rng: np.random.Generator) -> list[Pair]:
    """Return answer lines of 6 to 30 words, half with a number, as an untrained model writes."""
    words = _WORDS.split()
    pairs = []
    for gold in rng.integers(0, 1000, count):
        text = " ".join(rng.choice(words, rng.integers(6, 30)))
        filler = (SENTENCE * 30)[: 1960 + gold % 40]
        ending = f" {gold} more." if rng.random() < 0.5 else "."
        pairs.append((f"{filler}\n\nAnswer: {text}{ending}", str(gold)))
    return pairs


def symbolic_pairs(count: int, rng: np.random.Generator) -> list[Pair]:
    """Return expressions in two notations, half of them unequal, no pair twice."""
    pairs = []
    for index, (a, b, right) in enumerate(
        zip(rng.integers(2, 99, count), rng.integers(2, 99, count), rng.random(count) < 0.5,
            strict=True)
    ):  # fmt: skip
        c = b if right else b + 1
        forms = (
            (f"(x-{a})(x+{c})", f"x^2+{b - a}x-{a * b}"),
            (f"\\frac{{{c}}}{{\\sqrt{{{a}}}}}", f"\\frac{{{b}\\sqrt{{{a}}}}}{{{a}}}"),
            (f"{a}\\pi r^{{2}}+{c}", f"\\pi r^2\\cdot {a}+{b}"),
            (f"\\frac{{{c}+x}}{{{a}}}", f"\\frac{{x}}{{{a}}}+\\frac{{{b}}}{{{a}}}"),
        )
        answer, gold = forms[index % len(forms)]
        pairs.append((f"So it is $\\boxed{{{answer}}}$.", gold))
    return pairs


def peer_verify(pairs: Sequence[Pair]) -> list[bool]:
    import math_verify

    return [
        bool(math_verify.verify(math_verify.parse(f"${gold}$"), math_verify.parse(response)))
        for response, gold in pairs
    ]


def per_second(
    check: Callable[[Sequence[Pair]], object],
    pairs: Sequence[Pair],
    clock: Callable[[], float] = time.process_time,
) -> float:
    start = clock()
    check(pairs)
    return len(pairs) / (clock() - start)


def report_speed(
    name: str,
    pairs: Sequence[Pair],
    aim: float,
    clock: Callable[[], float] = time.process_time,
) -> None:
    """Print the checks a second of fresh verifiers and of math-verify, both imported before."""
    with Verifier(num_workers=1) as verifier:
        verifier.verify([("\\boxed{x+1}", "1+x")])
        ours = per_second(verifier.verify, pairs, clock)
    peer_verify(pairs[:1])
    theirs = per_second(peer_verify, pairs[:NUM_PEER], clock)
    print(f"{name:18} {ours:,.0f} checks/s, math-verify {theirs:,.0f}, ", end="")
    print(f"ratio {ours / theirs:.1f}   (to reach {aim:g})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=Path, default=CASES)
    lines = parser.parse_args().cases.read_text(encoding="utf-8").splitlines()
    cases: list[Case] = [json.loads(line) for line in lines if line.strip()]
    plain = [case for case in cases if case["tag"] != "hostile"]
    hostile = [case for case in cases if case["tag"] == "hostile"]
    rng = np.random.default_rng(0)
    integers = integer_pairs(NUM_FAST, rng)
    with Verifier() as verifier:
        start = time.perf_counter()
        verifier.verify([("\\boxed{x+1}", "1+x")])
        print(f"first slow check   {time.perf_counter() - start:.2f} s, with the helper's start")
        verdicts, seconds = judged(verifier, plain)
        report_accuracy(plain, verdicts)
        print(f"median / p99       {np.median(seconds) * 1e3:.2f} / ", end="")
        print(f"{np.quantile(seconds, 0.99) * 1e3:.0f} ms a check")
        report_hostile(hostile, *judged(verifier, hostile))
        agreed = [v.correct for v in verifier.verify(integers[:NUM_PEER])]
    assert agreed == peer_verify(integers[:NUM_PEER])
    report_speed("boxed integers", integers, 100)
    report_speed("answers in prose", prose_pairs(NUM_FAST, rng), 100)
    report_speed("algebra", symbolic_pairs(NUM_SLOW, rng), 1.5, time.perf_counter)


if __name__ == "__main__":
    main()
