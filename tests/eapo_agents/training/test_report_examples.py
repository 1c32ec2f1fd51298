"""Example transcripts: the rule that chooses them, and foreign text that stays text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from markdown_it import MarkdownIt
from pydantic import TypeAdapter

from eapo_agents.rollouts.paradigms import Paradigm
from eapo_agents.training.report.examples import Example, examples
from eapo_agents.training.report.transcripts import Transcript
from eapo_agents.training.run_folder import Run

Recorder = Callable[..., Run]

SELF, DIRECT, PARTS = Paradigm

ROW = {
    "problem_id": "p1",
    "answer": "7",
    "status": "correct",
    "reward": 1.0,
    "turn_budget": 2,
    "acceptance_rate": 0.5,
    "messages": [
        {"role": "user", "content": "3 + 4 = ?"},
        {"role": "assistant", "content": "\\boxed{7}"},
    ],
    "consultations": [],
}


def row(paradigm: str, status: str = "correct", **changes: Any) -> dict[str, Any]:
    return {**ROW, "paradigm": paradigm, "status": status, **changes}


def chosen(*runs: Run) -> dict[Paradigm, tuple[str, int, str]]:
    found = examples(runs).items()
    return {p: (e.run.name, e.step, e.transcript.problem_id) for p, e in found}


def test_the_newest_right_answer_is_shown_else_the_newest_wrong_one(recorded: Recorder) -> None:
    run = recorded("eapo", [])
    run.record_transcripts(1, [row(DIRECT), row(PARTS, "wrong")])
    run.record_transcripts(20, [row(SELF, "wrong"), row(SELF), row(SELF, problem_id="later")])
    run.record_transcripts(100, [row(DIRECT, "wrong"), row(PARTS, "wrong", problem_id="new")])
    name = run.name
    assert chosen(run) == {
        SELF: (name, 20, "p1"),
        DIRECT: (name, 1, "p1"),
        PARTS: (name, 100, "new"),
    }
    assert list(examples([run])) == list(Paradigm)


def test_of_several_runs_the_first_with_a_right_answer_counts(recorded: Recorder) -> None:
    first, second, third = (recorded(name, []) for name in "abc")
    first.record_transcripts(5, [row(SELF), row(DIRECT, "wrong")])
    second.record_transcripts(1, [row(SELF), row(DIRECT)])
    third.record_transcripts(9, [row(DIRECT), row(PARTS, "wrong")])
    assert chosen(first, second, third) == {
        SELF: ("a-1", 5, "p1"),
        DIRECT: ("b-1", 1, "p1"),
        PARTS: ("c-1", 9, "p1"),
    }


def test_runs_without_labels_or_without_transcripts_have_no_examples(recorded: Recorder) -> None:
    old = recorded("old", [])
    old.record_transcripts(1, [ROW])
    assert examples([old, recorded("distilled", [])]) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "step-000001.jsonl, line 1 is not JSON"),
        ("[1]", "step-000001.jsonl, line 1 is no episode"),
        ('{"paradigm": "decomposition"}', "step-000001.jsonl holds no transcript: problem_id"),
    ],
)
def test_damaged_transcripts_are_an_error(text: str, message: str, recorded: Recorder) -> None:
    run = recorded("eapo", [])
    run.record_transcripts(1, [])
    run.transcripts[1].write_text(text + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        examples([run])


@given(st.text(st.sampled_from("`~\n\r\x1b\u202e</>[]()#! ax")), st.text())
def test_whatever_a_model_writes_is_shown_as_text(text: str, more: str) -> None:
    messages = [{"role": "user", "content": text}, {"role": more, "content": more + text}]
    tree = {**ROW, "problem_id": text, "answer": more, "messages": messages}
    example = Example(
        paradigm=SELF,
        run=Run(Path("run")),
        step=1,
        transcript=TypeAdapter(Transcript).validate_python(tree),
    )
    tokens = MarkdownIt("commonmark").parse(example.markdown())
    blocks = [token.type for token in tokens if not token.type.startswith("paragraph")]
    assert blocks == ["inline", "inline", "fence", "inline", "fence"]
    inside = {child.type for token in tokens for child in token.children or ()}
    assert inside <= {"text", "text_special", "strong_open", "strong_close"}


def test_an_example_says_what_was_asked_and_how_it_went(recorded: Recorder) -> None:
    run = recorded("eapo", [])
    asked = [[{"query": "3+4", "accepted": True}, {"query": "4+3", "accepted": False}]]
    run.record_transcripts(3, [row(PARTS, consultations=asked)])
    text = examples([run])[PARTS].markdown()
    assert "Run eapo-1, training step 3, problem p1; turn budget 2, acceptance rate 0.50" in text
    assert "queries: 2, accepted: 1; gold answer 7, verdict correct, reward 1.00." in text
    assert "**The environment**\n\n```text\n3 + 4 = ?\n```\n" in text
    assert "**The policy**\n\n```text\n\\boxed{7}\n```\n" in text
