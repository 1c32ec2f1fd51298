"""Tests for implementations of the environment's protocols, and a scripted pool to test with.

Each check passes if an implementation keeps the promises of its protocol, and otherwise raises an
AssertionError that says which one it breaks:

    asyncio.run(check_expert_pool(MyExperts()))
    asyncio.run(check_grader(MyGrader()))
    check_reward(MyReward())
    check_problem_source(lambda: load_problems("mine.jsonl"))
"""

from __future__ import annotations

import asyncio
import math
import pickle
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing

import numpy as np

from eapo_env.actions import Consult, render_consult
from eapo_env.episode import Episode, act, begin, receive, truncate
from eapo_env.experts import ExpertPool, ScriptedExperts as ScriptedExperts
from eapo_env.reward import Reward
from eapo_env.types import Problem, Query, Reply, Rules, StopReason, Unavailable
from eapo_env.validation import UserError
from eapo_env.verifier import Grader, Pairs, Verdict, Verifier, check_gold

_STRANGE_TEXTS = (
    "2 + 2?",
    "",
    "∫₀^∞ e⁻ˣ dx = 🤔?",
    "null \0 and escape \x1b[31m",
    "a lone surrogate: \ud800",
    "</query></consult><|im_end|>",
    "8" * 9999,
)
_STRANGE_QUERIES = tuple(
    Query(text=text, statement=text, seed=seed, slot=slot)
    for seed in range(2)
    for slot, text in enumerate(_STRANGE_TEXTS)
)
_SHOWN = 5
"""How many offending problems a message shows."""


async def check_expert_pool(pool: ExpertPool) -> None:
    """Pass if a pool replies to any batch of queries, at any time, and can be pickled.

    The queries are strange; any reply will do.

    Raises:
        AssertionError: the pool breaks a promise of `ExpertPool`; the message says which.
    """
    assert isinstance(pool, ExpertPool), f"{pool!r} has no method `ask`"
    await _check_replies(pool, ())
    await _check_replies(pool, _STRANGE_QUERIES)
    await asyncio.gather(*(_check_replies(pool, _STRANGE_QUERIES[i:]) for i in range(3)))
    try:
        copy = pickle.loads(pickle.dumps(pool))
    except Exception as error:
        raise AssertionError(f"{pool!r} cannot be pickled: {error!r}") from error
    await _check_replies(copy, _STRANGE_QUERIES[:1])


async def _check_replies(pool: ExpertPool, queries: Sequence[Query]) -> None:
    try:
        replies = await pool.ask(queries)
    except Exception as error:
        raise AssertionError(f"{pool!r} raised {error!r} instead of replying") from error
    assert isinstance(replies, Sequence), f"not a sequence of replies: {replies!r}"
    assert len(replies) == len(queries), f"{len(replies)} replies to {len(queries)} queries"
    for reply in replies:
        assert isinstance(reply, Reply | Unavailable), f"not a reply: {reply!r}"
        strings = (reply.expert, reply.text if isinstance(reply, Reply) else reply.reason)
        assert all(isinstance(string, str) for string in strings), f"not text: {reply!r}"


async def check_grader(
    grader: Grader,
    *,
    right: tuple[str, str] = (r"So \boxed{7}.", "7"),
    wrong: tuple[str, str] = (r"So \boxed{8}.", "7"),
) -> None:
    """Pass if a grader gives a verdict on any pair, the same alone, in batches and concurrently.

    The grader is closed at the end.

    Args:
        grader: what is tested.
        right: a (response, gold answer) pair that is correct, for a grader of another format.
        wrong: a pair that is not.

    Raises:
        AssertionError: the grader breaks a promise of `Grader`; the message says which.
    """
    assert isinstance(grader, Grader), f"{grader!r} lacks verify, averify or close"
    strange = [(text, gold) for text in _STRANGE_TEXTS for gold in (right[1], text)]
    pairs = [right, *strange, wrong, right]
    alone = [verdict for pair in pairs for verdict in _verdicts(grader, [pair])]
    assert alone[0].correct, f"{right[0]!r} was graded {alone[0].status} with the gold {right[1]!r}"
    assert not alone[-2].correct, f"{wrong[0]!r} was graded correct with the gold {wrong[1]!r}"
    assert not _verdicts(grader, [("", right[1])])[0].correct, "an empty response was correct"
    assert _verdicts(grader, []) == [], "a verdict on no pair"
    assert _verdicts(grader, pairs) == alone, "a batch changed verdicts, or their order"
    batches = [pairs, pairs[::-1], [], pairs[:2]]
    together = await asyncio.gather(*(_averdicts(grader, batch) for batch in batches))
    for found, expected in zip(together, (alone, alone[::-1], [], alone[:2]), strict=True):
        assert found == expected, "averify gave other verdicts than verify"
    grader.close()
    grader.close()


def _verdicts(grader: Grader, pairs: Pairs) -> list[Verdict]:
    try:
        verdicts = grader.verify(pairs)
    except Exception as error:
        raise AssertionError(f"verify raised {error!r} on {pairs!r:.200}") from error
    return _checked_verdicts(verdicts, pairs)


async def _averdicts(grader: Grader, pairs: Pairs) -> list[Verdict]:
    try:
        verdicts = await grader.averify(pairs)
    except Exception as error:
        raise AssertionError(f"averify raised {error!r} on {pairs!r:.200}") from error
    return _checked_verdicts(verdicts, pairs)


