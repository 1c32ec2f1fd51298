"""The page of a run: its size, and how long it takes to write and to open.

    python benchmarks/run_page.py

Runs of 1,000 and 10,000 recorded episodes are made up, with texts as long as those of the embedded
model (about 0.1 KB a turn) and as those of a real one (about 6 KB a turn, random words). Each page
is opened several times in headless Chromium; it is open when its first episode can be read. The
peer is a page that holds the same episodes as one JSON text and writes them all out as markup, and
`report.md` is what `eapo report` wrote before there was a page.
"""

from __future__ import annotations

import argparse
import html
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from eapo_agents.training.presets import embedded
from eapo_agents.training.report.content import episodes, recorded_bytes
from eapo_agents.training.report.page import write_page
from eapo_agents.training.report.report import write_report
from eapo_agents.training.report.runs import methods_of
from eapo_agents.training.run_folder import Run

GROUP, GROUPS_PER_STEP = 8, 16
WORDS = [f"{letter}{n}" for letter in "abcdefghij" for n in range(400)]
MOST_NAIVE_BYTES = 100_000_000
"""A browser takes minutes for larger pages."""
WORDS_A_TURN = {"short": 20, "long": 1200}
METRICS = ("accuracy", "call_rate", "acceptance_rate", "turn_budget", "response_tokens", "loss")


