"""Micro-batches: every row exactly once, within the limit, and the same tokens in every layout."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from eapo_agents.learning.advantages import centred_advantages, group_advantages
from eapo_agents.learning.batches import (
    ModelInputs,
    Row,
    make_batches,
    mini_batch,
    packed,
    padded,
    rows_of_groups,
    shared,
    tree,
)
from eapo_agents.rollouts.trajectory import Demonstration, Group, Trajectory
from eapo_env.episode import begin
from eapo_env.types import Problem, Rules
from eapo_env.validation import UserError

PROBLEM = Problem(id="p", statement="1 + 1 = ?", answer="2")
EPISODE = begin(PROBLEM, Rules(), seed=0)


def trajectory(length: int, *, seed: int, reward: float = 0.0) -> Trajectory:
    rng = np.random.default_rng(seed)
    mask = rng.random(length) < 0.5
    mask[0] = False
    return Trajectory(
        token_ids=rng.integers(1, 100, length).astype(np.int32),
        mask=mask,
        logprobs=(-rng.random(length) * mask).astype(np.float32),
        reward=reward,
        status="correct",
        correct=True,
        episode=EPISODE,
    )


def rows_of(lengths: list[int]) -> list[Row]:
    return [
        Row(record=trajectory(n, seed=i), advantage=i / 3, num_group_tokens=100 + i)
        for i, n in enumerate(lengths)
    ]


lengths_and_limit = {
    "lengths": st.lists(st.integers(1, 40), min_size=1, max_size=20),
    "max_tokens": st.integers(1, 200),
}


@settings(deadline=None)
@given(**lengths_and_limit)
def test_each_row_is_in_one_batch_unchanged(lengths: list[int], max_tokens: int) -> None:
    rows, seen = rows_of(lengths), []
    for batch in make_batches(rows, max_tokens=max_tokens):
        for b, i in enumerate(batch.row_B.tolist()):
            record, n = rows[i].record, lengths[i]
            assert isinstance(record, Trajectory)
            seen.append(i)
            assert batch.length_B[b] == n
            assert batch.ids_BT[b, :n].tolist() == record.token_ids.tolist()
            assert batch.mask_BT[b, :n].tolist() == record.mask.tolist()
            assert batch.logp_sampler_BT[b, :n].tolist() == record.logprobs.tolist()
            assert batch.advantage_B[b].item() == i / 3
            assert batch.num_group_tokens_B[b].item() == 100 + i
            assert not batch.mask_BT[b, n:].any()
            assert not batch.logp_sampler_BT[b, n:].any()
    assert sorted(seen) == list(range(len(rows)))


@settings(deadline=None)
@given(**lengths_and_limit)
def test_batches_keep_the_limit_but_for_a_single_longer_row(
    lengths: list[int], max_tokens: int
) -> None:
    for batch in make_batches(rows_of(lengths), max_tokens=max_tokens):
        assert batch.ids_BT.numel() <= max_tokens or len(batch.ids_BT) == 1
        assert batch.ids_BT.shape[1] == batch.length_B.max()


def test_sorting_leaves_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(50, 250, 128).tolist()
    mini = mini_batch(rows_of(lengths), max_tokens=2048, num_groups=8)
    assert mini.padding_rate < 0.06
    whole = mini_batch(rows_of(lengths), max_tokens=10**6, num_groups=8)
    assert whole.padding_rate == pytest.approx(1 - sum(lengths) / (128 * max(lengths)))


@settings(deadline=None)
@given(**lengths_and_limit)
def test_the_same_rows_give_the_same_batches(lengths: list[int], max_tokens: int) -> None:
    first = make_batches(rows_of(lengths), max_tokens=max_tokens)
    second = make_batches(rows_of(lengths), max_tokens=max_tokens)
    assert [batch.row_B.tolist() for batch in first] == [batch.row_B.tolist() for batch in second]


def predicted(inputs: ModelInputs) -> list[tuple[list[int], int]]:
    """List (the tokens before, the token) of each policy token, as a layout asks for its logits."""
    found = []
    for r, k in zip(*np.divmod(inputs.chosen_N.numpy(), len(inputs.columns_K)), strict=True):
        column, ids_S = int(inputs.columns_K[k]), inputs.ids_RS[r]
        before: list[int] = []
        if inputs.prefix:
            before = inputs.prefix.ids_PW[inputs.prefix.of_row_R[r]].tolist()
        start = 0
        if inputs.positions_RS is not None:
            start = column - int(inputs.positions_RS[r, column])
        seen = slice(start, column + 1) if inputs.seen_SS is None else inputs.seen_SS[column]
        found.append((before + ids_S[seen].tolist(), int(inputs.targets_RK[r, k])))
    return found


@settings(deadline=None)
@given(**lengths_and_limit)
def test_every_layout_predicts_each_policy_token_from_what_precedes_it(
    lengths: list[int], max_tokens: int
) -> None:
    for batch in make_batches(rows_of(lengths), max_tokens=max_tokens):
        expected = [
            (row[:t], row[t])
            for row, mask in zip(batch.ids_BT.tolist(), batch.mask_BT.tolist(), strict=True)
            for t in range(len(row))
            if mask[t]
        ]
        assert predicted(padded(batch)) == expected
        assert predicted(packed(batch)) == expected
        assert predicted(shared(batch)) == expected
        assert predicted(tree(batch)) == expected


def test_no_logits_are_asked_for_where_only_prompts_stand() -> None:
    mask = [False] * 30 + [True] * 5
    rows = [Row(record=Demonstration(token_ids=range(35), mask=mask))] * 3  # type: ignore[arg-type]
    (batch,) = make_batches(rows, max_tokens=1000)
    assert padded(batch).columns_K.tolist() == [29, 30, 31, 32, 33]
    assert packed(batch).ids_RS.shape == (1, 105)
    assert packed(batch).columns_K.shape == (15,)


@pytest.mark.parametrize(("prompts", "num_read"), [("AABA", 2), ("ABCD", None)])
def test_equal_prompts_are_read_once_and_different_ones_as_they_stand(
    prompts: str, num_read: int | None
) -> None:
    mask = [False] * 8 + [True] * 3
    rows = [
        Row(record=Demonstration(token_ids=[ord(kind)] * 8 + [b, 1, 2], mask=mask))  # type: ignore[arg-type]
        for b, kind in enumerate(prompts)
    ]
    (batch,) = make_batches(rows, max_tokens=1000)
    inputs = shared(batch)
    assert predicted(inputs) == predicted(padded(batch))
    assert (len(inputs.prefix.ids_PW) if inputs.prefix else None) == num_read
    assert inputs.ids_RS.shape == ((4, 3) if num_read else (4, 10))


@settings(deadline=None)
@given(
    pairs=st.lists(
        st.lists(st.tuples(st.integers(1, 2), st.booleans()), min_size=1, max_size=8),
        min_size=1,
        max_size=12,
    ),
    max_tokens=st.integers(1, 60),
)
def test_a_tree_holds_each_beginning_once(
    pairs: list[list[tuple[int, bool]]], max_tokens: int
) -> None:
    """Sequences of two ids, so that many begin alike."""
    records = [
        Demonstration(token_ids=ids, mask=(False, *mask[1:]))  # type: ignore[arg-type]
        for ids, mask in (zip(*sequence, strict=True) for sequence in pairs)
    ]
    rows, seen = [Row(record=record) for record in records], []
    for batch in make_batches(rows, max_tokens=max_tokens, layout="tree"):
        inputs, taken = tree(batch), [records[i] for i in batch.row_B.tolist()]
        seen += batch.row_B.tolist()
        beginnings = {
            tuple(one.token_ids[: t + 1].tolist()) for one in taken for t in range(one.num_tokens)
        }
        assert inputs.seen_SS is not None
        assert inputs.positions_RS is not None
        paths = [inputs.ids_RS[0][seen_S].tolist() for seen_S in inputs.seen_SS]
        assert sorted(map(tuple, paths)) == sorted(beginnings)
        assert inputs.positions_RS[0].tolist() == [len(path) - 1 for path in paths]
        assert len(beginnings) <= max_tokens or len(taken) == 1
        assert predicted(inputs) == predicted(padded(batch))
    assert sorted(seen) == list(range(len(rows)))


def test_rows_of_groups_carry_their_groups_advantages_and_token_counts() -> None:
    members = [
        tuple(trajectory(n, seed=n, reward=float(r)) for n, r in pairs)
        for pairs in ([(5, 1), (9, 0), (7, 0)], [(4, 2), (6, 0)])
    ]
    groups = [Group(problem=PROBLEM, trajectories=each) for each in members]
    rows = rows_of_groups(groups, centred_advantages)
    assert [row.record for row in rows] == [*members[0], *members[1]]
    assert [row.advantage for row in rows] == pytest.approx([2 / 3, -1 / 3, -1 / 3, 1, -1])
    counts = [group.num_policy_tokens for group in groups]
    assert [row.num_group_tokens for row in rows] == [counts[0]] * 3 + [counts[1]] * 2
    standardised = [row.advantage for row in rows_of_groups(groups, group_advantages)]
    assert standardised[3:] == pytest.approx([2**-0.5, -(2**-0.5)], rel=1e-5)


def test_mini_batches_count_the_whole_step() -> None:
    rows = rows_of([10, 20, 30])
    mini = mini_batch(rows, max_tokens=20, num_groups=2)
    assert len(mini.batches) == 3
    assert mini.num_tokens == sum(row.record.num_policy_tokens for row in rows)
    assert (mini.num_sequences, mini.num_groups) == (3.0, 2.0)


def test_a_step_without_policy_tokens_is_refused() -> None:
    rows = [Row(record=Demonstration(token_ids=(1, 2), mask=(False, False)))] * 2  # type: ignore[arg-type]
    with pytest.raises(UserError, match="2 sequences with no policy token"):
        mini_batch(rows, max_tokens=100, num_groups=1)


def test_to_changes_the_type_of_floating_point_tensors_alone() -> None:
    (batch,) = make_batches(rows_of([5, 4]), max_tokens=100)
    moved = batch.to(torch.device("cpu"), torch.float32)
    assert [moved.logp_sampler_BT.dtype, moved.advantage_B.dtype] == [torch.float32] * 2
    assert [moved.ids_BT.dtype, moved.mask_BT.dtype] == [torch.int64, torch.bool]
