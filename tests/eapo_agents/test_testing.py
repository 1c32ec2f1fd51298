"""The scripted policy, and what the checks of policies and algorithms find."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from eapo_agents.learning.advantages import Rewards, group_advantages
from eapo_agents.learning.algorithms import (
    CISPO,
    DAPO,
    GRPO,
    GSPO,
    RLOO,
    CustomAlgorithm,
    DrGRPO,
    MaxRL,
)
from eapo_agents.learning.losses import LossInputs, LossOutput, rloo_loss
from eapo_agents.policies.characters import char_tokenizer
from eapo_agents.policies.policy import NO_TRUNCATION, Completion, Sampling
from eapo_agents.testing import ScriptedPolicy, check_algorithm, check_policy

TOKENIZER = char_tokenizer()
PROMPT = TOKENIZER.encode("2 + 3")


def random_digits(_prompt: str, rng: np.random.Generator) -> str:
    return "".join(map(str, rng.integers(0, 10, 5)))


def complete(policy: ScriptedPolicy, seed: int = 0, **sampling: Any) -> Completion:
    return asyncio.run(policy.complete(PROMPT, Sampling(**{"max_tokens": 50, **sampling}), seed))


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
    """A policy with one fault, to see the check find it."""

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
def test_the_check_of_policies_finds_a_fault(fault: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        asyncio.run(check_policy(Broken(fault), PROMPT))


def test_the_check_passes_the_same_class_without_a_fault() -> None:
    asyncio.run(check_policy(Broken("none"), PROMPT))


BUILT_IN = [DAPO(), GRPO(), DrGRPO(), GSPO(), CISPO(), RLOO(), MaxRL()]


@pytest.mark.parametrize("algorithm", BUILT_IN, ids=lambda algorithm: algorithm.name)
def test_every_algorithm_keeps_its_protocol(algorithm: Any) -> None:
    check_algorithm(algorithm)


def standardised(rewards_G: Rewards) -> Rewards:
    with np.errstate(all="ignore"):
        advantages_G: Rewards = (rewards_G - rewards_G.mean()) / rewards_G.std()
    return advantages_G


def in_place(rewards_G: Rewards) -> Rewards:
    rewards_G -= rewards_G.mean()
    return rewards_G


def with_noise(rewards_G: Rewards) -> Rewards:
    return rewards_G + np.random.default_rng().random(len(rewards_G))


@pytest.mark.parametrize(
    ("advantages", "message"),
    [
        (standardised, r"not finite; advantages of the rewards \[0.0, 0.0\]"),
        (in_place, "it changed the rewards"),
        (with_noise, "not the same twice"),
        (lambda rewards_G: rewards_G.sum(), "not one a trajectory"),
    ],
)
def test_the_check_finds_what_is_wrong_with_advantages(
    advantages: Callable[[Rewards], Rewards], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        check_algorithm(CustomAlgorithm(name="mine", advantages=advantages, loss=rloo_loss))


def share(inputs: LossInputs, weight: float | torch.Tensor) -> LossOutput:
    """Policy gradient: the log-probabilities of the mask, weighed by advantage and weight."""
    loss_BT = -inputs.advantage_B[:, None] * inputs.logp_BT * inputs.mask_BT
    return LossOutput(loss=(loss_BT * weight).sum())


def mean_of_a_micro_batch(inputs: LossInputs) -> LossOutput:
    return share(inputs, 1 / inputs.mask_BT.sum().clamp(min=1))


def divided_by_no_tokens(inputs: LossInputs) -> LossOutput:
    return share(inputs, 1 / (6.0 * inputs.mask_BT.sum(1, keepdim=True)))


def prompts_too(inputs: LossInputs) -> LossOutput:
    everywhere = torch.ones_like(inputs.mask_BT)
    return share(replace(inputs, mask_BT=everywhere), 1 / inputs.num_tokens)


def objective(inputs: LossInputs) -> LossOutput:
    return share(inputs, -1 / inputs.num_tokens)


def no_limit(inputs: LossInputs) -> LossOutput:
    ratio_BT = (inputs.logp_BT - inputs.logp_old_BT).exp()
    return LossOutput(loss=(-inputs.advantage_B[:, None] * ratio_BT * inputs.mask_BT).sum())


def without_gradient(inputs: LossInputs) -> LossOutput:
    return LossOutput(loss=inputs.logp_BT.detach().sum())


def a_number(inputs: LossInputs) -> Any:
    return inputs.logp_BT.sum()


def changing(inputs: LossInputs) -> LossOutput:
    inputs.advantage_B.mul_(2.0)
    return share(inputs, 1 / inputs.num_tokens)


def with_a_rate(inputs: LossInputs) -> LossOutput:
    rate = inputs.mask_BT.double().mean()
    return replace(share(inputs, 1 / inputs.num_tokens), sums={"rate": rate})


def with_its_own_entropy(inputs: LossInputs) -> LossOutput:
    entropy = inputs.mask_BT.double().sum()
    return replace(share(inputs, 1 / inputs.num_tokens), sums={"entropy": entropy})


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (with_its_own_entropy, "a loss cannot name a metric 'entropy'"),
        (mean_of_a_micro_batch, "the gradients of the micro-batches .* do not add up"),
        (divided_by_no_tokens, "not finite"),
        (prompts_too, "the gradient is not zero off the mask"),
        (objective, "lowers sequences of positive advantage"),
        (no_limit, "not finite"),
        (without_gradient, "no gradient in logp_BT"),
        (a_number, "not a LossOutput"),
        (changing, "changed its input advantage_B"),
        (with_a_rate, "rate of the micro-batches .* do not add up"),
    ],
)
def test_the_check_finds_what_is_wrong_with_a_loss(
    loss: Callable[[LossInputs], Any], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        check_algorithm(CustomAlgorithm(name="mine", advantages=group_advantages, loss=loss))


def test_the_check_passes_any_value_with_a_name_advantages_and_a_loss() -> None:
    class Mine:
        name = "mine"

        def advantages(self, rewards_G: Rewards) -> Rewards:
            return (rewards_G > 0.5).astype(np.float64)

        def loss(self, inputs: LossInputs) -> LossOutput:
            return share(inputs, 1 / inputs.num_tokens)

    check_algorithm(Mine())
    with pytest.raises(AssertionError, match="it has no name"):
        check_algorithm(
            replace(CustomAlgorithm(name="x", advantages=group_advantages, loss=rloo_loss), name="")
        )


def test_the_check_repeats_an_algorithm_with_a_state_from_the_same_state() -> None:
    class RunningBaseline:
        name = "running"

        def __init__(self) -> None:
            self.baseline = 0.0

        def advantages(self, rewards_G: Rewards) -> Rewards:
            advantages_G = rewards_G - self.baseline
            self.baseline += 0.1 * float(advantages_G.mean())
            return advantages_G

        def loss(self, inputs: LossInputs) -> LossOutput:
            return share(inputs, 1 / inputs.num_tokens)

        def state_dict(self) -> dict[str, Any]:
            return {"baseline": self.baseline}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.baseline = state["baseline"]

    check_algorithm(RunningBaseline())

    class Unsaved(RunningBaseline):
        def state_dict(self) -> dict[str, Any]:
            return {"baseline": self.baseline, "history": np.zeros(3)}

    with pytest.raises(AssertionError, match="no checkpoint can give back the state_dict"):
        check_algorithm(Unsaved())

    class Forgetful(RunningBaseline):
        def load_state_dict(self, state: dict[str, Any]) -> None:
            pass

    with pytest.raises(AssertionError, match="not the same twice"):
        check_algorithm(Forgetful())
