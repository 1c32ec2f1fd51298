"""vLLM's column of `docs/families.md`: families sampled from, before and after new weights."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("vllm")

import family_table
from families import Family


@pytest.mark.parametrize("family", family_table.IN_VLLM, ids=lambda family: family.models)
def test_what_runs_in_vllm_is_in_the_table(family: Family, tmp_path: Path) -> None:
    found = family_table.measured_in_vllm(family, tmp_path / "model")
    assert found == family_table.rows()[family.models]["vllm"]
