"""Micro-batches of groups under a token limit, and the layouts in which a model can read them.

Sequences are sorted by length, so that those of a batch have about the same length and little is
padded; for the layout "tree" by their ids, so that those of a batch begin alike. Padding is on the
right, where causal attention never looks: it needs no attention mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

import torch
from torch import Tensor

from eapo_agents.learning.advantages import Advantages
from eapo_agents.learning.losses import LossInputs
from eapo_agents.learning.settings import Layout
from eapo_agents.rollouts import Demonstration, Group, Logprobs, Trajectory
from eapo_env.validation import UserError

PAD_ID = 0
"""Any valid token id: padding is neither attended to nor in the loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One sequence of a batch: a record, its advantage, and the policy tokens of its group."""

    record: Trajectory | Demonstration
    advantage: float = 1.0
    num_group_tokens: int = 0

    @property
    def logprobs(self) -> Logprobs | None:
        """The sampler's log-probabilities; None of a demonstration."""
        return self.record.logprobs if isinstance(self.record, Trajectory) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Sequences of similar length, padded on the right.

    Args:
        row_B: where each sequence stood in the rows given to `make_batches`.
        length_B: tokens of each sequence without padding.
        ids_BT: token ids (int64).
        mask_BT: True on the policy's own tokens.
        logp_sampler_BT: the sampler's log-probabilities; 0 off the mask.
        advantage_B: one advantage a sequence.
        num_group_tokens_B: policy tokens in the whole group of each sequence.
    """

    row_B: Tensor
    length_B: Tensor
    ids_BT: Tensor
    mask_BT: Tensor
    logp_sampler_BT: Tensor
    advantage_B: Tensor
    num_group_tokens_B: Tensor

    def to(self, device: torch.device, dtype: torch.dtype) -> Batch:
        """Return the batch on `device`, its floating-point tensors as `dtype`."""
        moved = {}
        for item in fields(self):
            tensor: Tensor = getattr(self, item.name)
            moved[item.name] = tensor.to(device, dtype if tensor.is_floating_point() else None)
        return replace(self, **moved)


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniBatch:
    """The micro-batches of one optimiser step, and the counts that its loss is normalised by."""

    batches: Sequence[Batch]
    num_tokens: float
    num_sequences: float
    num_groups: float

    @property
    def padding_rate(self) -> float:
        """The share of the tokens that is padding."""
        real = sum(int(batch.length_B.sum()) for batch in self.batches)
        return 1.0 - real / sum(batch.ids_BT.numel() for batch in self.batches)

    def loss_inputs(self, batch: Batch, logp_BT: Tensor, logp_old_BT: Tensor) -> LossInputs:
        """Return the inputs of the loss for one of the micro-batches."""
        return LossInputs(
            logp_BT=logp_BT,
            logp_old_BT=logp_old_BT,
            logp_sampler_BT=batch.logp_sampler_BT,
            advantage_B=batch.advantage_B,
            mask_BT=batch.mask_BT,
            num_group_tokens_B=batch.num_group_tokens_B,
            num_tokens=self.num_tokens,
            num_sequences=self.num_sequences,
            num_groups=self.num_groups,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """What comes before the rows: P different prefixes of W tokens, and the one of each row."""

    ids_PW: Tensor
    of_row_R: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInputs:
    """A batch as a model reads it: R rows of S tokens.

    Args:
        ids_RS: token ids, after those of the prefix.
        positions_RS: the position of each token in its sequence; None means that they continue
            where the prefix ends.
        columns_K: the columns whose next token is the policy's in some row: only there are logits
            computed, which matters with large vocabularies.
        targets_RK: the next token of each of these columns.
        chosen_N: where in `targets_RK`, flattened, each token of `mask_BT` stands, in row-major
            order.
        prefix: what the model reads before the rows, once for all rows that begin with it; None
            where the rows are whole.
        seen_SS: which tokens each token sees; None means all before it in its sequence.
    """

    ids_RS: Tensor
    positions_RS: Tensor | None
    columns_K: Tensor
    targets_RK: Tensor
    chosen_N: Tensor
    prefix: Prefix | None = None
    seen_SS: Tensor | None = None


def rows_of_groups(groups: Sequence[Group], advantages: Advantages) -> list[Row]:
    """Return the groups' trajectories in order, each with its advantage."""
    return [
        Row(record=trajectory, advantage=float(advantage), num_group_tokens=group.num_policy_tokens)
        for group in groups
        for trajectory, advantage in zip(
            group.trajectories, advantages(group.rewards_G), strict=True
        )
    ]


