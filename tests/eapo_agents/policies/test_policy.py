"""The values of the policy protocol."""

from __future__ import annotations

import math
from typing import Any

import pytest

from eapo_agents.policies.policy import Completion, Sampling


@pytest.mark.parametrize(
    "bad",
    [
        {"max_tokens": 0},
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"stop": "</consult>"},
        {"stop": ("",)},
    ],
)
def test_sampling_refuses_values_out_of_range(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Sampling(**{"max_tokens": 5, **bad})


def test_a_completion_has_one_logprob_an_id() -> None:
    with pytest.raises(ValueError, match="1 logprobs for 2 token ids"):
        Completion(token_ids=(1, 2), logprobs=(-1.0,), finish="stop")
    with pytest.raises(ValueError, match="0 token ids"):
        Completion(token_ids=(), logprobs=(), finish="stop")
