"""The values of the policy protocol, the scripted double, and what the conformance check finds."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from eapo_agents.policies.characters import char_tokenizer
from eapo_agents.policies.policy import (
    NO_TRUNCATION,
    Completion,
    Sampling,
    ScriptedPolicy,
    check_policy,
)

TOKENIZER = char_tokenizer()
PROMPT = TOKENIZER.encode("2 + 3")


def random_digits(_prompt: str, rng: np.random.Generator) -> str:
    return "".join(map(str, rng.integers(0, 10, 5)))


def complete(policy: ScriptedPolicy, seed: int = 0, **sampling: object) -> Completion:
    return asyncio.run(policy.complete(PROMPT, Sampling(**{"max_tokens": 50, **sampling}), seed))


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
def test_sampling_refuses_values_out_of_range(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Sampling(**{"max_tokens": 5, **bad})


def test_a_completion_has_one_logprob_an_id() -> None:
    with pytest.raises(ValueError, match="1 logprobs for 2 token ids"):
        Completion(token_ids=(1, 2), logprobs=(-1.0,), finish="stop")
    with pytest.raises(ValueError, match="0 token ids"):
        Completion(token_ids=(), logprobs=(), finish="stop")


def test_a_script_may_be_a_list_of_texts_in_order() -> None:
    policy = ScriptedPolicy(TOKENIZER, ["one", "two"])
    assert TOKENIZER.decode(complete(policy).token_ids) == "one<|im_end|>"
    assert TOKENIZER.decode(complete(policy).token_ids) == "two<|im_end|>"
    with pytest.raises(ValueError, match="used up"):
        complete(policy)


def test_a_script_may_read_the_prompt_and_draw() -> None:
    policy = ScriptedPolicy(TOKENIZER, lambda prompt, rng: f"{prompt}={rng.integers(10**6)}")
    texts = [TOKENIZER.decode(complete(policy, seed=seed).token_ids) for seed in (1, 1, 2)]
    assert texts[0].startswith("2 + 3=")
    assert texts[0] == texts[1] != texts[2]


def test_a_scripted_text_ends_at_a_stop_text_or_at_the_limit() -> None:
    text = "<consult>ask</consult> and more"
    stopped = complete(ScriptedPolicy(TOKENIZER, [text]), stop=("</consult>",))
    assert TOKENIZER.decode(stopped.token_ids) == "<consult>ask</consult>"
    assert stopped.finish == "stop"
    cut = complete(ScriptedPolicy(TOKENIZER, [text]), stop=("</consult>",), max_tokens=3)
    assert TOKENIZER.decode(cut.token_ids) == "<consult>as"
    assert cut.finish == "length"


def test_a_scripted_text_cannot_spell_special_tokens() -> None:
    completion = complete(ScriptedPolicy(TOKENIZER, ["<|im_end|>"]))
    assert completion.token_ids.count(TOKENIZER.eos_token_id) == 1


def test_the_scripted_policy_keeps_the_protocol() -> None:
    policy = ScriptedPolicy(TOKENIZER, random_digits, max_context_tokens=100)
    asyncio.run(check_policy(policy, PROMPT))


class Broken(ScriptedPolicy):
    """A policy with one fault, to see the conformance check find it."""

    def __init__(self, fault: str) -> None:
        super().__init__(TOKENIZER, random_digits, max_context_tokens=100)
        self.fault = fault
        self.calls = 0

    async def complete(
        self, prompt_ids: Sequence[int], sampling: Sampling, seed: int
    ) -> Completion:
        self.calls += 1
        match self.fault:
            case "batch":
                return await super().complete(prompt_ids, sampling, seed + self.calls)
            case "stop":
                return await super().complete(prompt_ids, replace(sampling, stop=()), seed)
            case "length":
                return await super().complete(prompt_ids, replace(sampling, max_tokens=9), seed)
            case "room" if len(prompt_ids) >= 100:
                return await super().complete(prompt_ids[:5], sampling, seed)
            case "cancel":
                try:
                    return await super().complete(prompt_ids, sampling, seed)
                except asyncio.CancelledError:
                    return Completion(token_ids=(1,), logprobs=(0.0,), finish="stop")
            case "logprobs":
                completion = await super().complete(prompt_ids, sampling, seed)
                return replace(completion, logprobs=(0.5,) * len(completion.token_ids))
            case "narrow":
                return await super().complete(
                    prompt_ids, replace(sampling, truncation=NO_TRUNCATION), seed
                )
            case "greedy" if sampling.temperature == 0:
                warm = replace(sampling, temperature=1.0)
                return await super().complete(prompt_ids, warm, seed)
        return await super().complete(prompt_ids, sampling, seed)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("batch", "a batch changed"),
        ("stop", "did not stop|went on|stop changed"),
        ("length", "ids at max_tokens=1|before the limit"),
        ("room", "was taken"),
        ("cancel", "did not end"),
        ("logprobs", "bad logprobs"),
        ("greedy", "temperature 0"),
        ("narrow", "with top_p=1, top_k=1, min_p=0 another id than the likeliest"),
    ],
)
def test_the_conformance_check_finds_a_fault(fault: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        asyncio.run(check_policy(Broken(fault), PROMPT))


def test_the_conformance_check_passes_the_same_class_without_a_fault() -> None:
    asyncio.run(check_policy(Broken("none"), PROMPT))
