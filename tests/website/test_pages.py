"""Files of the repository as pages of the site: links, names, programs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from website.generated import anchors, page_of, public_names
from website.pages import linked, with_names

PAGES = {
    "docs/methods.md": "methods.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "examples/loop.py": "examples/loop.md",
}


@pytest.mark.parametrize(
    ("source", "link", "expected"),
    [
        ("docs/methods.md", "../examples/loop.py", "examples/loop.md"),
        ("docs/methods.md", "../CHANGELOG.md#fixed", "CHANGELOG.md#fixed"),
        ("docs/methods.md", "images/demo.png", "images/demo.png"),
        ("docs/methods.md", "#presets", "#presets"),
        ("docs/methods.md", "https://example.org/a#b", "https://example.org/a#b"),
        ("CHANGELOG.md", "docs/methods.md#presets", "methods.md#presets"),
        ("examples/loop.py", "../docs/methods.md", "../methods.md"),
    ],
)
def test_links_between_files_become_links_between_pages(
    source: str, link: str, expected: str
) -> None:
    text = "See [it]({}).\n```text\n[it]({})\n```\n"
    assert linked(text.format(link, link), source, PAGES) == text.format(expected, link)


@pytest.mark.parametrize("link", ["../LICENSE", "nothing.md", "../examples"])
def test_a_link_to_a_file_without_a_page_is_an_error(link: str) -> None:
    with pytest.raises(ValueError, match="has no page in the site"):
        linked(f"[it]({link})", "docs/methods.md", PAGES)


def test_the_first_mention_of_a_public_name_leads_to_the_reference() -> None:
    found = anchors(public_names())
    text = (
        "`eapo_agents.DAPO`, `eapo_env.Rules.alone`, `eapo_agents.DAPO`, `eapo_env.verifier_worker`"
    )
    assert with_names(text, found) == (
        "[`eapo_agents.DAPO`][eapo_agents.learning.DAPO], "
        "[`eapo_env.Rules.alone`][eapo_env.Rules], `eapo_agents.DAPO`, `eapo_env.verifier_worker`"
    )


def test_a_program_is_its_docstring_and_its_code(tmp_path: Path) -> None:
    program = tmp_path / "loop.py"
    program.write_text('"""Play.\n\n    a \\\\\n    b\n\nTwice.\n"""\n\nimport os\n')
    assert page_of(program) == (
        "# loop.py\n\nPlay.\n\n    a \\\n    b\n\nTwice.\n\n```python\nimport os\n```\n"
    )


def test_a_notebook_is_its_text_its_code_and_what_that_shows(tmp_path: Path) -> None:
    cell = nbformat.v4.new_code_cell(
        "1 + 1",
        outputs=[
            nbformat.v4.new_output("stream", text="a\nb\n"),
            nbformat.v4.new_output("execute_result", {"text/plain": "2"}),
            nbformat.v4.new_output("display_data", {"image/png": "AA==", "text/plain": "<Figure>"}),
        ],
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Sums"), cell])
    path = tmp_path / "sums.ipynb"
    nbformat.write(notebook, path)
    assert page_of(path).split("\n\n") == [
        "# Sums",
        "```python\n1 + 1\n```",
        '```text title="Output"\na\nb\n```',
        '```text title="Output"\n2\n```',
        '<img alt="what the code draws" src="data:image/png;base64,AA==">',
    ]
