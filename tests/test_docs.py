"""The documents keep their word: their code runs, their links lead somewhere, their names exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name

import nbformat
import pytest
from forked import run_forked

from eapo_agents.cli import app
from eapo_agents.training.config import with_settings
from eapo_agents.training.presets import preset_named

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")))
}
PROGRAMS = [page for page in PAGES if "```python\n" in PAGES[page] and page != "README.md"]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
DOTTED = re.compile(r"(?:eapo_env|eapo_agents)(?:\.\w+)+")


def blocks(page: str, language: str) -> list[str]:
    return [code for found, code in FENCE.findall(PAGES[page]) if found == language]


def script(page: str) -> str:
    """Return a page's Python blocks, each on the lines where it stands, blank lines elsewhere."""
    lines = [""] * PAGES[page].count("\n")
    for fence in FENCE.finditer(PAGES[page]):
        if fence[1] == "python":
            start = PAGES[page].count("\n", 0, fence.start(2))
            code = fence[2].splitlines()
            lines[start : start + len(code)] = code
    return "\n".join(lines) + "\n"


def prose(page: str) -> str:
    return COMMENT.sub("", FENCE.sub("", PAGES[page]))


def code_spans(page: str) -> list[str]:
    return CODE.findall(prose(page))


def commands(page: str, program: str) -> list[list[str]]:
    """Return the arguments of each call of a program in a page's shell blocks."""
    text = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
    words = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [line[1:] for line in words if line[:1] == [program]]


def anchors(page: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", PAGES[page]), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def written(code: str, folder: Path, name: str) -> Path:
    path = folder / f"page_{Path(name).stem.replace('-', '_')}.py"  # no library's name
    path.write_text(code, encoding="utf-8")
    return path


def run(code: str, folder: Path, name: str) -> str:
    """Return what a script prints, run as a user would run it, but with warnings as errors."""
    path = written(code, folder, name)
    result = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, f"{name} (line numbers are the page's):\n{result.stderr}"
    return result.stdout


def resolves(name: str) -> bool:
    try:
        resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("page", PROGRAMS)
def test_the_code_of_a_page_runs(page: str, tmp_path: Path) -> None:
    """As the README, but in processes that have imported torch."""
    path = written(script(page), tmp_path, page)
    result = run_forked(path, cwd=tmp_path, warnings="error")
    assert result.returncode == 0, f"{page} (line numbers are the page's):\n{result.stderr}"


@pytest.mark.slow
def test_the_readme_prints_what_its_first_comment_says(tmp_path: Path) -> None:
    [promised] = re.findall(r"print\(.*\)  # (.*)", blocks("README.md", "python")[0])
    assert run(script("README.md"), tmp_path, "README.md").splitlines()[0] == promised


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/*.ipynb")), ids=lambda p: p.stem)
def test_a_notebook_is_valid_and_its_links_lead_somewhere(path: Path) -> None:
    """`make notebooks` executes them."""
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for target in LINK.findall(FENCE.sub("", text)):
        assert "://" in target or (path.parent / target.partition("#")[0]).exists(), target


def test_relative_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in LINK.findall(prose(page)):
            name, _, anchor = target.partition("#")
            place = ((ROOT / page).parent / name if name else ROOT / page).resolve()
            assert "://" in target or place.exists(), f"{page}: {target}"
            if anchor and "://" not in target:
                assert anchor in anchors(str(place.relative_to(ROOT))), f"{page}: {target}"


def test_dotted_names_exist() -> None:
    spans = {(span, page) for page in PAGES for span in code_spans(page) if DOTTED.fullmatch(span)}
    missing = [f"{page}: {span}" for span, page in sorted(spans) if not resolves(span)]
    assert not missing


def test_files_exist() -> None:
    named = re.compile(r"[\w./-]+\.(?:py|md|ipynb|toml)")
    for page in PAGES:
        for span in filter(named.fullmatch, code_spans(page)):
            assert (ROOT / span).is_file(), f"{page}: {span}"


def test_every_row_of_the_paper_map_leads_to_code_or_says_not_yet() -> None:
    rows = re.findall(r"^\| .+ \| (.+) \|$", PAGES["docs/paper-map.md"], re.MULTILINE)
    leads = [row for row in rows if row not in ("here", "---")]
    assert len(leads) > 50
    for row in leads:
        says = "not yet" in row or "not a setting" in row
        assert says or any(map(DOTTED.fullmatch, CODE.findall(row))), row


def test_the_two_commands_stand_on_the_first_screen() -> None:
    first_screen = "\n".join(PAGES["README.md"].splitlines()[:25])
    assert re.findall(r"^make (\w+)", first_screen, re.MULTILINE) == ["demo", "test"]


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for page in PAGES:
        spans = [span.split()[1] for span in code_spans(page) if re.match(r"make \w", span)]
        assert {*spans, *(call[0] for call in commands(page, "make"))} <= targets, page


def test_commands_exist() -> None:
    exist = set(re.findall(r"^ {4}([\w-]+)", app.parser().format_help(), re.MULTILINE))
    for page in PAGES:
        spans = {span.split()[1] for span in code_spans(page) if re.match(r"eapo [a-z]", span)}
        assert spans <= exist, page


def test_the_calls_of_eapo_are_accepted() -> None:
    calls = [call for page in PAGES for call in commands(page, "eapo")]
    assert calls
    for call in calls:
        options = app.parsed(call)
        if getattr(options, "preset", None):
            with_settings(preset_named(options.preset), options.set)
