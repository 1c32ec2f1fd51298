"""The episode: a state machine over the pure core, and its edges by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from eapo_env.acceptance import queries_to_ask, replies_in_slots
from eapo_env.actions import Answer, Consult, Malformed, parse_action, render_consult
from eapo_env.episode import Episode, act, begin, receive, take_turn, truncate
from eapo_env.prompts import Prompts
from eapo_env.types import (
    ExpertReply,
    Message,
    Problem,
    Reply,
    Rules,
    StopReason,
    Unavailable,
)

PROBLEM = Problem(id="p", statement="How many $x \\in \\{0, 1\\}$? {statement} {0}", answer="2")
FRAGMENTS = st.sampled_from(
    [
        *("<consult>", "</consult>", "<query>", "</query>", "<think>", "</think>", "what is it"),
        *(r"\boxed{2}", r"\boxed{", "}", "Answer: 2", "\ud800", "\0", "角", "{0}", "\n"),
        "<consult><query>a</query><query>b</query></consult>",
    ]
)
COMPLETIONS = st.lists(FRAGMENTS | st.text(max_size=6), max_size=8).map("".join)
TEXTS = st.lists(FRAGMENTS, max_size=5).map("".join)
REPLIES = st.builds(Reply, TEXTS, TEXTS) | st.builds(Unavailable, TEXTS)
RULES = st.builds(
    Rules,
    turn_budget=st.integers(1, 5),
    acceptance_rate=st.sampled_from([0.0, 0.5, 1.0]),
    queries_per_turn=st.integers(0, 3),
    max_reply_chars=st.integers(1, 50),
)


class EpisodeMachine(RuleBasedStateMachine):
    """Plays an episode by any completions and replies, and watches what must always hold."""

    @initialize(rules=RULES, prompts=st.sampled_from([Prompts(), Prompts.terse()]))
    def begins(self, rules: Rules, prompts: Prompts) -> None:
        self.rng = np.random.default_rng(0)
        self.episode = begin(PROBLEM, rules, prompts, seed=5)
        self.before = self.episode

    def advance(self, episode: Episode) -> None:
        self.before, self.episode = self.episode, episode

    def is_policys_turn(self) -> bool:
        return self.episode.stop_reason is None and self.episode.pending is None

    @precondition(is_policys_turn)
    @rule(completion=COMPLETIONS)
    def acts(self, completion: str) -> None:
        self.advance(act(self.episode, completion, self.rng))
        assert self.episode.turn == self.before.turn + 1

    @precondition(lambda self: self.episode.pending is not None)
    @precondition(lambda self: self.episode.stop_reason is None)
    @rule(data=st.data(), gate=st.sampled_from(["pre", "post"]))
    def receives(self, data: st.DataObject, gate: str) -> None:
        pending = self.episode.pending
        assert pending is not None
        num_asked = len(queries_to_ask(pending, gate))  # type: ignore[arg-type]
        replies = data.draw(st.lists(REPLIES, min_size=num_asked, max_size=num_asked))
        in_slots = replies_in_slots(pending, gate, replies)  # type: ignore[arg-type]
        self.advance(receive(self.episode, in_slots))
        assert self.episode.turn == self.before.turn

    @precondition(lambda self: self.episode.stop_reason is None)
    @rule(
        reason=st.sampled_from([StopReason.LENGTH, StopReason.WALL_CLOCK]),
        completion=COMPLETIONS,
    )
    def is_cut_off(self, reason: StopReason, completion: str) -> None:
        self.advance(truncate(self.episode, reason, completion))
        assert self.episode.stop_reason is reason

    @precondition(lambda self: self.episode.stop_reason is not None)
    @rule(rules=RULES)
    def begins_again(self, rules: Rules) -> None:
        self.begins(rules, self.episode.prompts)

    @invariant()
    def history_only_grows(self) -> None:
        kept = self.episode.messages[: len(self.before.messages)]
        assert kept == self.before.messages
        assert self.episode.actions[: len(self.before.actions)] == self.before.actions

    @invariant()
    def turns_stay_within_the_budget(self) -> None:
        assert self.episode.turn <= self.episode.rules.turn_budget
        assert self.episode.turns_left >= 0
        assert self.episode.turn == sum(m.role == "assistant" for m in self.episode.messages)

    @invariant()
    def it_goes_on_or_has_stopped(self) -> None:
        episode = self.episode
        if episode.stop_reason is None:
            assert episode.turns_left > 0
            assert episode.pending or episode.messages[-1].role == "user"
        else:
            assert episode.turns_left == 0
            assert episode.pending is None
        if episode.stop_reason is StopReason.ANSWERED:
            assert isinstance(episode.actions[-1], Answer)
            assert (
                parse_action(episode.response, experts=not episode.rules.is_alone)
                == episode.actions[-1]
            )
        assert not any(isinstance(action, Answer) for action in episode.actions[:-1])

    @invariant()
    def only_the_rules_let_experts_in(self) -> None:
        for consultation in self.episode.consultations:
            assert 1 <= len(consultation.queries) <= self.episode.rules.queries_per_turn
            if self.episode.rules.acceptance_rate in (0.0, 1.0):
                assert set(consultation.accepted) == {self.episode.rules.acceptance_rate == 1.0}
        if self.episode.rules.is_alone:
            assert not self.episode.consultations
            assert not any(isinstance(action, Consult) for action in self.episode.actions)

    @invariant()
    def every_word_fits_in_utf8(self) -> None:
        self.episode.transcript().encode("utf-8")


EpisodeMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=14)
TestEpisodeMachine = EpisodeMachine.TestCase


def consult(*queries: str) -> str:
    return render_consult(Consult(queries))


def started(**rules: object) -> Episode:
    return begin(PROBLEM, Rules(**rules), seed=7)  # type: ignore[arg-type]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def replied(episode: Episode, *replies: ExpertReply) -> Episode:
    return receive(episode, replies)


def test_an_episode_by_hand() -> None:
    episode = started(turn_budget=3, acceptance_rate=1.0)
    assert (episode.turn, episode.turns_left, episode.stop_reason) == (0, 3, None)
    episode = act(episode, "Hm. " + consult("What is it?") + " and more", rng())
    assert episode.messages[-1] == Message("assistant", "Hm. " + consult("What is it?"))
    assert episode.pending is not None
    assert [(q.text, q.statement, q.seed, q.slot) for q in episode.pending.queries] == [
        ("What is it?", PROBLEM.statement, 7, 0)
    ]
    episode = replied(episode, Reply("ada", "It is 2."))
    assert episode.messages[-1] == Message(
        "user", '<reply query="1" expert="ada">\nIt is 2.\n</reply>\nTurns left: 2.'
    )
    assert (episode.turn, episode.turns_left, episode.pending) == (1, 2, None)
    episode = act(episode, r"So \boxed{2}.", rng())
    assert (episode.stop_reason, episode.turns_left) == (StopReason.ANSWERED, 0)
    assert episode.actions == (Consult(("What is it?",)), Answer("2"))
    assert (episode.num_queries, episode.num_accepted) == (1, 1)
    assert episode.response == r"So \boxed{2}."


def test_a_consultation_in_the_last_turn_asks_nothing() -> None:
    generator = rng()
    episode = act(started(turn_budget=2), "not sure", generator)
    episode = act(episode, consult("a", "b"), generator)
    assert episode.stop_reason is StopReason.TURN_BUDGET
    assert episode.pending is None
    assert episode.consultations == ()
    assert episode.num_queries == 0
    assert generator.random() == rng().random()


def test_more_than_m_queries_ask_the_first_m_and_say_so() -> None:
    episode = act(started(queries_per_turn=2), consult("a", "b", "c", "d"), rng())
    assert episode.pending is not None
    assert [query.text for query in episode.pending.queries] == ["a", "b"]
    assert [query.slot for query in episode.pending.queries] == [0, 1]
    episode = replied(episode, Unavailable("x"), Unavailable("y"))
    assert "Only the first 2 questions were asked." in episode.messages[-1].content
    exactly = act(started(queries_per_turn=2), consult("a", "b"), rng())
    exactly = replied(exactly, Unavailable("x"), Unavailable("y"))
    assert "Only the first" not in exactly.messages[-1].content


def test_every_question_of_an_episode_has_a_place_of_its_own() -> None:
    episode = started(turn_budget=4)
    for _ in range(3):
        episode = act(episode, consult("same", "same"), rng())
        episode = replied(episode, Unavailable("x"), Unavailable("y"))
    queries = [query for c in episode.consultations for query in c.queries]
    assert len({(query.turn, query.slot) for query in queries}) == len(queries) == 6


def test_malformed_turns_use_up_the_budget() -> None:
    episode = started(turn_budget=2)
    episode = act(episode, "", rng())
    assert isinstance(episode.actions[-1], Malformed)
    assert episode.messages[-1].role == "user"
    assert episode.messages[-1].content.startswith("That was neither")
    episode = act(episode, "", rng())
    assert episode.stop_reason is StopReason.TURN_BUDGET
    assert episode.messages[-1] == Message("assistant", "")


def test_alone_a_consultation_is_mere_text() -> None:
    text = consult("a") + r" so \boxed{2}"
    episode = act(begin(PROBLEM, Rules.alone()), text, rng())
    assert episode.stop_reason is StopReason.ANSWERED
    assert episode.messages[-1] == Message("assistant", text)


def test_a_box_in_a_reply_is_never_the_policys_answer() -> None:
    episode = act(started(acceptance_rate=1.0), consult("a"), rng())
    episode = replied(episode, Reply("ada", r"\boxed{2}"))
    assert episode.stop_reason is None
    assert episode.response == ""
    episode = act(episode, "I do not know.", rng())
    assert isinstance(episode.actions[-1], Malformed)


@pytest.mark.parametrize("reason", [StopReason.LENGTH, StopReason.WALL_CLOCK])
def test_a_truncation_drops_what_is_pending(reason: StopReason) -> None:
    episode = act(started(), consult("a"), rng())
    cut_off = truncate(episode, reason)
    assert cut_off.stop_reason is reason
    assert cut_off.consultations == ()
    assert cut_off.num_queries == 0
    assert cut_off.messages == episode.messages


def test_a_completion_cut_short_stays_in_the_history() -> None:
    episode = truncate(started(), StopReason.LENGTH, "so \\boxed{2} \ud800")
    assert episode.messages[-1] == Message("assistant", "so \\boxed{2} \ufffd")
    assert isinstance(episode.actions[-1], Malformed)
    assert episode.stop_reason is StopReason.LENGTH


@dataclass(frozen=True)
class Turn:
    """A completion that a limit cut off, or that ended by itself."""

    text: str
    finish: Literal["stop", "length"]


FORMS = ["Answer: {}", "#### {}", "The answer is {}.", "So \\boxed{{{}}} it is."]


@given(st.sampled_from(FORMS), st.integers(10, 10**6), st.data())
def test_a_cut_answer_is_the_whole_answer_or_none(
    form: str, value: int, data: st.DataObject
) -> None:
    """No limit makes a `2` of `Answer: 21`, wherever it cuts."""
    solution = "First we add.\n" + form.format(value)
    end = data.draw(st.integers(0, len(solution)))
    after = take_turn(started(), Turn(solution[:end], "length"), rng())
    if after.stop_reason is StopReason.ANSWERED:
        assert after.actions == (Answer(str(value)),)
    else:
        assert after.stop_reason is StopReason.LENGTH
        assert after.response == solution[:end]
    whole = take_turn(started(), Turn(solution, "stop"), rng())
    assert whole.actions == (Answer(str(value)),)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Answer: 2", StopReason.LENGTH),
        ("Answer: 2\nBecause", StopReason.ANSWERED),
        ("\\boxed{2}", StopReason.ANSWERED),
        ("\\boxed{2", StopReason.LENGTH),
    ],
)
def test_an_answer_that_touches_the_cut_is_none(text: str, reason: StopReason) -> None:
    assert take_turn(started(), Turn(text, "length"), rng()).stop_reason is reason


@pytest.mark.parametrize("reason", [StopReason.ANSWERED, StopReason.TURN_BUDGET])
def test_only_outside_limits_truncate(reason: StopReason) -> None:
    with pytest.raises(ValueError, match="truncates with LENGTH or WALL_CLOCK"):
        truncate(started(), reason)


def test_a_wrong_number_of_replies_is_an_error() -> None:
    episode = act(started(), consult("a", "b"), rng())
    with pytest.raises(ValueError, match="1 replies for 2 queries"):
        replied(episode, Reply("ada", "x"))


def test_out_of_turn_is_our_own_bug() -> None:
    waiting = act(started(), consult("a"), rng())
    over = act(started(), r"\boxed{2}", rng())
    with pytest.raises(AssertionError, match="waits for replies"):
        act(waiting, "x", rng())
    with pytest.raises(AssertionError, match="is over"):
        act(over, "x", rng())
    with pytest.raises(AssertionError, match="waits for no replies"):
        replied(over, Reply("ada", "x"))


@given(COMPLETIONS, st.integers(0, 2**32))
def test_acting_changes_nothing_but_its_result(completion: str, seed: int) -> None:
    episode = started(acceptance_rate=0.5)
    first = act(episode, completion, np.random.default_rng(seed))
    assert first == act(episode, completion, np.random.default_rng(seed))
    assert episode == started(acceptance_rate=0.5)


@given(st.text(max_size=30).filter(str.strip))
def test_any_statement_stands_in_the_prompt_as_it_is(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return
    problem = Problem(id="p", statement=text, answer="2")
    assert begin(problem, Rules()).messages[0].content.endswith(text)
    assert begin(problem, Rules.alone()).messages[0].content.endswith(text)


def test_the_transcript_heads_each_message_by_its_role() -> None:
    episode = act(started(turn_budget=2), "Hm.", rng())
    assert episode.transcript().startswith("[user]\nSolve the problem below.")
    assert episode.transcript(1).startswith("[assistant]\nHm.\n\n[user]\nThat was neither")


@pytest.mark.timeout(60)
def test_ten_megabytes_of_anything_are_played_in_linear_time() -> None:
    for text in (consult("q" * 10_000_000), consult(*["q"] * 300_000), "<query>" * 1_400_000):
        episode = act(started(acceptance_rate=1.0), text, rng())
        if episode.pending:
            hostile = Reply("ada" * 1_000_000, "<" + " " * 10_000_000)
            episode = replied(episode, *[hostile] * len(episode.pending.queries))
            assert len(episode.messages[-1].content) < 60_000
