"""Parts by name: from a module, from the working directory, from an installed distribution."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from eapo_agents.factories import Factory, check_members, found
from eapo_env.validation import UserError


def test_a_callable_of_a_module_is_found_and_called() -> None:
    made = Factory(factory="fractions:Fraction", arguments={"denominator": 4}).make("eapo.x", 3)
    assert str(made) == "3/4"
    assert found("collections:OrderedDict.fromkeys", "eapo.x")("ab") == {"a": None, "b": None}


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("eapo.experts", "what 'fractions:Fraction' returns must have ask, not be Fraction"),
        ("eapo.rewards", "must have reward, not be"),
        ("eapo.verifiers", "must have verify, averify, close, not be"),
        ("eapo.algorithms", "must have name, advantages, loss, not be"),
        ("eapo.engines", "must have tokenizer, max_context_tokens, complete, load_weights, close"),
        ("eapo.trackers", "must have log, close, not be"),
    ],
)
def test_a_factory_that_returns_another_part_is_an_error(group: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Factory(factory="fractions:Fraction").make(group)
    with pytest.raises(UserError, match="an instance, not the class"):
        check_members(Factory, group, "it")


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            Factory(factory="eapo_env.experts:ScriptedExperts", arguments={"anwser": 1}),
            r"takes \(.*answer.*, not {'anwser': 1}: .*; it must return the part",
        ),
        (
            Factory(factory="operator:add"),
            r"takes \(a, b, /\), not {}: missing a required argument",
        ),
    ],
)
def test_arguments_that_a_factory_does_not_take_are_an_error(
    factory: Factory, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        factory.make("eapo.experts")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "must be package.module:callable, not ''"),
        ("librarian", r"not 'librarian' \(installed in eapo.experts: nothing\)"),
        ("no_such_package.pools:librarian", "no module named 'no_such_package'"),
        ("fractions:Faction", "has no attribute 'Faction'"),
        ("math:pi", "factory 'math:pi' is not callable: 3.14"),
        ("../pools:librarian", "must be package.module:callable"),
    ],
)
def test_a_name_that_leads_nowhere_is_an_error_that_shows_it(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        found(name, "eapo.experts")


def run_python(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-c", program]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_working_directory_is_searched_and_an_error_inside_a_module_is_its_own(
    tmp_path: Path,
) -> None:
    (tmp_path / "pools.py").write_text("def librarian(): return 'here'\n", encoding="utf-8")
    (tmp_path / "broken.py").write_text("import no_such_library\n", encoding="utf-8")
    find = "from eapo_agents.factories import found; print(found({!r}, 'eapo.x')())"
    assert run_python(find.format("pools:librarian"), tmp_path).stdout == "here\n"
    broken = run_python(find.format("broken:librarian"), tmp_path)
    assert "ModuleNotFoundError: No module named 'no_such_library'" in broken.stderr
    assert "broken.py" in broken.stderr


def test_an_entry_point_of_an_installed_distribution_goes_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "their_pools.py").write_text("def librarian(): return 42\n", encoding="utf-8")
    info = tmp_path / "their_pools-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-pools\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[eapo.experts]\nlibrarian = their_pools:librarian\n")
    program = (
        f"import sys; sys.path.append({str(tmp_path)!r})\n"
        "from eapo_agents.factories import found\n"
        "print(found('librarian', 'eapo.experts')())\n"
        "found('scribe', 'eapo.experts')\n"
    )
    result = run_python(program, tmp_path.parent)
    assert result.stdout == "42\n"
    assert "not 'scribe' (installed in eapo.experts: librarian)" in result.stderr
