"""The wheel: both packages with their data, and an environment that needs nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from programs import ROOT

pytestmark = pytest.mark.slow

PACKAGES = ("eapo_env", "eapo_agents")


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


def test_an_empty_environment_can_make_and_step(wheel: Path, tmp_path: Path) -> None:
    """What the wheel needs comes from the package index."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "-q", "--no-compile", wheel, cwd=tmp_path)
    (tmp_path / "set.parquet").write_bytes(b"PAR1")
    program = ROOT / "tests" / "programs" / "first_episode.py"
    said = json.loads(run(python, program, cwd=tmp_path))
    assert Path(said["where"]).is_relative_to(tmp_path / "venv")
    assert said["ended"]
    assert set(said["rewards"]) == {0.0}
    assert said["read"] > 0
    assert said["sample"] == 12
    assert "pip install datasets" in said["missing"]
    assert said["extras"] == []
