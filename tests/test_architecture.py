"""The rules of the tree that a parser can check. A new module needs no line here."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = (
    "_lazy",
    "factories",
    "files",
    "serving",
    "policies",
    "rollouts",
    "learning",
    "testing",
    "evaluation",
    "training",
    "methods",
    "reproduction",
    "adapters",
    "cli",
)
"""The parts of `eapo_agents`, bottom to top: each imports only from those before it."""
MAX_LINES = 800
HEAVY = {"torch", "transformers", "vllm", "datasets", "math_verify", "sympy", "openai", "aiohttp"}

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for package in ("eapo_env", "eapo_agents")
    for path in sorted((ROOT / package).rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imports(name: str) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of each import, at any depth, types included; "" for a whole module."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} has a relative import"
            assert node.module
            yield from ((node.module, alias.name) for alias in node.names)


def exports(room: str) -> dict[str, str]:
    """Return the public names of a package, each with the module that defines it."""
    stub = (ROOT / room.replace(".", "/") / "__init__.pyi").read_text(encoding="utf-8")
    return {
        alias.name: f"{room}.{node.module}" if node.module else f"{room}.{alias.name}"
        for node in ast.parse(stub).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


PUBLIC = {
    package: exports(package)
    for package in ("eapo_agents", *(f"eapo_agents.{room}" for room in ROOMS))
    if (ROOT / package.replace(".", "/") / "__init__.pyi").exists()
}


def definition(module: str, name: str) -> str:
    """Return the file that an import ends in, through the public names of packages."""
    while module in PUBLIC and name in PUBLIC[module]:
        module = PUBLIC[module][name]
    inner = f"{module}.{name}"
    found = inner if inner in MODULES else module
    return found if found in MODULES else f"{found}.__init__"


def room_of(module: str) -> str:
    return module.split(".")[1] if module.startswith("eapo_agents.") else ""


def test_a_room_imports_only_from_rooms_below_it() -> None:
    for name in MODULES:
        for module, _ in imports(name):
            here, there = room_of(name), room_of(module)
            if here in ROOMS and there in ROOMS:
                assert ROOMS.index(there) <= ROOMS.index(here), f"{name} imports {module}"


def test_no_file_imports_itself_through_others() -> None:
    graph = {
        name: {
            found
            for module, imported in imports(name)
            if (found := definition(module, imported)) in MODULES and found != name
        }
        for name in MODULES
    }
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


def test_rooms_use_only_the_public_names_of_each_other() -> None:
    for name in MODULES:
        for module, imported in imports(name):
            here, there = room_of(name), room_of(module)
            if here and there not in ("", here, "_lazy", "factories", "files"):
                package = f"eapo_agents.{there}"
                public = module == package and imported in PUBLIC[package]
                assert public, f"{name} imports {module}.{imported}, not public in {package}"


def test_the_environment_knows_nothing_of_agents_or_models() -> None:
    forbidden = {"torch", "vllm", "transformers", "eapo_agents"}
    for name in MODULES:
        if name.startswith("eapo_env."):
            found = {module.partition(".")[0] for module, _ in imports(name)}
            assert found & forbidden == set(), name


def test_importing_loads_nothing_heavy() -> None:
    for statement in ("import eapo_env", "import eapo_agents"):
        code = f"{statement}; import sys; print(sorted({HEAVY} & set(sys.modules)))"
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
        )
        assert result.stdout.strip() == "[]", statement


def test_episodes_are_played_without_a_deep_learning_library() -> None:
    """Other trainers bring their own, of other versions."""
    for statement, foreign in (
        ("from eapo_agents.rollouts import Rollout", HEAVY | {"pydantic"}),
        ("from eapo_agents.training import ScheduledRollout", HEAVY),
    ):
        code = f"{statement}; import sys; print(sorted({foreign} & set(sys.modules)))"
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
        )
        assert result.stdout.strip() == "[]", statement


def test_a_module_says_what_it_owns_in_few_lines() -> None:
    for name, tree in TREES.items():
        assert ast.get_docstring(tree), f"{name} has no docstring"
        assert MODULES[name].read_text(encoding="utf-8").count("\n") <= MAX_LINES, name


def test_every_public_name_is_there() -> None:
    import eapo_agents

    for package, names in PUBLIC.items():
        for name, module in names.items():
            assert definition(package, name) in MODULES, f"{package}.{name} of {module}"
    assert set(dir(eapo_agents)) == set(PUBLIC["eapo_agents"])


def test_no_public_name_is_hidden_by_a_module_of_its_package() -> None:
    for package, names in PUBLIC.items():
        for name, module in names.items():
            beside = f"{package}.{name}"
            assert module == beside or beside not in MODULES, f"{beside} is a module, too"