def mini_batch(
    rows: Sequence[Row], *, max_tokens: int, num_groups: int, layout: Layout = "padded"
) -> MiniBatch:
    """Return the rows as one optimiser step, in micro-batches of at most `max_tokens` tokens.

    Raises:
        UserError: rows without a single policy token.
    """
    num_tokens = sum(row.record.num_policy_tokens for row in rows)
    if not num_tokens:
        raise UserError(f"{len(rows)} sequences with no policy token to learn from")
    return MiniBatch(
        batches=make_batches(rows, max_tokens=max_tokens, layout=layout),
        num_tokens=float(num_tokens),
        num_sequences=float(len(rows)),
        num_groups=float(num_groups),
    )


def make_batches(rows: Sequence[Row], *, max_tokens: int, layout: Layout = "padded") -> list[Batch]:
    """Return micro-batches that hold each row exactly once, for a layout.

    A batch has at most `max_tokens` tokens, padding included; in a "tree" nothing is padded, and
    what sequences have in common counts once. A longer sequence gets a batch for itself. The
    longest sequences come first, or, for a "tree", they are sorted by their ids. The same rows
    always give the same batches.
    """
    if layout == "tree":
        return [_batch(rows, chunk) for chunk in _similar(rows, max_tokens)]
    order = sorted(range(len(rows)), key=lambda i: -rows[i].record.num_tokens)
    chunks: list[list[int]] = []
    for i in order:
        width = rows[chunks[-1][0]].record.num_tokens if chunks else 0
        if chunks and width * (len(chunks[-1]) + 1) <= max_tokens:
            chunks[-1].append(i)
        else:
            chunks.append([i])
    return [_batch(rows, chunk) for chunk in chunks]


def _similar(rows: Sequence[Row], max_tokens: int) -> list[list[int]]:
    """Return runs of the rows sorted by their ids, so that rows that begin alike are neighbours."""
    ids = [row.record.token_ids.tolist() for row in rows]
    chunks: list[list[int]] = []
    used = 0
    for i in sorted(range(len(rows)), key=ids.__getitem__):
        added = len(ids[i]) - (_num_common(ids[chunks[-1][-1]], ids[i]) if chunks else 0)
        if chunks and used + added <= max_tokens:
            chunks[-1].append(i)
            used += added
        else:
            chunks.append([i])
            used = len(ids[i])
    return chunks


def _num_common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many ids two sequences have in common from their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((t for t, (a, b) in pairs if a != b), min(len(one), len(other)))


def padded(batch: Batch) -> ModelInputs:
    """Return the batch unchanged: one row per sequence, padding on the right."""
    columns_K = batch.mask_BT.any(0).nonzero()[:, 0]
    return ModelInputs(
        ids_RS=batch.ids_BT[:, :-1],
        positions_RS=None,
        columns_K=columns_K - 1,
        targets_RK=batch.ids_BT[:, columns_K],
        chosen_N=batch.mask_BT[:, columns_K].flatten().nonzero()[:, 0],
    )


def shared(batch: Batch) -> ModelInputs:
    """Return `padded`, with the prefix before any policy token read once for rows that share it.

    A group's prompt is most of that; where no two rows of the batch agree, this is `padded`.
    """
    inputs = padded(batch)
    width = int(inputs.columns_K[0]) if len(inputs.columns_K) else 0
    if not width:
        return inputs
    beginnings = inputs.ids_RS[:, :width]
    ids_PW, of_row_R = torch.unique(beginnings, dim=0, return_inverse=True)
    if len(ids_PW) == len(of_row_R):
        return inputs
    return replace(
        inputs,
        ids_RS=inputs.ids_RS[:, width:],
        columns_K=inputs.columns_K - width,
        prefix=Prefix(ids_PW=ids_PW, of_row_R=of_row_R),
    )


