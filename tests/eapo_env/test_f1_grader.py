"""Answers in words: F1 by hand and as a property, and question answering through `gym.make`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import gymnasium as gym
import pytest
from hypothesis import given, strategies as st

from eapo_env.f1_grader import F1Grader, f1_score
from eapo_env.testing import check_grader
from eapo_env.types import Rules
from eapo_env.validation import UserError
from eapo_env.verifier import Status, Verdict

ANSWERS = st.text(st.sampled_from("aA b.Cthe yesno,'-\u00e9"), max_size=12)


@pytest.mark.parametrize(
    ("answer", "gold", "score"),
    [
        ("Paris", "Paris", 1),
        ("the Eiffel Tower.", "Eiffel tower", 1),
        ("tower Eiffel", "Eiffel tower", 1),  # a bag of words
        ("Eiffel", "the Eiffel tower", 2 / 3),  # precision 1, recall 1/2
        ("Gustave Eiffel and Paris", "Eiffel tower", 1 / 3),  # 1/4 and 1/2
        ("a a rose rose", "rose", 2 / 3),  # each word counts as often as in both: 1/2 and 1
        ("London", "Paris", 0),
        ("no", "no one", 0),
        ("no one", "no", 0),
        ("Yes!", "yes", 1),
        ("", "Paris", 0),
        ("the", "A", 0),  # nothing but articles: an option
        ("(a).", "A", 1),
        ("!", "A", 0),
        ("!", "!", 1),
        ("3.5 million", "3.5 million.", 1),
        ("35", "3.5", 0),
        ("12", "1/2", 0),
        ("5", "-5", 0),
        ("$1,000", "1000", 1),
        ("$-5$", "-5", 1),
        ("-$5", "-5", 1),
        ("-$5", "5", 0),
        ("- 5", "-5", 1),
        ("...5", "5", 1),
        ("$<$.", "<", 1),
        (r"\text{Eiffel\ tower}", "Eiffel tower", 1),  # as boxes hold words
        (r"\textbf{Eiffel}~\mathrm{tower}", "Eiffel tower", 1),
        (r"\text {yes}", "yes", 1),
        ("textbooks", "textbooks", 1),
    ],
)
def test_the_score_by_hand(answer: str, gold: str, score: float) -> None:
    assert f1_score(answer, gold) == pytest.approx(score)


@given(ANSWERS, ANSWERS)
def test_the_score_is_symmetric_and_a_share(one: str, other: str) -> None:
    assert 0 <= f1_score(one, other) == f1_score(other, one) <= 1
    assert f1_score(one, one) == 1
    if f1_score(f"{one} word", "word") < 1:  # it is more than articles and punctuation
        assert f1_score(one, f" The {one.upper()}. ") == 1
    assert f1_score(rf"\text{{{one}}}", other) == f1_score(one, other)


def test_it_keeps_the_promises_of_a_grader() -> None:
    asyncio.run(check_grader(F1Grader()))
    half, none = F1Grader().verify([(r"\boxed{Eiffel}", "Eiffel tower"), ("Hm.", "Paris")])
    assert (half.status, half.correct) == (Status.WRONG, False)
    assert half.score == pytest.approx(2 / 3)
    assert (none, none.score) == (Verdict(Status.NO_ANSWER), 0.0)


HOTPOT_QA = {
    "id": "5a8b57f25542995d1e6f1371",
    "question": "Were Scott Derrickson and Ed Wood of the same nationality?",
    "answer": "yes",
    "type": "comparison",
    "level": "hard",
    "supporting_facts": {"title": ["Scott Derrickson", "Ed Wood"], "sent_id": [0, 0]},
}
SIMPLE_QA = {
    "metadata": "{'topic': 'Music', 'answer_type': 'Other'}",
    "problem": "Which song was on the record?",
    "answer": '"Yellow" by Coldplay',  # more than the verifier of mathematics takes
}


def test_rows_of_question_answering_are_played_and_graded_in_words(tmp_path: Path) -> None:
    hotpot, simple = tmp_path / "hotpot.jsonl", tmp_path / "simple.jsonl"
    hotpot.write_text(json.dumps(HOTPOT_QA) + "\n")
    simple.write_text(json.dumps(SIMPLE_QA) + "\n")
    cases = (
        (hotpot, {"statement": "question"}, r"Both are American. \boxed{Yes}", 1.0),
        (hotpot, {"statement": "question"}, r"\boxed{no}", 0.1),
        (simple, None, r"\boxed{Yellow, Coldplay}", 0.8),  # precision 1, recall 2/3
        (simple, None, "I do not know.", 0.0),
    )
    for path, columns, response, reward in cases:
        env = gym.make(
            "EAPO-Math-v0",
            problems=str(path),
            columns=columns,
            verifier=F1Grader(),
            rules=Rules.alone(),
        )
        env.reset(seed=0)
        _, found, terminated, _, info = env.step(response)
        assert terminated
        assert found == pytest.approx(reward)
        assert info["correct"] == (reward == 1)
        env.close()
    with pytest.raises(UserError, match="too complex to check answers against"):
        gym.make("EAPO-Math-v0", problems=str(simple), rules=Rules.alone())