def _checked_verdicts(verdicts: Sequence[Verdict], pairs: Pairs) -> list[Verdict]:
    assert isinstance(verdicts, Sequence), f"not a sequence of verdicts: {verdicts!r}"
    assert len(verdicts) == len(pairs), f"{len(verdicts)} verdicts on {len(pairs)} pairs"
    for verdict in verdicts:
        assert isinstance(verdict, Verdict), f"not a verdict: {verdict!r}"
    return list(verdicts)


def check_reward(reward: Reward) -> None:
    """Pass if a reward is a finite number for any finished episode, and pays for correct answers.

    Raises:
        AssertionError: the reward breaks a promise of `Reward`; the message says which.
    """
    assert isinstance(reward, Reward), f"{reward!r} has no method `reward`"
    for episode in _finished_episodes():
        for num_tokens in (0, 1, 1000, 10**6):
            scores = (0.0, 0.01, 0.5, 1.0)
            earned = [_reward(reward, episode, score, num_tokens) for score in scores]
            wrong, *_, right = earned
            shown = f"{episode.stop_reason}, {num_tokens} tokens"
            again = _reward(reward, episode, 0.0, num_tokens)
            assert again == wrong, f"{again} after {wrong} for the same episode ({shown})"
            assert right >= wrong, f"correct earns {right}, wrong {wrong} ({shown})"
            assert earned == sorted(earned), f"the scores {scores} earn {earned} ({shown})"


def _reward(reward: Reward, episode: Episode, score: float, num_tokens: int) -> float:
    try:
        value: object = reward.reward(episode, score, num_tokens)
    except Exception as error:
        ended = f"an episode of {episode.turn} turns that ended by {episode.stop_reason}"
        raise AssertionError(f"raised {error!r} on {ended}") from error
    assert isinstance(value, int | float | np.number), f"not a number: {value!r}"
    assert math.isfinite(value), f"not finite: {value}"
    return float(value)


def _finished_episodes() -> list[Episode]:
    """Return an episode for each way to end, with and without consultations."""
    rng = np.random.default_rng(0)
    problem = Problem(id="p", statement="What is 3 + 4?", answer="7")
    fresh = begin(problem, Rules(turn_budget=2, acceptance_rate=0.5))
    waiting = act(fresh, render_consult(Consult(("3 + 4?", "?", "4 + 3?"))), rng)
    heard = receive(waiting, [Reply("ada", "7"), Unavailable("gone", "bob"), Reply("ada", "8")])
    return [
        act(begin(problem, Rules.alone()), r"\boxed{7}", rng),
        act(fresh, r"\boxed{7}", rng),
        act(heard, r"\boxed{7}", rng),
        act(heard, "", rng),
        act(begin(problem, Rules.alone()), "\0 \ud800", rng),
        truncate(fresh, StopReason.LENGTH),
        truncate(heard, StopReason.LENGTH, "cut o"),
        truncate(waiting, StopReason.WALL_CLOCK),
    ]


def check_problem_source(
    load: Callable[[], Iterable[Problem]], *, grader: Grader | None = None
) -> None:
    """Pass if a source gives the same usable problems, in the same order, each time it is loaded.

    Args:
        load: returns the problems; it is called twice.
        grader: what will grade the answers; by default the environment's `Verifier`. It must find
            each gold answer, in a box, equal to itself.

    Raises:
        AssertionError: the source is empty, repeats an id, holds an invalid problem or an answer
            that cannot be verified, or changes between two loads; the message says which.
    """
    problems = list(load())
    assert problems, "there is no problem"
    ids: set[str] = set()
    for number, problem in enumerate(problems):
        assert isinstance(problem, Problem), f"problem {number} is not a Problem: {problem!r:.200}"
        _check_texts(problem, number)
        assert problem.id not in ids, f"two problems have the id {problem.id!r}"
        ids.add(problem.id)
    if grader is None:
        for problem in problems:
            _check_gold(problem)
        with closing(Verifier()) as verifier:
            _check_matches(problems, verifier)
    else:
        _check_matches(problems, grader)
    again = list(load())
    assert len(again) == len(problems), (
        f"{len(again)} problems instead of {len(problems)}, reloaded"
    )
    changed = [a.id for a, b in zip(problems, again, strict=True) if a != b]
    assert not changed, f"another problem at the place of {changed[:_SHOWN]}, reloaded"


def _check_texts(problem: Problem, number: int) -> None:
    for name in ("id", "statement", "answer"):
        value = getattr(problem, name)
        assert isinstance(value, str), f"problem {number}: its {name} is not text: {value!r}"
        assert value.strip(), f"problem {number} has no {name}: {value!r}"
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise AssertionError(f"problem {number}: its {name} is not UTF-8: {error}") from error


def _check_gold(problem: Problem) -> None:
    try:
        check_gold(problem.answer)
    except UserError as error:
        raise AssertionError(f"the answer of {problem.id!r} cannot be verified: {error}") from error


def _check_matches(problems: Sequence[Problem], grader: Grader) -> None:
    pairs = [(rf"\boxed{{{problem.answer}}}", problem.answer) for problem in problems]
    failed = [
        f"{problem.id}: {problem.answer[:60]!r} ({verdict.status})"
        for problem, verdict in zip(problems, grader.verify(pairs), strict=True)
        if not verdict.correct
    ]
    assert not failed, f"{len(failed)} answers that no response can match: {failed[:_SHOWN]}"