def tree(batch: Batch) -> ModelInputs:
    """Return the sequences as one tree in one row: what they have in common is read once.

    The tokens of a path from the root are a sequence, and each token sees the path to it. In a
    group this is the prompt, and what members sampled alike. Attention takes the square of the
    row's length, so batches of about one group are fastest.
    """
    ids_BT, length_B1 = batch.ids_BT, batch.length_B[:, None]
    positions_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
    real_BT = positions_T < length_B1
    # A token is new unless the sequence before has had the same ones so far.
    old_BT = torch.zeros_like(real_BT)
    old_BT[1:] = (ids_BT[1:] == ids_BT[:-1]) & real_BT[1:] & real_BT[:-1]
    new_BT = real_BT & ~old_BT.cumprod(1).bool()
    number_BT = (new_BT.flatten().cumsum(0) - 1).view_as(new_BT)
    node_BT = number_BT.masked_fill(~new_BT, -1).cummax(0).values  # of an old one, the last above
    row_N, depth_N = new_BT.nonzero(as_tuple=True)
    ids_N = ids_BT[new_BT]
    path_NT, on_path_NT = node_BT[row_N], positions_T <= depth_N[:, None]
    seen_NN = torch.zeros(len(ids_N), len(ids_N), dtype=torch.bool, device=ids_BT.device)
    seen_NN[on_path_NT.nonzero()[:, 0], path_NT[on_path_NT]] = True
    parent_N = node_BT[row_N, (depth_N - 1).clamp(min=0)]
    target_K, chosen_N = torch.unique(node_BT[batch.mask_BT], return_inverse=True)
    return ModelInputs(
        ids_RS=ids_N[None],
        positions_RS=depth_N[None],
        columns_K=parent_N[target_K],
        targets_RK=ids_N[None, target_K],
        chosen_N=chosen_N,
        seen_SS=seen_NN,
    )


def packed(batch: Batch) -> ModelInputs:
    """Return the sequences end to end in one row, without padding.

    The positions start again at 0 with each sequence, which is how transformers' attention (flash
    attention above all) tells them apart.
    """
    positions_BT = torch.arange(batch.ids_BT.shape[1], device=batch.ids_BT.device)
    real_BT = positions_BT < batch.length_B[:, None]
    columns_K = batch.mask_BT[real_BT].nonzero()[:, 0]
    ids_N = batch.ids_BT[real_BT]
    return ModelInputs(
        ids_RS=ids_N[None],
        positions_RS=positions_BT.expand_as(real_BT)[real_BT][None],
        columns_K=columns_K - 1,
        targets_RK=ids_N[None, columns_K],
        chosen_N=torch.arange(len(columns_K), device=columns_K.device),
    )


LAYOUTS: Final[Mapping[Layout, Callable[[Batch], ModelInputs]]] = {
    "padded": padded,
    "shared": shared,
    "packed": packed,
    "tree": tree,
}


def _batch(rows: Sequence[Row], chunk: Sequence[int]) -> Batch:
    length_B = torch.tensor([rows[i].record.num_tokens for i in chunk])
    shape = (len(chunk), int(length_B.max()))
    ids_BT = torch.full(shape, PAD_ID, dtype=torch.int64)
    mask_BT = torch.zeros(shape, dtype=torch.bool)
    logp_sampler_BT = torch.zeros(shape, dtype=torch.float64)
    for b, i in enumerate(chunk):
        record, logprobs = rows[i].record, rows[i].logprobs
        ids_BT[b, : record.num_tokens] = torch.tensor(record.token_ids)
        mask_BT[b, : record.num_tokens] = torch.tensor(record.mask)
        if logprobs is not None:
            logp_sampler_BT[b, : record.num_tokens] = torch.tensor(logprobs)
    return Batch(
        row_B=torch.tensor(list(chunk)),
        length_B=length_B,
        ids_BT=ids_BT,
        mask_BT=mask_BT,
        logp_sampler_BT=logp_sampler_BT,
        advantage_B=torch.tensor([rows[i].advantage for i in chunk], dtype=torch.float64),
        num_group_tokens_B=torch.tensor(
            [rows[i].num_group_tokens for i in chunk], dtype=torch.float64
        ),
    )
