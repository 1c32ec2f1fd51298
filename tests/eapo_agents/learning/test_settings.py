"""Every way to compute an update gives the same update; every optimiser learns."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from eapo_agents.learning.learner import Learner
from eapo_agents.learning.settings import LearnerSettings
from eapo_agents.policies.linear import FastLinear, onednn_is_faster
from eapo_agents.policies.models import ModelSettings, load_model
from eapo_agents.rollouts.trajectory import Group, Trajectory
from eapo_env.episode import begin
from eapo_env.types import Problem, Rules
from eapo_env.validation import UserError

VOCABULARY = 11
PROBLEM = Problem(id="p", statement="1 + 1 = ?", answer="2")
EXACT = LearnerSettings(
    precision="float64", device="cpu", learning_rate=1e-2, warmup_steps=1, max_grad_norm=math.inf
)


def gpt2(attention: str = "sdpa") -> PreTrainedModel:
    """Its norm computes in the type of its weights, Qwen2's always in float32."""
    torch.manual_seed(0)
    sizes = {"n_positions": 64, "n_embd": 8, "n_layer": 2, "n_head": 2}
    sizes |= {"bos_token_id": 0, "eos_token_id": 0}
    no_dropout = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    config = GPT2Config(vocab_size=VOCABULARY, attn_implementation=attention, **sizes, **no_dropout)
    return GPT2LMHeadModel(config)


def qwen2(attention: str = "sdpa", layers: int = 2) -> PreTrainedModel:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        initializer_range=0.3,
        attn_implementation=attention,
    )
    return Qwen2ForCausalLM(config)


def drawn_groups(seed: int, num: int = 3, size: int = 3) -> list[Group]:
    """Groups behind a prompt each; two policy turns with the environment's words between."""
    rng = np.random.default_rng(seed)
    groups = []
    for _ in range(num):
        prompt = rng.integers(0, VOCABULARY, rng.integers(1, 6))
        members = tuple(drawn(rng, prompt, reward=float(n % 2)) for n in range(size))
        groups.append(Group(problem=PROBLEM, trajectories=members))
    return groups


def drawn(rng: np.random.Generator, prompt: np.ndarray, *, reward: float) -> Trajectory:
    mask = np.repeat([False, True, False, True], [len(prompt), *rng.integers(1, 6, size=3)])
    rest = rng.integers(0, VOCABULARY, mask.size - len(prompt))
    return Trajectory(
        token_ids=np.concatenate([prompt, rest]),
        mask=mask,
        logprobs=np.where(mask, -rng.exponential(2.5, mask.size), 0.0),
        reward=reward,
        status="correct" if reward else "wrong",
        correct=bool(reward),
        episode=begin(PROBLEM, Rules(), seed=0),
    )


def gradient_of(
    model: PreTrainedModel, change: LearnerSettings, groups: list[Group]
) -> torch.Tensor:
    """Return the gradient of an update as one vector: an optimiser's step could hide its scale."""
    Learner(model, settings=change).update(groups)
    gradients = [weight.grad for weight in model.parameters()]
    return torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])


@settings(deadline=None, max_examples=12)
@given(
    seed=st.integers(0, 1000),
    max_batch_tokens=st.integers(1, 200),
    how=st.sampled_from([*product(["padded", "packed", "tree"], [False, True]), ("shared", False)]),
    order=st.permutations(range(3)),
    members=st.permutations(range(3)),
)
def test_the_update_is_the_same_however_it_is_computed(
    seed: int, max_batch_tokens: int, how: tuple[str, bool], order: list[int], members: list[int]
) -> None:
    """Micro-batch size, layout, checkpointing and order, against each sequence by itself."""
    groups = drawn_groups(seed)
    other = [
        replace(groups[i], trajectories=tuple(groups[i].trajectories[j] for j in members))
        for i in order
    ]
    layout, checkpointing = how
    change = {"layout": layout, "gradient_checkpointing": checkpointing}
    found = gradient_of(
        gpt2().eval(),
        replace(EXACT, max_batch_tokens=max_batch_tokens, **change),  # type: ignore[arg-type]
        other,
    )
    expected = gradient_of(gpt2(), replace(EXACT, max_batch_tokens=1), groups)
    assert expected.norm() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("model", [gpt2, qwen2])
def test_packed_sequences_do_not_see_each_other(model: type, attention: str) -> None:
    """One row without padding: its attention is told apart by the positions alone."""
    groups = drawn_groups(7)
    packed = replace(EXACT, layout="packed", max_batch_tokens=10_000)
    found = gradient_of(model(attention), packed, groups)
    expected = gradient_of(model(attention), replace(EXACT, max_batch_tokens=1), groups)
    rounding = 1e-6 if (model, attention) == (qwen2, "eager") else 1e-10  # a float32 softmax
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=rounding)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_compiled_code_gives_the_same_update(layout: str) -> None:
    groups = drawn_groups(3, num=2)
    change = replace(EXACT, layout=layout, max_batch_tokens=40)  # type: ignore[arg-type]
    found = gradient_of(qwen2(layers=1), replace(change, compile="aot_eager"), groups)
    torch.testing.assert_close(
        found, gradient_of(qwen2(layers=1), change, groups), rtol=1e-9, atol=1e-10
    )


