"""The notebooks hold what they show, and nothing of the machine that executed them."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from website.notebooks import executed, printed
from website.pages import ROOT

NOTEBOOKS = {path.stem: path for path in ROOT.glob("notebooks/*.ipynb")}
TRAINS = "reading_a_run"
"""Its numbers are those of one machine, up to rounding."""
LARGEST_BYTES = 300_000
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/<])/\w+/\w")


def read(path: Path) -> nbformat.NotebookNode:
    notebook: nbformat.NotebookNode = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    return notebook


@pytest.mark.parametrize("name", sorted(NOTEBOOKS))
def test_outputs_are_those_of_one_run_and_of_any_machine(name: str) -> None:
    assert NOTEBOOKS[name].stat().st_size <= LARGEST_BYTES
    notebook = read(NOTEBOOKS[name])
    assert notebook.metadata.language_info == {"name": "python"}
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}
    for output in outputs:
        text = output.get("text", "") + output.get("data", {}).get("text/plain", "")
        assert not ABSOLUTE_PATH.search(text)
    assert all("execution" not in cell.metadata for cell in cells), "times"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(NOTEBOOKS) - {TRAINS}))
def test_a_notebook_prints_what_it_holds(name: str) -> None:
    """If not, `make outputs`."""
    assert printed(executed(NOTEBOOKS[name])) == printed(read(NOTEBOOKS[name]))


def test_a_path_is_recognised() -> None:
    assert ABSOLUTE_PATH.search("written to /tmp/x/report.html")
    assert not ABSOLUTE_PATH.search("</query> 1/2 https://example.org/a/b a/b/c")
