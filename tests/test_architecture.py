"""The house rules that a parser can check: who imports whom, docstrings, file lengths.

A module imports only from rows above its own; `eapo_agents` may import all of `eapo_env`, never
the reverse. Imports inside functions and under TYPE_CHECKING count like any other.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_LINES = 300

ENV_ROWS = [
    "types answers equivalence notation spaces breaker event_loop limits",
    "actions prompts annealing acceptance experts rows structure endpoints",
    "episode openai_experts recordings symbolic synthetic",
    "reward verifier_worker",
    "worker_pool",
    "verifier",
    "problems",
    "options",
    "env",
    "vector_env",
    "__init__",
]
AGENTS_ROWS = [
    "truncation decisions records whole_files interruption",
    "advantages losses policy metrics trajectory char_tokenizer cold_start hf_cache hf_sampling",
    "sheets sharding vllm_engine server_process vllm_file_weights linear benchmark_tasks",
    "leap_routing benchmark_results",
    "weight_transfer serve_expert",
    "serve_policy vllm_server_policy served",
    "algorithm batches tokens hf_batch comparison tally expert_watch paradigms",
    "logprobs rollout hf_policy vllm_policy learner_settings chat_model",
    "processes",
    "learner evaluate dynamic_sampling openai_policy text_rollout leap_paths decision_writers",
    "decision_env",
    "skrl_agents",
    "benchmark_model summary sync_probe progress settings leap",
    "config",
    "models presets run solutions pools",
    "policies evaluations run_methods report_examples",
    "report_plots lora play pretrain trainer",
    "settings_page report distill chat_models bases follower copies cell_results",
    "console_evaluation",
    "workflows cells console console_comparison results_text",
    "benchmarks cell_runs claims results_plots console_workflows",
    "console_benchmarks",
    "reproduce results",
    "console_reproduce",
    "cli_options",
    "cli_workflows",
    "cli_methods",
    "cli",
    "__init__",
]
ROWS = {"eapo_env": ENV_ROWS, "eapo_agents": AGENTS_ROWS}
FILES = sorted(path for package in ROWS for path in (ROOT / package).rglob("*.py"))
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}


def imports(name: str) -> Iterator[str]:
    """Yield the dotted name of whatever a module imports, at any depth, as `package.module`."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (resolved(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else resolved(node.module)


def resolved(module: str) -> str:
    return f"{module}.__init__" if module in ROWS else module


GRAPH = {name: set(imports(name)) for name in MODULES}
OURS = {name: {other for other in found if other in MODULES} for name, found in GRAPH.items()}


def row_of(name: str) -> int:
    package, _, module = name.partition(".")
    return next(k for k, row in enumerate(ROWS[package]) if module in row.split())


@pytest.mark.parametrize("package", ROWS)
def test_every_module_has_one_row(package: str) -> None:
    placed = sorted(module for row in ROWS[package] for module in row.split())
    there = sorted(name.partition(".")[2] for name in MODULES if name.startswith(package + "."))
    assert placed == there


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_rows_above_its_own(name: str) -> None:
    package = name.partition(".")[0]
    beside = {other for other in OURS[name] if other.startswith(package + ".")}
    assert {other for other in beside if row_of(other) >= row_of(name)} == set()


def test_there_are_no_cycles() -> None:
    assert len(list(TopologicalSorter(OURS).static_order())) == len(MODULES)


def test_the_environment_knows_nothing_of_agents_or_models() -> None:
    forbidden = {"torch", "vllm", "transformers", "eapo_agents"}
    for name, found in GRAPH.items():
        if name.startswith("eapo_env."):
            assert {other.partition(".")[0] for other in found} & forbidden == set(), name


def test_importing_the_environment_loads_nothing_heavy() -> None:
    heavy = {
        "torch",
        "transformers",
        "vllm",
        "datasets",
        "math_verify",
        "sympy",
        "openai",
        "aiohttp",
    }
    code = f"import sys, eapo_env; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_says_what_it_owns_in_few_lines(name: str) -> None:
    source = MODULES[name].read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(source)), f"{name} has no docstring"
    assert source.count("\n") <= MAX_LINES