@dataclass(frozen=True, slots=True)
class Opening:
    """How long a page takes to open; the CPU time depends less on what else runs."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Page:
    """A page that was written."""

    name: str
    path: Path
    wrote_s: float
    ready: str


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--texts", choices=WORDS_A_TURN, nargs="+", default=list(WORDS_A_TURN))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    print(f"{'':30}{'MB':>8}{'write s':>9}{'open s':>9}{'CPU s':>9}{'of naive':>9}")
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        browser(Path(folder)) as opened,
    ):
        for count in options.episodes:
            for kind in options.texts:
                words = WORDS_A_TURN[kind]
                run = made_up(Path(folder), count, words)
                raw = sum(path.stat().st_size for path in run.transcripts.values())
                print(f"{count:,} {kind} episodes, {raw / 1e6:.1f} MB recorded")
                show(opened, pages(run), options.repeats)
                shutil.rmtree(run.folder)


def show(opened: Chrome, written: Sequence[Page], repeats: int) -> None:
    times = {page.name: opening(opened, page, repeats) for page in written if page.ready}
    peer = times.get("naive page")
    for page in written:
        size = sum(path.stat().st_size for path in page.path.parent.iterdir()) / 1e6
        row = f"  {page.name:28}{size:8.2f}{page.wrote_s:9.2f}"
        if found := times.get(page.name):
            row += f"{found.wall_s:9.2f}{found.cpu_s:9.2f}"
            row += f"{found.cpu_s / peer.cpu_s:9.2f}" if peer else ""
        print(row, flush=True)


def pages(run: Run) -> list[Page]:
    """Return the page of a run, opened at its curves and at its episodes, and its peers."""

    def timed(name: str, write: Callable[[Path], Path], ready: str) -> Page:
        folder = run.folder.parent / f"{run.name}-{name.replace(' ', '-')}"
        folder.mkdir()
        start = time.perf_counter()
        path = write(folder)
        return Page(name, path, time.perf_counter() - start, ready)

    ready = "return document.documentElement.dataset.state === 'ready'"
    page = timed("page at its curves", lambda to: write_page([run], to / "page.html"), ready)
    methods = methods_of([run])
    written = [
        page,
        replace(page, name="page at its episodes"),
        timed("report.md and its pictures", lambda to: write_report(methods, [None], to), ""),
    ]
    if recorded_bytes([run]) < MOST_NAIVE_BYTES:
        written.append(timed("naive page", lambda to: naive(run, to / "page.html"), "return true"))
    return written


def naive(run: Run, path: Path) -> Path:
    """Write all episodes as markup."""
    rows = [row for step in run.transcripts for row in episodes(run, step)]
    parts = [
        f"<h2>{html.escape(row['problem_id'])}</h2>"
        + "".join(f"<pre>{html.escape(one['content'])}</pre>" for one in row["messages"])
        for row in rows
    ]
    data = json.dumps(rows).replace("<", "\\u003c")
    path.write_text(f"<!doctype html>{''.join(parts)}<script>const all = {data}</script>", "utf-8")
    return path


def opening(opened: Chrome, page: Page, repeats: int) -> Opening:
    """Return the median times from asking for a page to its being ready; the first warms up."""
    part = "#episodes" if page.name.endswith("episodes") else ""
    found = [open_once(opened, page.path.as_uri() + part, page.ready) for _ in range(repeats + 1)]
    return Opening(
        wall_s=statistics.median(one.wall_s for one in found[1:]),
        cpu_s=statistics.median(one.cpu_s for one in found[1:]),
    )


def open_once(opened: Chrome, url: str, ready: str) -> Opening:
    opened.get("about:blank")
    start, before = time.perf_counter(), cpu_s(opened)
    opened.get(url)
    while not opened.execute_script(ready):
        time.sleep(0.005)
    wall, after = time.perf_counter() - start, cpu_s(opened)
    return Opening(wall_s=wall, cpu_s=after - before if after >= before else after)


def cpu_s(opened: Chrome) -> float:
    """Return the CPU time of the process that shows the page."""
    opened.execute_cdp_cmd("Performance.enable", {})
    metrics = opened.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return float({one["name"]: one["value"] for one in metrics}["ProcessTime"])


def made_up(folder: Path, count: int, words: int) -> Run:
    """Return a run with so many episodes of so many words a turn."""
    rng = np.random.default_rng(0)
    run = Run.create(replace(embedded(), name=f"run-{count}-{words}"), folder)
    per_step = GROUP * GROUPS_PER_STEP
    for step in range(1, -(-count // per_step) + 1):
        number = min(per_step, count - (step - 1) * per_step)
        run.record(step, {name: float(rng.random()) for name in METRICS})
        rows = [episode(rng, n, words) for n in range(number)]
        run.record_transcripts(step, rows)
        run.record_latencies(step, [{"latencies_s": [[0.5, None, 0.25]]} for _ in rows])
    return run


def episode(rng: np.random.Generator, number: int, words: int) -> dict[str, Any]:
    """Return an episode that consults once."""
    wrote = [text(rng, words) for _ in range(4)]
    asked = [
        {"query": text(rng, 10), "accepted": accepted, "expert": "ada", "reply": text(rng, words)}
        for accepted in (True, False, True)
    ]
    actions: list[dict[str, Any]] = [{}, {"action": "consult"}, {}, {"action": "answer"}]
    return {
        "problem_id": f"problem-{rng.integers(100_000)}",
        "answer": str(rng.integers(100)),
        "given": str(rng.integers(100)),
        "status": ("correct", "wrong")[int(rng.integers(2))],
        "reward": 1.0,
        "stop_reason": "answered",
        "turn_budget": 4,
        "queries_per_turn": 3,
        "acceptance_rate": 0.5,
        "policy_tokens": 2 * words,
        "environment_tokens": 2 * words,
        "paradigm": "decomposition",
        "messages": [
            {"role": ("user", "assistant")[n % 2], "content": one, "tokens": words, **action}
            for n, (one, action) in enumerate(zip(wrote, actions, strict=True))
        ],
        "consultations": [asked],
        "member": number % GROUP,
        "use": "learned",
        "advantage": float(rng.normal()),
    }


def text(rng: np.random.Generator, words: int) -> str:
    return " ".join(WORDS[n] for n in rng.integers(len(WORDS), size=words))


@contextmanager
def browser(folder: Path) -> Iterator[Chrome]:
    """Yield headless Chromium with a profile of its own."""
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for one in ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"):
        options.add_argument(one)
    options.add_argument("--disable-background-networking")
    options.add_argument(f"--user-data-dir={folder / 'profile'}")
    opened = Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield opened
    finally:
        opened.quit()


if __name__ == "__main__":
    main()
