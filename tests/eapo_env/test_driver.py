"""The driver plays the environment's game: turns, gates, truncation and grading."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, strategies as st

from eapo_env.actions import Consult, Malformed, render_consult
from eapo_env.driver import WriteTurn, consult, grade, play_episode
from eapo_env.env import EAPOMathEnv
from eapo_env.episode import Episode, act, begin, take_turn, truncate
from eapo_env.experts import ScriptedExperts, SilentExperts
from eapo_env.types import ExpertReply, Gate, Problem, Query, Reply, Rules, StopReason
from eapo_env.verifier import Status, Verifier

PROBLEM = Problem(id="p", statement="3 + 4 = ?", answer="7")
CONSULT = render_consult(Consult(("a?", "b?")))
VERIFIER = Verifier()  # only whole numbers are checked here: it starts no process
GATES: list[Gate] = ["pre", "post"]
texts = st.lists(st.sampled_from([CONSULT, "hm", "", r"\boxed{7}", r"\boxed{8}"]), max_size=5)
all_rules = st.builds(
    Rules,
    turn_budget=st.integers(1, 4),
    acceptance_rate=st.sampled_from([0.0, 0.5, 1.0]),
    queries_per_turn=st.integers(0, 3),
)


@dataclass(frozen=True)
class Written:
    text: str
    finish: Literal["stop", "length"] = "stop"


@dataclass
class Recording:
    """Experts that remember what they were asked."""

    asked: list[Query] = field(default_factory=list)

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        self.asked += queries
        return [Reply("ada", f"{query.text} is 12") for query in queries]


def say(query: Query) -> str:
    return f"{query.text}{query.turn}{query.slot}"


def writing(turns: Iterable[Written | None]) -> WriteTurn:
    remaining = iter(turns)

    async def write(episode: Episode) -> Written | None:
        return next(remaining)

    return write


@given(texts, all_rules, st.integers(0, 2**32), st.sampled_from(GATES))
def test_the_driver_plays_the_game_of_the_environment(
    script: list[str], rules: Rules, seed: int, gate: Gate
) -> None:
    pool = ScriptedExperts(say)
    env = EAPOMathEnv(problems=[PROBLEM], experts=pool, rules=rules, gate=gate, verifier=VERIFIER)
    env.reset(seed=seed)
    episode_seed, over, turns = env.episode.seed, False, chain(script, repeat(r"\boxed{0}"))
    while not over:
        _, _, over, _, info = env.step(next(turns))

    async def play() -> None:
        write = writing(map(Written, chain(script, repeat(r"\boxed{0}"))))
        rng = np.random.default_rng(episode_seed)
        start = begin(PROBLEM, rules, seed=episode_seed)
        episode = await play_episode(start, write, pool, rng, gate=gate)
        assert episode == env.episode
        assert (await grade(episode, VERIFIER)).correct == info["correct"]

    asyncio.run(play())


def test_a_gate_decides_what_is_sent_and_not_what_is_read() -> None:
    played = []
    for gate in GATES:
        pool = Recording()
        rules = Rules(turn_budget=4, acceptance_rate=0.5)
        write = writing(map(Written, [CONSULT, CONSULT, r"\boxed{7}"]))
        rng = np.random.default_rng(1)
        episode = asyncio.run(play_episode(begin(PROBLEM, rules), write, pool, rng, gate=gate))
        played.append(episode.messages)
        assert len(pool.asked) == (4 if gate == "post" else episode.num_accepted)
        assert 0 < episode.num_accepted < 4
    assert played[0] == played[1]


def test_an_episode_without_room_for_a_turn_is_truncated() -> None:
    write = writing([Written("hm"), None])
    rng = np.random.default_rng(0)
    episode = asyncio.run(play_episode(begin(PROBLEM, Rules()), write, SilentExperts(), rng))
    assert (episode.stop_reason, episode.turn) == (StopReason.LENGTH, 1)
    assert asyncio.run(grade(episode, VERIFIER)).status is Status.NO_ANSWER


@pytest.mark.parametrize(
    ("text", "stop_reason"),
    [("so I th", StopReason.LENGTH), (r"\boxed{7} or", StopReason.ANSWERED), (CONSULT, None)],
)
def test_a_turn_cut_off_counts_if_it_came_to_an_action(
    text: str, stop_reason: StopReason | None
) -> None:
    episode = take_turn(begin(PROBLEM, Rules()), Written(text, "length"), np.random.default_rng(0))
    assert episode.stop_reason is stop_reason
    assert episode.turn == 1
    assert isinstance(episode.actions[-1], Malformed) == (stop_reason is StopReason.LENGTH)


def test_a_truncated_completion_is_not_graded_even_if_an_answer_stands_in_it() -> None:
    fresh = begin(PROBLEM, Rules.alone())
    cut_off = truncate(fresh, StopReason.LENGTH, r"\boxed{7} and")
    assert asyncio.run(grade(cut_off, VERIFIER)).status is Status.NO_ANSWER
    answered = act(fresh, r"\boxed{7} and", np.random.default_rng(0))
    assert asyncio.run(grade(answered, VERIFIER)).status is Status.CORRECT


def test_only_an_episode_that_waits_for_replies_consults() -> None:
    pool = Recording()
    fresh = begin(PROBLEM, Rules())
    assert asyncio.run(consult(fresh, pool)) is fresh
    waiting = act(fresh, CONSULT, np.random.default_rng(0))
    heard = asyncio.run(consult(waiting, pool))
    assert [query.text for query in pool.asked] == ["a?", "b?"]
    assert heard.pending is None


def test_a_pool_that_breaks_its_protocol_ends_the_episode_with_an_error() -> None:
    class Mute:
        async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
            return []

    waiting = act(begin(PROBLEM, Rules()), CONSULT, np.random.default_rng(0))
    with pytest.raises(ValueError, match="returned 0 replies to 2 queries"):
        asyncio.run(consult(waiting, Mute()))
