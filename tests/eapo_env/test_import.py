"""Importing eapo_env is light, registers the environment, and keeps its promises about names."""

from __future__ import annotations

import json
import subprocess
import sys

import gymnasium as gym
import pytest

import eapo_env

HEAVY = ("torch", "transformers", "vllm", "datasets", "math_verify", "sympy", "openai", "pandas")


def modules_after(code: str) -> set[str]:
    """Return what a fresh interpreter has imported after the code."""
    report = "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code + report], capture_output=True, text=True, check=True
    )
    return set(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import eapo_env",
        "import eapo_env, gymnasium as gym\n"
        "env = gym.make('EAPO-Math-v0'); env.reset(seed=0)\n"
        "env.step('<consult><query>(12*9)-5</query></consult>'); env.step(r'\\boxed{7}')",
    ],
    ids=["import", "an episode"],
)
def test_heavy_packages_stay_out(code: str) -> None:
    loaded = modules_after(code)
    assert "eapo_env.env" in loaded
    assert not loaded.intersection(HEAVY)
    assert not any(name.startswith("eapo_agents") for name in loaded)


def test_every_public_name_exists_and_is_listed_once() -> None:
    assert len(set(eapo_env.__all__)) == len(eapo_env.__all__)
    for name in eapo_env.__all__:
        assert getattr(eapo_env, name) is not None


def test_the_environment_is_registered_without_a_time_limit() -> None:
    spec = gym.spec("EAPO-Math-v0")
    assert spec.max_episode_steps is None
    assert spec.vector_entry_point is not None
    assert not spec.nondeterministic


def test_gymnasium_can_import_the_package_itself() -> None:
    assert "eapo_env" in modules_after("import gymnasium; gymnasium.make('eapo_env:EAPO-Math-v0')")
