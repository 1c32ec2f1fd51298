"""The wheel: built for real, installed into an empty environment, and used outside the repository.

Needs the package registry that pip is configured for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("eapo_env", "eapo_agents")

PLAY = r"""
import json, sys
import gymnasium, eapo_env
from eapo_env.problems import load_problems

env = gymnasium.make("EAPO-Math-v0")
observation, info = env.reset(seed=3)
turns = [env.step("no answer yet")]
while not turns[-1][2]:
    turns.append(env.step("\\boxed{1/7}"))
env.close()
try:
    load_problems("set.parquet")
except (ImportError, ValueError) as error:
    missing = str(error)
print(json.dumps({
    "where": eapo_env.__file__,
    "rewards": [float(turn[1]) for turn in turns],
    "ended": turns[-1][2] and not turns[-1][3],
    "read": len(observation),
    "sample": len(load_problems("sample")),
    "missing": missing,
    "extras": [name for name in ("torch", "transformers", "datasets") if name in sys.modules],
}))
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Return what a command prints, run without a trace of this environment's Python."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL"))}
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", folder, ROOT, cwd=folder)
    (built,) = folder.glob("eapo-*.whl")
    return built


@pytest.mark.timeout(300)
def test_the_wheel_holds_both_packages_with_their_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    there = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {f"{package}/py.typed" for package in PACKAGES} <= there
    assert "eapo_env/data/sample.jsonl" in there
    assert there - names == set()
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)


@pytest.mark.timeout(300)
def test_an_empty_environment_can_make_and_step(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--no-compile", wheel, cwd=tmp_path)
    (tmp_path / "set.parquet").write_bytes(b"PAR1")
    said = json.loads(run(python, "-c", PLAY, cwd=tmp_path))
    assert Path(said["where"]).is_relative_to(tmp_path / "venv")
    assert said["ended"]
    assert set(said["rewards"]) == {0.0}
    assert said["read"] > 0
    assert said["sample"] == 12
    assert "pip install datasets" in said["missing"]
    assert said["extras"] == []
