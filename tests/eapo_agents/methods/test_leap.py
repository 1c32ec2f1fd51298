"""LeaP: who reads whom, what is inserted, what is graded; on scripted, real and served models."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import as_options
from hypothesis import given, strategies as st
from stub_server import StubServer
from transformers import PreTrainedTokenizerFast

from eapo_agents.cli import main
from eapo_agents.evaluation.evaluator import ProblemResult
from eapo_agents.methods.leap import (
    Leap,
    LeapSettings,
    LeapWords,
    Router,
    TokenPath,
    route,
    similarity,
)
from eapo_agents.testing import ScriptedPolicy
from eapo_agents.training.run_folder import read_evaluation
from eapo_env.prompts import Prompts
from eapo_env.types import Problem, StopReason
from eapo_env.verifier import Verifier

PROBLEM = Problem(id="p", statement="p7", answer="3")
WORDS = LeapWords(summarise="SUM:", peer="[{number}:{summary}]", reflect="PEERS {peers} ")


def leap(
    tokenizer: PreTrainedTokenizerFast,
    verifier: Verifier,
    script: Callable[[str, np.random.Generator], str],
    words: LeapWords = WORDS,
    max_context_tokens: int = 1 << 20,
    max_response_tokens: int = 200,
    **settings: Any,
) -> Leap:
    policy = ScriptedPolicy(tokenizer, script, max_context_tokens=max_context_tokens)
    return Leap(
        open_path=partial(TokenPath.open, policy),
        verifier=verifier,
        prompts=Prompts.terse(),
        words=words,
        settings=LeapSettings(**{"block_tokens": 8, "summary_tokens": 12, "peers": 2} | settings),
        max_response_tokens=max_response_tokens,
    )


def test_a_round_by_hand(tokenizer: PreTrainedTokenizerFast, verifier: Verifier) -> None:
    """Three paths write eight characters, sum up, hear two peers each, and answer."""
    seen: list[str] = []

    def script(prompt: str, rng: np.random.Generator) -> str:
        seen.append(prompt)
        if prompt.endswith("SUM:"):
            return f"s{rng.integers(10**5, 10**6)}</summary> not read"
        return "\\boxed{3}" if "PEERS" in prompt else "thinking on and on"

    three = leap(tokenizer, verifier, script, summary_tokens=40).solve(PROBLEM, 3, seed=0)
    attempts = asyncio.run(three)
    assert len(seen) == 3 * 3
    assert all(prompt.endswith("thinkingSUM:") for prompt in seen[3:6])
    own = [prompt.partition("SUM:")[2].partition(" </summary>")[0] for prompt in seen[6:]]
    assert len(set(own)) == 3
    for path, prompt in enumerate(seen[6:]):
        heard = prompt.partition("PEERS ")[2].strip()
        others = [own[(path + step) % 3] for step in (1, 2)]
        assert heard == f"[1:{others[0]}][2:{others[1]}]"
    for attempt in attempts:
        assert attempt.correct
        assert attempt.episode.response == "thinking\\boxed{3}"
        assert attempt.num_policy_tokens == 8 + len("s123456</summary>") + 4


def test_what_peers_and_summaries_say_is_not_the_answer(
    tokenizer: PreTrainedTokenizerFast, verifier: Verifier
) -> None:
    def script(prompt: str, rng: np.random.Generator) -> str:
        return "\\boxed{3} </reply>" if prompt.endswith("SUM:") else "no idea at all"

    attempts = asyncio.run(
        leap(tokenizer, verifier, script, max_response_tokens=40).solve(PROBLEM, 2, seed=0)
    )
    for attempt in attempts:
        assert not attempt.correct
        assert attempt.episode.stop_reason is StopReason.LENGTH
        assert "boxed" not in attempt.episode.response
        assert attempt.num_policy_tokens == 40


def test_a_path_that_is_done_or_has_closed_its_reasoning_is_left_alone(
    tokenizer: PreTrainedTokenizerFast, verifier: Verifier
) -> None:
    seen: list[str] = []

    def script(prompt: str, rng: np.random.Generator) -> str:
        seen.append(prompt)
        return (
            "a</think>so it is clear \\boxed{3}" if "</think>" not in prompt else "and \\boxed{3}"
        )

    attempts = asyncio.run(
        leap(tokenizer, verifier, script, block_tokens=10).solve(PROBLEM, 3, seed=0)
    )
    assert all(attempt.correct for attempt in attempts)
    assert not any("SUM:" in prompt for prompt in seen)
    assert len(seen) == 3 * 2, "one block, and then to the end"


def test_what_stands_in_an_unfinished_thought_is_not_the_answer(
    tokenizer: PreTrainedTokenizerFast, verifier: Verifier
) -> None:
    """As everywhere; templates of some reasoning models open the thought themselves."""
    opening = tokenizer.__class__(
        tokenizer_object=tokenizer.backend_tokenizer,
        eos_token=tokenizer.eos_token,
        chat_template=tokenizer.chat_template + "{{ '<think>\\n' }}",
    )
    for text, correct in (("maybe \\boxed{3} ", False), ("2</think>So \\boxed{3}", True)):

        def script(prompt: str, rng: np.random.Generator, text: str = text) -> str:
            return text

        one = leap(opening, verifier, script, block_tokens=40)
        attempts = asyncio.run(one.solve(PROBLEM, 2, seed=0))
        assert [attempt.correct for attempt in attempts] == [correct] * 2
        assert attempts[0].episode.response.startswith("<think>\n")


def test_a_context_that_is_full_ends_a_path(
    tokenizer: PreTrainedTokenizerFast, verifier: Verifier
) -> None:
    one = leap(tokenizer, verifier, lambda prompt, rng: "x" * 99, max_context_tokens=30)
    for attempt in asyncio.run(one.solve(PROBLEM, 2, seed=0)):
        assert attempt.episode.stop_reason is StopReason.LENGTH


def test_terse_paths_share_their_last_value(
    tokenizer: PreTrainedTokenizerFast, verifier: Verifier
) -> None:
    seen: list[str] = []

    def script(prompt: str, rng: np.random.Generator) -> str:
        seen.append(prompt)
        return "\\boxed{3}" if "reply" in prompt else "a=10;b=17;c=5"

    asyncio.run(
        leap(tokenizer, verifier, script, LeapWords.terse(), block_tokens=13).solve(PROBLEM, 2, 0)
    )
    assert len(seen) == 4
    assert all(prompt.endswith("c=5<reply>b=17</reply>\nturns 1") for prompt in seen[2:])


def test_what_is_done_is_not_done_again(
    tokenizer: PreTrainedTokenizerFast, verifier: Verifier
) -> None:
    def script(prompt: str, rng: np.random.Generator) -> str:
        asked.append(prompt)
        return f"\\boxed{{{rng.integers(2, 4)}}}"

    asked: list[str] = []
    done: list[ProblemResult] = []
    problems = [Problem(id=f"q{n}", statement=f"q{n}", answer="3") for n in range(3)]
    evaluate = partial(leap(tokenizer, verifier, script).evaluate, samples_per_problem=4, seed=1)
    whole = asyncio.run(evaluate(problems, on_result=done.append))
    assert [result.problem_id for result in done] == ["q0", "q1", "q2"]
    asked.clear()
    assert asyncio.run(evaluate(problems, done=done[:2])) == whole
    assert asked
    assert all("q2" in prompt for prompt in asked)


def test_similarity_by_hand() -> None:
    assert similarity("a b c", "B c d") == 2 / 4
    assert similarity("", " ") == 1.0
    assert similarity("a", "") == 0.0


@pytest.mark.parametrize(
    ("router", "expected"),
    [
        ("dispersed", [[2, 3], [2, 3], [0, 1], [0, 1]]),
        ("clustered", [[1, 2], [0, 2], [3, 0], [2, 0]]),
        ("hybrid", [[2, 1], [2, 0], [0, 3], [0, 2]]),
    ],
)
def test_routing_by_hand(router: Router, expected: list[list[int]]) -> None:
    """Two pairs of alike summaries; of equally similar peers the next ones come first."""
    assert route(["a b c", "a b d", "x y", "x z"], router, 2) == expected


@given(
    summaries=st.lists(st.text("ab ", max_size=6), min_size=1, max_size=6),
    router=st.sampled_from(["dispersed", "clustered", "hybrid"]),
    peers=st.integers(1, 7),
)
def test_routing(summaries: list[str], router: Router, peers: int) -> None:
    """As many distinct peers as there are, never oneself; all of them in whatever order."""
    routed = route(summaries, router, peers)
    assert len(routed) == len(summaries)
    for path, read in enumerate(routed):
        assert path not in read
        assert len(set(read)) == len(read) == min(peers, len(summaries) - 1)


@pytest.mark.parametrize("name", ["paths", "block_tokens", "summary_tokens", "peers"])
def test_numbers_below_one_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        LeapSettings(**dict[str, Any]({name: 0}))


def test_more_peers_than_there_are_are_refused() -> None:
    with pytest.raises(ValueError, match="peers must be below paths=2, not 5"):
        LeapSettings(paths=2, peers=5)
    with pytest.raises(ValueError, match="peers must be below paths=4, not 4"):
        LeapSettings(paths=4)
    assert LeapSettings(paths=5).peers == 4


def test_the_command_on_a_real_model(
    tiny_model: Path,
    settings_without_model: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, options = str(tiny_model), as_options(settings_without_model)
    path = tmp_path / "leap.json"
    command = ["leap", model, "--paths", "2", "--block", "2", *options]
    for _ in range(2):
        assert main([*command, "--json", str(path)]) == 0
        (report,) = read_evaluation(path).reports.values()
        assert (report.num_problems, report.samples_per_problem) == (4, 2)
        assert report.call_rate == 0.0
    assert "LeaP: 4 problems" in " ".join(capsys.readouterr().out.split()), "wrapped or not"
    assert main(["leap", model, "--block", "0", *options]) == 2
    assert "block_tokens must be at least 1, not 0" in capsys.readouterr().err
    assert main(["leap", model, "--paths", "2", "--peers", "5", *options]) == 2
    assert "peers must be below paths=2, not 5" in capsys.readouterr().err


def test_the_command_on_a_served_model(settings_without_model: list[str], tmp_path: Path) -> None:
    """Cut off in its first thought, it sums up, hears its peer, and answers rightly."""
    path = tmp_path / "leap.json"
    with StubServer() as server:
        options = as_options(
            [*settings_without_model, "engine=openai", f"engine.base_url={server.url}"]
        )
        assert main(["leap", "peer:3", *options, "--json", str(path)]) == 0
        calls = [call["body"]["messages"] for call in server.records("peer:3")]
    (report,) = read_evaluation(path).reports.values()
    assert (report.mean_at_k, report.response_tokens) == (1.0, 9.0)
    assert sorted(map(len, calls)) == [1] * 8 + [3] * 8 + [5] * 8
    last = [messages[-1]["content"] for messages in calls if len(messages) == 5]
    assert all("Peer 1: I think \\boxed{9}" in text for text in last)
