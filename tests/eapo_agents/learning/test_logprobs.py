"""Log-probabilities of policy tokens: the plain values and gradients, in little memory."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from transformers.modeling_outputs import CausalLMOutput

from eapo_agents.learning.batches import Batch, padded
from eapo_agents.learning.logprobs import CHUNK_VALUES, token_logprobs


class Table(nn.Module):
    """A model whose logits are given."""

    def __init__(self, logits_BTV: Tensor) -> None:
        super().__init__()
        self.logits_BTV = nn.Parameter(logits_BTV)

    def forward(self, *, logits_to_keep: Tensor, **_: object) -> CausalLMOutput:
        return CausalLMOutput(logits=self.logits_BTV[:, logits_to_keep])


def batch_of(ids_BT: Tensor, mask_BT: Tensor) -> Batch:
    rows, columns = ids_BT.shape
    return Batch(
        row_B=torch.arange(rows),
        length_B=torch.full((rows,), columns),
        ids_BT=ids_BT,
        mask_BT=mask_BT,
        logp_sampler_BT=torch.zeros(rows, columns, dtype=torch.float64),
        advantage_B=torch.ones(rows, dtype=torch.float64),
        num_group_tokens_B=torch.ones(rows, dtype=torch.float64),
    )


def drawn(rows: int, columns: int, vocabulary: int, seed: int) -> tuple[Table, Batch]:
    rng = torch.Generator().manual_seed(seed)
    ids_BT = torch.randint(vocabulary, (rows, columns), generator=rng)
    mask_BT = torch.rand(rows, columns, generator=rng) < 0.6
    mask_BT[:, 0] = False
    shape = (rows, columns - 1, vocabulary)
    logits_BTV = 3 * torch.randn(shape, generator=rng, dtype=torch.float64)
    return Table(logits_BTV), batch_of(ids_BT, mask_BT)


def plain(model: Table, batch: Batch, temperature: float) -> tuple[Tensor, Tensor]:
    """The formula, written down at once for all positions."""
    logp_BTV = (model.logits_BTV / temperature).log_softmax(-1)
    chosen_BT = logp_BTV.gather(-1, batch.ids_BT[:, 1:, None])[..., 0]
    entropy_BT = -(logp_BTV.exp() * logp_BTV).sum(-1)
    mask_BT = batch.mask_BT[:, 1:]
    return chosen_BT.where(mask_BT, 0.0), entropy_BT[mask_BT].sum()


def assert_as_plain(model: Table, batch: Batch, temperature: float) -> None:
    found = []
    for of in (
        token_logprobs(model, batch, padded, temperature),
        plain(model, batch, temperature),
    ):
        logp_BT, entropy = of[0][:, -(batch.ids_BT.shape[1] - 1) :], of[1]
        weight_BT = torch.linspace(-1, 2, logp_BT.numel(), dtype=torch.float64)
        model.logits_BTV.grad = None
        (logp_BT * weight_BT.reshape(logp_BT.shape)).sum().backward()
        found.append([logp_BT.detach(), entropy.detach(), model.logits_BTV.grad])
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(
    rows=st.integers(1, 3),
    columns=st.integers(2, 6),
    vocabulary=st.integers(1, 9),
    seed=st.integers(0, 99),
    temperature=st.sampled_from([1.0, 0.6, 1.7]),
)
def test_values_entropy_and_gradients_are_those_of_the_formula(
    rows: int, columns: int, vocabulary: int, seed: int, temperature: float
) -> None:
    assert_as_plain(*drawn(rows, columns, vocabulary, seed), temperature)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_so_they_are_over_several_chunks(temperature: float) -> None:
    model, batch = drawn(2, 26, 2**17, seed=0)
    assert 2 * 2**17 * 12 < CHUNK_VALUES < model.logits_BTV.numel()
    assert_as_plain(model, batch, temperature)


def test_a_chosen_token_by_hand() -> None:
    # p = (1/4, 3/4); d logp(1) / d logits = (0, 1) - p; entropy = ln 4 - 3/4 ln 3
    model = Table(torch.tensor([[[0.0, 3.0]]]).log1p())
    model.logits_BTV.data = torch.tensor([[[1.0, 3.0]]]).log()
    batch = batch_of(torch.tensor([[0, 1]]), torch.tensor([[False, True]]))
    logp_BT, entropy = token_logprobs(model, batch, padded, 1.0)
    logp_BT.sum().backward()
    assert logp_BT[0].tolist() == pytest.approx([0.0, -0.2876821])
    assert float(entropy) == pytest.approx(0.5623351)
    assert model.logits_BTV.grad is not None
    assert model.logits_BTV.grad[0, 0].tolist() == pytest.approx([-0.25, 0.25])


def test_bfloat16_logits_are_read_in_float32_and_their_gradient_has_their_type() -> None:
    model, batch = drawn(1, 4, 8, seed=1)
    exact = plain(model, batch, 1.0)[0]
    model.logits_BTV = nn.Parameter(model.logits_BTV.detach().bfloat16())
    logp_BT, _ = token_logprobs(model, batch, padded, 1.0)
    logp_BT.sum().backward()
    assert logp_BT.dtype == torch.float32
    torch.testing.assert_close(logp_BT[:, 1:].double(), exact, rtol=0.0, atol=0.05)
    assert model.logits_BTV.grad is not None
    assert model.logits_BTV.grad.dtype == torch.bfloat16


def test_nothing_of_the_logits_size_is_made_but_their_gradient() -> None:
    logits_RKV = torch.zeros(1, 5 * CHUNK_VALUES // 4096, 4096, dtype=torch.bfloat16)
    columns = logits_RKV.shape[1]
    batch = batch_of(
        torch.zeros(1, columns + 1, dtype=torch.int64),
        (torch.arange(columns + 1) > 0)[None],
    )

    class Whole(Table):
        def forward(self, **_: object) -> CausalLMOutput:
            return CausalLMOutput(logits=self.logits_BTV)

    model = Whole(logits_RKV)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        token_logprobs(model, batch, padded, 1.0)[0].sum().backward()
    sizes = [
        event.nbytes()
        for event in profiled.profiler.kineto_results.events()
        if event.name() == "[memory]" and event.nbytes() > 0
    ]
    whole = logits_RKV.numel() * 2
    assert sum(size >= whole for size in sizes) == 1
    assert max(size for size in sizes if size < whole) <= CHUNK_VALUES * 4
