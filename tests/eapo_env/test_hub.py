"""Hub ids, and the paths that look like one."""

from __future__ import annotations

from pathlib import Path

import pytest

from eapo_env.hub import is_hub_id


def test_a_hub_id_is_an_owner_and_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("Qwen/Qwen3-8B", "math-ai/aime24", "a_b/c.d"):
        assert is_hub_id(path)
    for path in ("gpt2", "a/b/c", "/a", "a/", "./a/b", "~/a", "a b/c", "\u00e9/a", "a/b\n", ""):
        assert not is_hub_id(path)


@pytest.mark.parametrize("path", ["runs/nothing", "./runs", "../runs", "../nothing"])
def test_what_is_missing_beside_others_is_no_hub_id(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert not is_hub_id(path)
