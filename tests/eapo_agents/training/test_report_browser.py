"""The page in a real browser: each of its controls, and text that would like to be a program."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from browser import Page, chromium
from selenium.webdriver import ActionChains, Chrome, Keys
from written_episodes import ANSWER, ASKED, CONSULT, OPENING, REFUSED, RELAY, alone, consulting

from eapo_agents.training.report.page import write_page
from eapo_agents.training.report.viewer import view_server
from eapo_agents.training.run_folder import Run

pytestmark = pytest.mark.slow

Recorder = Callable[..., Run]
Show = Callable[..., Page]

HOSTILE = (
    "<script>hacked=1</script>",
    "</script><script>hacked=1</script>",
    "<img src=x onerror=hacked=1>",
    "<svg/onload=hacked=1>",
    "<!--<script>",
    '"><iframe srcdoc="<script>parent.hacked=1</script>">',
    "<a href=javascript:hacked=1>{{ 7*7 }} ${hacked=1}</a>",
    "</textarea></style></title><b onclick=hacked=1>",
    "\u2028hacked=1\u2029\u202e\u0000\x1b]0;hacked\x07",
    "<style>*{display:none}</style><meta http-equiv=refresh content=0;url=//evil>",
)
TAGS = "return [...document.querySelectorAll('*')].map(one => one.tagName)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def show(browser: Chrome, tmp_path: Path) -> Iterator[Show]:
    """A function that opens a tab of the page of some runs; the page may not complain."""
    opened: list[Page] = []

    def opening(tab: str, *runs: Run) -> Page:
        opened.append(Page.of_file(browser, write_page(runs, tmp_path / "page.html"), tab))
        return opened[-1]

    yield opening
    assert [page.problems() for page in opened] == [[]] * len(opened)


@pytest.fixture
def several(recorded: Recorder) -> list[Run]:
    """Two seeds of a method, and another method, with episodes of every kind."""
    runs = [
        recorded("eapo", [0.25, 0.5, 0.75], seed=0, correct={3: [[True, False]] * 4}),
        recorded("eapo", [0.5, 0.5, 0.5], seed=1, correct={3: [[True, True]] * 4}),
        recorded("rl", [0.125, 0.25, 0.25], correct={3: [[False, False]] * 4}),
    ]
    for number, run in enumerate(runs):
        rows = [
            alone(problem_id="p1", member=0),
            consulting(problem_id="p1", member=1, advantage=-0.75, status="wrong", given="8"),
            consulting(ASKED, problem_id="p2", use="dropped", advantage=None),
            alone(problem_id="p3", use="carried", advantage=None, paradigm="decomposition"),
        ]
        run.record_latencies(1, [{"latencies_s": one} for one in ([], [[0.25, None]], [[1.5]], [])])
        run.record_transcripts(1, rows)
        run.record_transcripts(3, [alone(problem_id="p1", given=str(number))])
    return runs


def rows(page: Page) -> list[list[str]]:
    """The list of episodes, cell by cell."""
    found: list[list[str]] = page.run(
        "return [...document.querySelectorAll('#rows tbody tr')]"
        ".map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return found


def drawn(page: Page, panel: int = 0) -> list[dict[str, Any]]:
    """The traces of a panel: name, number of points, filled or not."""
    found: list[dict[str, Any]] = page.run(
        "return document.querySelectorAll('.plot')[arguments[0]].data"
        ".map(t => ({name: t.name ?? '', points: t.x.length, fill: t.fill ?? ''}))",
        panel,
    )
    return found


def ranges(page: Page) -> list[list[float]]:
    found: list[list[float]] = page.run(
        "return [...document.querySelectorAll('.plot')].map(p => p.layout.xaxis.range)"
    )
    return found


def hostile_episode(evil: str) -> dict[str, Any]:
    """Return an episode all of whose texts are one."""
    return consulting(
        {"query": evil, "accepted": True, "expert": evil, "reply": evil},
        {"query": evil, "accepted": True, "expert": evil, "unavailable": evil},
        {"query": evil, "accepted": True, "expert": evil, "reply": evil * 200},
        messages=[
            {"role": "user", "content": evil, "tokens": 1},
            {"role": "assistant", "content": evil, "action": "malformed", "reason": evil},
            {"role": evil, "content": evil, "tokens": 1},
        ],
        problem_id=evil,
        answer=evil,
        given=evil,
        status=evil,
        paradigm=evil,
        stop_reason=evil,
    )


def test_text_of_models_and_experts_never_runs(recorded: Recorder, show: Show) -> None:
    run, twin = (recorded(name, [0.5]) for name in ("eapo", "rl"))
    for evil in HOSTILE:
        run.record_event("failed", 1, error=evil)
    for one in (run, twin):
        one.record_transcripts(1, map(hostile_episode, HOSTILE))
    page = show("episodes", run, twin)
    tags = set(page.run(TAGS))
    for evil in HOSTILE:
        page.choose("of-verdict", evil)
        page.choose("beside", "0")
        shown = "".join(one if one.isprintable() else f"\\u{{{ord(one):x}}}" for one in evil)
        for side in ("left", "right"):
            assert page.texts(f"#{side} .message pre") == [shown] * 3
            assert page.texts(f"#{side} .query pre") == [shown] * 4 + [shown * 200]
            assert page.texts(f"#{side} dd")[:3] == [shown] * 3
        assert page.texts("#rows tbody td:nth-child(3)") == [f"{shown} #1"] * 2
        assert f"error: {shown}" in page.texts("#events td")
        assert page.run("return typeof hacked") == "undefined", evil
    assert set(page.run(TAGS)) - tags <= {"ARTICLE", "DL", "DT", "DD", "PRE", "DETAILS", "SUMMARY"}


def test_names_and_settings_never_run(recorded: Recorder, tmp_path: Path, show: Show) -> None:
    evil = "<img src=x onerror=hacked=1>"
    runs = [recorded("eapo", [0.5, 0.25]), recorded("rl", [0.25])]
    for run in runs:
        config = json.loads((run.folder / "config.json").read_text(encoding="utf-8"))
        config["problems"]["source"] = evil
        (run.folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        run.record(9, {evil: 0.5})
    moved = [Run(run.folder.rename(tmp_path / f"{evil}{n}")) for n, run in enumerate(runs)]
    page = show("training", *moved)
    page.run("document.querySelector('#panels select').value = arguments[0]", evil)
    page.click("bands")
    assert len(page.texts("#methods label")) == 2
    assert page.run("return typeof hacked") == "undefined"
    assert page.texts("img, iframe") == []
    assert page.texts("h1") == [f"{evil}0, {evil}1"]
    # Plotly reads tags in names; ours have none.
    assert [trace["name"] for trace in drawn(page)] == [
        f"&lt;img src=x onerror=hacked=1>{n}" for n in (0, 1)
    ]


def test_markup_that_came_in_all_the_same_would_not_run(
    recorded: Recorder, browser: Chrome, tmp_path: Path
) -> None:
    page = Page.of_file(
        browser, write_page([recorded("eapo", [0.5])], tmp_path / "page.html"), "settings"
    )
    page.run(
        "document.body.insertAdjacentHTML('beforeend', '<img src=data:, onerror=hacked=1>');"
        "const s = document.createElement('script'); s.text = 'hacked=2'; document.body.append(s)"
    )
    told = page.wait_for(lambda: [one for one in page.problems() if "Content Security" in one])
    page.wait_for(lambda: len(told) >= 2 or told.extend(page.problems()))
    assert page.run("return typeof hacked") == "undefined"


def test_the_tabs_show_one_part_each(several: list[Run], show: Show) -> None:
    page = show("training", *several)
    parts = ("training", "episodes", "settings")
    for name in reversed(parts):
        page.click(f"tab-{name}")
        shown = [p for p in parts if page.browser.find_element("id", p).is_displayed()]
        assert shown == [name]
        assert page.texts("[aria-selected=true][role=tab]") == [name.capitalize()]


def test_curves_have_bands_and_seeds_that_can_be_switched(several: list[Run], show: Show) -> None:
    page = show("training", *several)
    eapo, rl = labels = page.texts("#methods label")
    assert labels == ["eapo (2 seeds)", "rl"]
    assert [trace["fill"] for trace in drawn(page)] == ["toself", "", "", "", ""]
    page.click("bands")
    assert [trace["name"] for trace in drawn(page)] == ["", "", eapo, rl]
    page.click("seeds")
    assert drawn(page) == [
        {"name": eapo, "points": 3, "fill": ""},
        {"name": rl, "points": 3, "fill": ""},
    ]
    page.browser.find_element("css selector", "#methods input[value='0']").click()
    assert [trace["name"] for trace in drawn(page)] == [rl]
    page.click("bands")
    page.click("seeds")
    page.browser.find_element("css selector", "#methods input[value='0']").click()
    assert len(drawn(page)) == 5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_curves_have_the_colours_of_the_page(
    scheme: str, browser: Chrome, recorded: Recorder, show: Show
) -> None:
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    page = show("training", recorded("eapo", [0.25, 0.5]))
    grid, line = page.run(
        "const panel = document.querySelector('.panel');"
        "return [panel.querySelector('.plot').layout.xaxis.gridcolor,"
        "getComputedStyle(panel).borderTopColor]"
    )
    assert grid == line == {"light": "rgb(223, 226, 230)", "dark": "rgb(58, 62, 67)"}[scheme]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_panel_shows_the_metric_that_is_chosen(several: list[Run], show: Show) -> None:
    page = show("training", *several)
    titles = page.run("return [...document.querySelectorAll('.panel select')].map(s => s.value)")
    assert titles[:3] == ["accuracy", "call_rate", "acceptance_rate"]
    page.run(
        "const s = document.querySelector('.panel select'); s.value = 'turn_budget';"
        "s.dispatchEvent(new Event('change'))"
    )
    ys = page.run("return document.querySelector('.plot').data.at(-1).y")
    assert ys == [2, 2, 2]


def test_dragging_zooms_all_curves_and_a_button_shows_the_whole(
    several: list[Run], show: Show
) -> None:
    page = show("training", *several)
    whole = ranges(page)
    plot = page.browser.find_element("css selector", ".plot .nsewdrag")
    half = plot.size["width"] // 4
    ActionChains(page.browser).move_to_element_with_offset(
        plot, -half, 0
    ).click_and_hold().move_by_offset(half, 0).move_by_offset(half, 0).release().perform()
    page.wait_for(lambda: ranges(page) != whole and len(set(map(str, ranges(page)))) == 1)
    [low, high] = ranges(page)[-1]
    assert whole[0][0] < low < high < whole[0][1]
    page.click("whole")
    page.wait_for(lambda: ranges(page) == whole)


def test_the_tables_are_those_of_the_report(several: list[Run], show: Show) -> None:
    page = show("training", *several)
    assert page.texts("#tables h2") == [
        "Trained policies, evaluated alone on held-out problems, and their training",
        "Seed by seed",
        "Differences, points of mean@k",
    ]
    cells = page.texts("#tables table:first-of-type td")
    assert cells[:3] == ["training steps", "3", "3"]
    assert "0.750" in cells


def test_each_filter_chooses_episodes(several: list[Run], show: Show) -> None:
    page = show("episodes", *several)
    assert len(rows(page)) == 15
    assert page.text("count") == "1 to 15 of 15"
    assert page.options("of-step") == ["", "3", "1"]
    assert page.options("of-run") == ["", "0", "1", "2"]
    chosen = {
        ("of-run", "2"): 5,
        ("of-step", "3"): 3,
        ("of-paradigm", "decomposition"): 3,
        ("of-verdict", "wrong"): 3,
        ("of-consulted", "yes"): 6,
        ("of-consulted", "no"): 9,
        ("of-refused", "yes"): 3,
        ("of-refused", "no"): 12,
        ("of-missing", "yes"): 0,
        ("of-missing", "no"): 15,
        ("of-use", "learned"): 9,
        ("of-use", "carried"): 3,
        ("of-use", "dropped"): 3,
        ("of-use", "evaluated"): 0,
        ("of-problem", "p2"): 3,
        ("of-text", "TURNS LEFT"): 6,
        ("of-text", "no such text"): 0,
    }
    for (name, value), count in chosen.items():
        page.choose(name, value)
        assert len(rows(page)) == count, (name, value)
        assert (page.text("left") == "No episode.") == (count == 0)
        page.click("all")
        page.wait_for(lambda: len(rows(page)) == 15)
    page.choose("of-run", "1")
    page.choose("of-consulted", "yes")
    page.choose("of-use", "learned")
    [[run, step, problem, verdict, asked, refused, missing, tokens]] = rows(page)
    assert (run, step, problem, verdict) == (several[1].name, "1", "p1 #2", "wrong")
    assert (asked, refused, missing, tokens) == ("2", "1", "", "14")


def test_an_episode_reads_as_a_conversation(several: list[Run], show: Show) -> None:
    page = show("episodes", several[0])
    page.choose("of-verdict", "wrong")
    facts = dict(zip(page.texts("#left dt"), page.texts("#left dd"), strict=True))
    assert facts == {
        "verdict": "wrong",
        "answer": "8",
        "gold answer": "7",
        "reward": "1.000",
        "advantage": "-0.750",
        "rules": "turn budget 2, 3 queries a turn, acceptance rate 0.50",
        "paradigm": "direct consultation",
        "tokens": "14 written, 18 read",
        "end": "answered",
    }
    assert page.texts("#left .speaker") == [
        "environment · 12 tokens",
        "policy · turn 1 · consult · 9 tokens",
        "query 1 · gate: accepted · ada · 0.25 s",
        "query 2 · gate: refused",
        "environment · 6 tokens",
        "policy · turn 2 · answer · 5 tokens",
    ]
    assert page.texts("#left .message pre") == [
        one["content"] for one in (OPENING, CONSULT, RELAY, ANSWER)
    ]
    assert page.texts("#left .query pre") == [ASKED["query"], ASKED["reply"], REFUSED["query"]]
    assert page.texts("#left .unavailable") == ["no reply: refused by the gate"]


def test_what_was_learned_from_is_shaded(several: list[Run], show: Show) -> None:
    page = show("episodes", several[0])

    def shades() -> list[str]:
        found: list[str] = page.run(
            "return [...document.querySelectorAll('#left .message pre')].map(e => e.className)"
        )
        return found

    expected = {
        "wrong": ("of-verdict", ["read", "down", "read", "down"]),
        "decomposition": ("of-paradigm", ["read", "read"]),
        "3": ("of-step", ["read", "up"]),
    }
    for value, (name, classes) in expected.items():
        page.choose(name, value)
        assert shades() == classes, value
        page.choose(name, "")
    page.choose("of-use", "carried")
    assert "carried into the next step" in page.texts("#left dd")


def test_the_episodes_of_evaluations_are_there_too(recorded: Recorder, show: Show) -> None:
    run = recorded("eapo", [0.5])
    run.record_transcripts(1, [alone(problem_id="trained")])
    unused = {"use": "evaluated", "advantage": None, "turn_budget": 1}
    run.record_evaluated(1, [alone(problem_id="held out", **unused)])
    page = show("episodes", run)
    assert [row[1] for row in rows(page)] == ["trained #1", "held out #1"]
    page.choose("of-use", "evaluated")
    assert page.texts("#left h2") == ["eapo-1, step 1, held out #1"]
    assert "evaluated, alone" in page.texts("#left dd")


def test_two_runs_stand_side_by_side_on_the_same_problem(several: list[Run], show: Show) -> None:
    page = show("episodes", several[0], several[2])
    page.choose("of-step", "3")
    assert page.texts("#left h2") == [f"{several[0].name}, step 3, p1 #1"]
    assert not page.browser.find_element("id", "right").is_displayed()
    others = page.texts("#beside option")
    name = several[2].name
    assert others[0] == "another on this problem (5)"
    assert others[1:3] == [f"{name}, step 3, #1, correct", f"{name}, step 1, #1, correct"]
    page.choose("beside", "0")
    assert page.texts("#right h2") == [f"{name}, step 3, p1 #1"]
    left, right = (page.browser.find_element("id", side).rect for side in ("left", "right"))
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]
    page.click("next")
    assert not page.browser.find_element("id", "right").is_displayed(), "another problem's is gone"


def test_the_list_is_read_by_mouse_and_keyboard_and_by_pages(
    recorded: Recorder, show: Show
) -> None:
    run = recorded("eapo", [0.5])
    run.record_transcripts(1, [alone(problem_id=f"p{n:03}") for n in range(250)])
    page = show("episodes", run)
    reading = lambda: page.texts("#left h2")[0].split()[-2]  # noqa: E731
    assert (reading(), page.text("count"), len(rows(page))) == ("p000", "1 to 100 of 250", 100)
    assert [page.browser.find_element("id", one).is_enabled() for one in ("newer", "previous")] == [
        False,
        False,
    ]
    page.click("older")
    assert page.text("count") == "101 to 200 of 250"
    page.click("older")
    assert page.text("count") == "201 to 250 of 250"
    assert not page.browser.find_element("id", "older").is_enabled()
    page.click("newer")
    page.browser.find_element("css selector", "#rows tbody tr:nth-child(3)").click()
    assert reading() == "p102"
    for key, problem in ((Keys.ARROW_DOWN, "p103"), (Keys.ARROW_UP, "p102")):
        page.browser.switch_to.active_element.send_keys(key)
        assert reading() == problem
    page.click("next")
    assert reading() == "p103"
    page.click("previous")
    page.click("previous")
    assert reading() == "p101"
    page.browser.find_element("css selector", "#rows tbody tr:first-child").click()
    page.click("previous")
    assert (reading(), page.text("count")) == ("p099", "1 to 100 of 250")


def test_a_reply_that_did_not_come_is_counted_and_found(recorded: Recorder, show: Show) -> None:
    run = recorded("eapo", [0.5])
    late = {"query": "3 + 4?", "accepted": True, "expert": "ada", "unavailable": "too late"}
    run.record_transcripts(1, [consulting(ASKED), consulting(late), consulting(REFUSED)])
    page = show("episodes", run)
    assert [row[-2] for row in rows(page)] == ["", "1", ""]
    page.choose("of-missing", "yes")
    assert len(rows(page)) == 1
    assert page.texts("#left .unavailable") == ["no reply: too late"]


def test_a_long_reply_is_unfolded_by_a_click(recorded: Recorder, show: Show) -> None:
    run = recorded("eapo", [0.5])
    run.record_transcripts(1, [consulting(ASKED | {"reply": "long " * 500})])
    page = show("episodes", run)
    text = page.browser.find_element("css selector", "#left .reply")
    assert not text.is_displayed()
    page.browser.find_element("css selector", "#left details summary").click()
    assert text.is_displayed()
    assert page.texts("#left details summary") == ["2500 characters"]


def test_settings_are_searched_and_compared(several: list[Run], show: Show) -> None:
    page = show("settings", *several)

    def settings() -> dict[str, list[str]]:
        found: list[list[str]] = page.run(
            "return [...document.querySelectorAll('#config tbody tr')]"
            ".map(row => [...row.cells].map(cell => cell.textContent))"
        )
        return {name: values for name, *values in found}

    assert len(settings()) > 100
    page.click("differing")
    assert settings() == {"name": ["eapo", "eapo", "rl"], "seed": ["0", "1", "0"]}
    page.click("differing")
    page.choose("of-setting", "annealing.")
    assert all(name.startswith("annealing.") for name in settings())
    assert len(page.texts("#events h2")) == 3


def test_a_page_with_fewer_groups_says_so(
    recorded: Recorder, browser: Chrome, tmp_path: Path
) -> None:
    from eapo_agents.training.report.page import page as written

    run = recorded("eapo", [0.5])
    run.record_transcripts(1, [alone(problem_id=f"p{n}") for n in range(4)])
    (tmp_path / "page.html").write_text(written([run], 400), encoding="utf-8")
    page = Page.of_file(browser, tmp_path / "page.html", "episodes")
    assert page.text("omitted").startswith("One group of ")


def test_a_served_page_follows_a_training(recorded: Recorder, browser: Chrome) -> None:
    run = recorded("eapo", [])
    with view_server([run], 0) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            page = Page(browser, f"http://127.0.0.1:{server.server_port}/#episodes")
            assert "has no metrics yet" in page.text("status")
            run.record_event("started", 0)
            run.record(1, {"accuracy": 0.5})
            run.record_transcripts(1, [alone(problem_id="first")])
            page.wait_for(lambda: f"step 1 of {run.config.steps}, started" in page.text("status"))
            page.click("tab-episodes")
            page.wait_for(lambda: len(rows(page)) == 1)
            page.choose("of-verdict", "correct")
            run.record(2, {"accuracy": 0.75})
            run.record_transcripts(2, [alone(problem_id="second"), alone(status="wrong")])
            page.wait_for(lambda: len(rows(page)) == 2)
            run.record_evaluated(2, [alone(problem_id="held out", use="evaluated")])
            page.wait_for(lambda: len(rows(page)) == 3)
            assert page.texts("#left h2") == ["eapo-1, step 1, first #1"], "it is still being read"
            assert page.run("return document.getElementById('of-verdict').value") == "correct"
            page.click("tab-training")
            page.wait_for(lambda: drawn(page)[0]["points"] == 2)
            assert page.problems() == []
        finally:
            server.shutdown()
            thread.join()
    page.wait_for(lambda: "does not answer" in page.text("status"))
