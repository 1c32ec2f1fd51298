"""[edge] Execute the notebooks and keep what they show: python -m website.notebooks.

What only tells of the machine is left out: standard error, times, the version of Python.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from website.pages import ROOT


def executed(path: Path) -> nbformat.NotebookNode:
    """Return a notebook as it is when all its cells have run, in a kernel of its own."""
    notebook: nbformat.NotebookNode = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    metadata, place = deepcopy(notebook.metadata), {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, resources=place, record_timing=False).execute()
    notebook.metadata = metadata
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
    return notebook


def printed(notebook: nbformat.NotebookNode) -> list[str]:
    """Return what each code cell prints."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return ["".join(one.get("text", "") for one in cell.outputs) for cell in cells]


if __name__ == "__main__":
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        nbformat.write(executed(path), path)
