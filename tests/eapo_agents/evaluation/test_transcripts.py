"""Two episodes that are worth a look: one of each kind, or two that differ."""

from __future__ import annotations

from typing import Any

from hypothesis import given, strategies as st

from eapo_agents.evaluation import two_examples

rows = st.fixed_dictionaries(
    {
        "problem_id": st.sampled_from(["p", "q"]),
        "status": st.sampled_from(["correct", "wrong"]),
        "messages": st.sampled_from(["a", "b", "c"]),
    }
)


@given(st.lists(rows, max_size=8))
def test_both_kinds_are_shown_or_two_that_differ(played: list[dict[str, Any]]) -> None:
    shown = two_examples(played)
    kinds = {row["status"] for row in played}
    assert {row["status"] for row in shown} == kinds
    if len(kinds) == 1:
        assert shown[0] == played[0]
        assert len(shown) == min(2, len({tuple(sorted(row.items())) for row in played}))
        problems = [{row["problem_id"] for row in some} for some in (shown, played)]
        assert len(problems[0]) == len(problems[1])


@given(st.lists(st.lists(rows, max_size=4), max_size=4))
def test_those_of_a_stream_are_those_of_the_whole(parts: list[list[dict[str, Any]]]) -> None:
    kept: list[Any] = []
    for part in parts:
        kept = two_examples([*kept, *part])
    whole = two_examples([row for part in parts for row in part])
    assert {row["status"] for row in kept} == {row["status"] for row in whole}
    assert len(kept) == len(whole)
