"""Fast linear layers: torch's own results and gradients, and torch's own layer where they stop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from eapo_agents.policies.linear import FastLinear, with_fast_linears
from eapo_agents.policies.models import recompute_activations


def pair(inputs: int, outputs: int, bias: bool) -> tuple[nn.Linear, FastLinear]:
    """Return one layer twice; the second is fast."""
    torch.manual_seed(0)
    plain, fast = nn.Linear(inputs, outputs, bias), FastLinear(inputs, outputs, bias)
    fast.load_state_dict(plain.state_dict())
    return plain, fast


def small_model() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=11,
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            tie_word_embeddings=True,
        )
    )


@settings(deadline=None, max_examples=25)
@given(
    rows=st.lists(st.integers(1, 5), min_size=0, max_size=3),
    inputs=st.integers(1, 9),
    outputs=st.integers(1, 9),
    bias=st.booleans(),
    transposed=st.booleans(),
)
def test_results_and_gradients_are_those_of_torch(
    rows: list[int], inputs: int, outputs: int, bias: bool, transposed: bool
) -> None:
    plain, fast = pair(inputs, outputs, bias)
    found = []
    for layer in (plain, fast):
        x = torch.linspace(-1, 1, inputs * max(1, torch.Size(rows).numel()))
        x = x.reshape(inputs, *rows).movedim(0, -1) if transposed else x.reshape(*rows, inputs)
        x = x.detach().requires_grad_()
        result = layer(x)
        (result * torch.linspace(0.5, 2, result.numel()).reshape(result.shape)).sum().backward()
        found.append([result, x.grad, *(weight.grad for weight in layer.parameters())])
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-5)


def test_it_is_not_torchs_product_that_answers() -> None:
    _, fast = pair(300, 200, bias=True)
    result = fast(torch.ones(7, 300, requires_grad=True))
    assert "_Product" in type(result.grad_fn).__name__
    with torch.no_grad():
        torch.testing.assert_close(fast(torch.ones(7, 300)), result.detach())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_torchs(dtype: torch.dtype) -> None:
    plain, fast = pair(5, 4, bias=True)
    x = torch.ones(3, 5, dtype=dtype)
    assert torch.equal(plain.to(dtype)(x), fast.to(dtype)(x))


def test_autocast_and_compiled_code_are_torchs() -> None:
    plain, fast = pair(5, 4, bias=True)
    x = torch.linspace(-1, 1, 15).reshape(3, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert fast(x).dtype == torch.bfloat16
        assert torch.equal(fast(x), plain(x))
    compiled = torch.compile(fast, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), plain(x))


def test_no_rows_give_no_rows() -> None:
    _, fast = pair(5, 4, bias=True)
    assert fast(torch.zeros(0, 5)).shape == (0, 4)


def test_a_model_keeps_its_parameters_and_its_file(tmp_path: Path) -> None:
    model = small_model()
    ids = torch.arange(10)[None]
    with torch.no_grad():
        expected = model(ids).logits
        state = {name: weight.data_ptr() for name, weight in model.state_dict().items()}
        assert with_fast_linears(with_fast_linears(model)) is model
        assert sum(isinstance(module, FastLinear) for module in model.modules()) == 8
        torch.testing.assert_close(model(ids).logits, expected, rtol=1e-5, atol=1e-6)
        assert {name: w.data_ptr() for name, w in model.state_dict().items()} == state
        model.save_pretrained(tmp_path)
        again = Qwen2ForCausalLM.from_pretrained(tmp_path)
        assert torch.equal(again(ids).logits, expected)
    recompute_activations(model)
    model.train()
    model(ids).logits.sum().backward()
    assert model.lm_head.weight.grad is not None


def test_a_subclass_with_a_forward_of_its_own_is_left_alone() -> None:
    class Doubled(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(input)

    model = small_model()
    model.lm_head = Doubled(8, 11, bias=False)
    with_fast_linears(model)
    assert type(model.lm_head) is Doubled
