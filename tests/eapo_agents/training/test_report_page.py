"""The page as a file: everything in it, small enough, and the same whenever it is written."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from written_episodes import alone, consulting

from eapo_agents.training.report.page import page, served_page, write_page
from eapo_agents.training.report.viewer import Viewer
from eapo_agents.training.run_folder import Run
from eapo_env.validation import UserError

Recorder = Callable[..., Run]

PAGE_FOLDER = Path(__file__).parents[3] / "eapo_agents" / "training" / "report" / "page"
DATA = re.compile(r'<script type="application/gzip" class="block"[^>]*>([^<]*)</script>')
POLICY = re.compile(r'Content-Security-Policy" content="([^"]*)"')


def shown_episodes(text: str) -> list[dict[str, Any]]:
    blocks = [gzip.decompress(base64.b64decode(block)) for block in DATA.findall(text)]
    return [row for block in blocks for row in json.loads(block)]


def test_a_page_needs_nothing_else_and_is_the_same_again(
    recorded: Recorder, tmp_path: Path
) -> None:
    run = recorded("eapo", [0.5])
    run.record_transcripts(1, [alone(), consulting()])
    path = write_page([run], tmp_path / "deep" / "page.html")
    text = path.read_text(encoding="utf-8")
    assert [row["paradigm"] for row in shown_episodes(text)] == [
        "self_resolution",
        "direct_consultation",
    ]
    links = re.findall(r'\b(?:src|href)="([^"]*)"', text)
    assert links == ["data:,"], "an empty icon; else a browser asks for one"
    assert page([run]) == text


def test_the_page_runs_its_own_two_scripts_and_asks_nobody(recorded: Recorder) -> None:
    text = page([recorded("eapo", [0.5])])
    [policy] = map(html.unescape, POLICY.findall(text))
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    script = text.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    own, plotly = rules["script-src"].split()
    assert own == f"'sha256-{digest}'"
    assert plotly.startswith("'sha256-")
    assert (rules["default-src"], rules["connect-src"]) == ("'none'", "'none'")


def test_the_scripts_write_no_markup() -> None:
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc"
    )
    for path in PAGE_FOLDER.glob("*.js"):
        assert not re.search(forbidden, path.read_text(encoding="utf-8")), path.name


@pytest.mark.parametrize(("share", "every"), [(1.0, 1), (0.6, 2), (0.35, 4)])
def test_a_page_with_too_many_episodes_has_every_nth_group(
    share: float, every: int, recorded: Recorder
) -> None:
    runs = [recorded(name, [0.5]) for name in ("eapo", "rl")]
    for number, run in enumerate(runs):
        rows = [
            alone(
                problem_id=str(n // 4),
                member=n % 4,
                given="".join(
                    hashlib.sha512(f"{number},{n},{i}".encode()).hexdigest() for i in "abc"
                ),
            )
            for n in range(64)
        ]
        run.record_transcripts(1, rows)
    limit = int(share * sum(map(len, DATA.findall(page(runs)))))
    text = page(runs, limit)
    assert sum(map(len, DATA.findall(text))) <= limit
    assert f'"every": {every}' in text
    groups = [row["group"] for row in shown_episodes(text)]
    assert groups == [n // 4 for n in range(64) if n // 4 % every == 0] * 2


def test_a_group_that_is_too_long_by_itself_is_shown_all_the_same(recorded: Recorder) -> None:
    runs = [recorded(name, [0.5]) for name in ("eapo", "rl")]
    for run in runs:
        run.record_transcripts(1, [alone(problem_id=f"p{n}") for n in range(5)])
    assert [row["problem_id"] for row in shown_episodes(page(runs, 10))] == ["p0", "p0"]


def test_runs_stand_in_the_order_of_their_methods(recorded: Recorder) -> None:
    """Seeds of a method need not be given one after the other."""
    runs = [
        recorded(*run, seed=n) for n, run in enumerate([("a", [0.5]), ("b", [0.5]), ("a", [0.5])])
    ]
    for run in runs:
        run.record_transcripts(1, [alone(problem_id=run.name)])
    text = page(runs)
    assert [row["problem_id"] for row in shown_episodes(text)] == ["a-1", "a-2", "b-1"]


def test_a_page_of_runs_without_metrics_is_refused(recorded: Recorder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no metrics yet"):
        write_page([recorded("eapo", [])], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_served_page_has_no_episodes_and_may_ask_its_server(recorded: Recorder) -> None:
    run = recorded("eapo", [0.5])
    run.record_transcripts(1, [alone()])
    text = served_page([run], Viewer([run]).summary())
    assert not DATA.findall(text)
    assert "connect-src 'self'" in html.unescape(text)


def test_whatever_stands_in_a_run_stays_within_its_place(recorded: Recorder) -> None:
    """In the page's own text no text of a run is markup; the browser's tests do the rest."""
    evil = "</script><script>x</script><!--<script>"
    run = recorded("eapo", [0.5])
    run.record_event("failed", 1, error=evil)
    run.record_transcripts(1, [alone(problem_id=evil, given=evil)])
    text, plain = page([run]), page([recorded("plain", [0.5])])
    assert evil not in text
    assert "<!--" not in text
    assert text.count("<script") == plain.count("<script") + 1, "that of the block of episodes"