def test_compiled_code_stands_beside_the_model() -> None:
    """The in-process policy goes on calling the module itself, and files keep their names."""
    model = qwen2()
    learner = Learner(model, settings=replace(EXACT, compile="aot_eager"))
    assert learner.model is model
    assert set(learner.state_dict()["model"]) == set(qwen2().state_dict())


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "sgd"])
def test_every_optimiser_learns_and_goes_on_from_its_state(optimizer: str) -> None:
    groups = drawn_groups(1)
    rate = 0.3 if optimizer == "sgd" else 1e-2
    change = replace(EXACT, optimizer=optimizer, learning_rate=rate)  # type: ignore[arg-type]
    learner, other = (Learner(qwen2(), settings=change) for _ in range(2))
    records = [member for group in groups for member in group.trajectories if member.correct]
    before = sum(logp.sum() for logp in learner.logprobs(records))
    for _ in range(3):
        learner.update(groups)
    assert sum(logp.sum() for logp in learner.logprobs(records)) > before
    other.load_state_dict(learner.state_dict())
    assert other.update(groups) == learner.update(groups)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_fused_optimiser_takes_the_same_step(optimizer: str) -> None:
    weights = []
    for fused in (False, True):
        change = replace(EXACT, optimizer=optimizer, fused=fused)  # type: ignore[arg-type]
        learner = Learner(qwen2(), settings=change)
        learner.update(drawn_groups(2))
        weights.append(torch.cat([weight.flatten() for weight in learner.model.parameters()]))
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-12, atol=1e-12)
    assert not torch.equal(
        weights[0], torch.cat([w.double().flatten() for w in qwen2().parameters()])
    )


@pytest.mark.parametrize("layout", ["padded", "shared", "packed", "tree"])
def test_bfloat16_is_near_float32_in_every_layout(layout: str) -> None:
    groups = drawn_groups(4)
    change = replace(EXACT, precision="float32", layout=layout)  # type: ignore[arg-type]
    exact = gradient_of(qwen2(), change, groups)
    found = gradient_of(qwen2(), replace(change, precision="bfloat16"), groups)
    assert found.dtype == torch.float32
    assert 0 < (found - exact).norm() < 0.1 * exact.norm()


def test_loaded_models_have_fast_layers_and_given_ones_are_left_alone(tiny_model: Path) -> None:
    """oneDNN's where it is faster: for a small model on AMD's processors from Zen 5 on."""
    loaded, _ = load_model(ModelSettings(path=str(tiny_model)))
    processor = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    is_faster = "avx512f" in processor and onednn_is_faster(loaded.num_parameters(), processor)
    assert isinstance(loaded.lm_head, FastLinear) == is_faster
    model = qwen2()
    Learner(model, settings=EXACT)
    assert type(model.lm_head) is torch.nn.Linear


@pytest.mark.parametrize(
    ("vendor", "family", "small", "large"),
    [
        ("AuthenticAMD", "25", False, True),  # Zen 4
        ("AuthenticAMD", "26", True, True),  # Zen 5
        ("GenuineIntel", "6", False, False),
        ("GenuineIntel", "207", False, False),
    ],
)
def test_the_layers_follow_processor_and_size(
    vendor: str, family: str, small: bool, large: bool
) -> None:
    core = f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: 17\n"
    found = [onednn_is_faster(weights, core + "\n" + core) for weights in (10**6, 10**8)]
    assert found == [small, large]
    for other in ("", "processor\t: 0\nCPU architecture: 8\n"):  # ARM's has no family
        assert not onednn_is_faster(10**8, other)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cpu:1", "meta", ""])
def test_a_device_that_this_machine_lacks_is_refused_with_those_it_has(device: str) -> None:
    settings = replace(EXACT, device=device)
    message = rf"learner\.device must be 'auto' or 'cpu'.* on this machine, not '{device}'"
    with pytest.raises(UserError, match=message):
        settings.check_device()
    with pytest.raises(UserError, match=message):
        Learner(qwen2(), settings=settings)


def test_the_devices_of_this_machine_can_be_chosen() -> None:
    for device in ("auto", "cpu"):
        replace(EXACT, device=device).check_device()
    for device in ("cuda", "cuda:0", "mps"):
        found = torch.accelerator.current_accelerator(True)
        settings = replace(EXACT, device=device)
        if found and device.startswith(found.type):
            settings.check_device()
        else:
            with pytest.raises(UserError, match=f"not '{device}'"):
                settings.check_device()


def test_recomputed_activations_keep_no_cache_of_weights_in_bfloat16() -> None:
    base = replace(EXACT, precision="bfloat16")
    for checkpointing in (False, True):
        with replace(base, gradient_checkpointing=checkpointing).autocast():
            assert torch.is_autocast_enabled("cpu")
            assert torch.is_autocast_cache_enabled() is not checkpointing
    with EXACT.autocast():
        assert not torch.is_autocast_enabled("cpu")
