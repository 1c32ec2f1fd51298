"""Pools of served experts by short names."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from eapo_agents.methods.workflows import pool_endpoints
from eapo_agents.training.presets import preset_named
from eapo_env.endpoints import Endpoint

MODELS = ("R1-Qwen-7B", "R1-Qwen-14B", "QwQ-32B")
SERVED = tuple(
    Endpoint(base_url=f"http://127.0.0.1:{port}/v1", models=(model,))
    for port, model in enumerate(MODELS, start=8000)
)


@pytest.mark.parametrize(
    ("pool", "models"),
    [
        ("7B+14B+32B", MODELS),
        ("32b x3", ("QwQ-32B",) * 3),
        (" 14B x2 + QwQ-32B", ("R1-Qwen-14B", "R1-Qwen-14B", "QwQ-32B")),
    ],
)
def test_pools_by_name(pool: str, models: Sequence[str]) -> None:
    assert [endpoint.models for endpoint in pool_endpoints(pool, SERVED)] == [(m,) for m in models]


@pytest.mark.parametrize(
    ("pool", "message"), [("70B", "'70B' fits none"), ("Qwen", "'Qwen' fits"), ("7B+", "NAME")]
)
def test_a_pool_that_is_not_served_is_refused(pool: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pool_endpoints(pool, SERVED)


def test_the_pool_of_table_6_is_served_by_a_preset() -> None:
    endpoints = preset_named("mixed_experts").experts.endpoints
    assert len(pool_endpoints("7B+14B+32B", endpoints)) == 3
