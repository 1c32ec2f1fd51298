"""OpenAI-compatible models as policies: against a real server in another process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import as_options
from stub_server import StubServer

from eapo_agents.cli import main
from eapo_agents.policies.chat_model import ChatTurn
from eapo_agents.policies.openai import OpenAIPolicy, read_turn, room_left
from eapo_agents.policies.policy import PolicyError, Sampling, Truncation
from eapo_agents.rollouts.text_rollout import TextRollout
from eapo_env.endpoints import Endpoint
from eapo_env.experts import ScriptedExperts
from eapo_env.types import Message, Problem, Rules, StopReason
from eapo_env.verifier import Verifier

HELLO = (Message("user", "two plus one?"),)


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with StubServer() as running:
        yield running


def policy(server: Any, model: str, **extra_body: object) -> OpenAIPolicy:
    return OpenAIPolicy(
        endpoint=Endpoint(base_url=server.url, models=(model,)), extra_body=extra_body
    )


def test_a_request_says_what_was_asked_for(server: Any) -> None:
    one = policy(server, "solve:3", seed=None, max_tokens=None, max_completion_tokens=9)
    history = (*HELLO, Message("assistant", "a lone \ud800"), Message("user", "<reply>3</reply>"))
    sampling = Sampling(max_tokens=9, temperature=0.5, stop=("</consult>",))
    turn = asyncio.run(one.write(history, sampling, seed=5))
    assert turn == ChatTurn(text="\\boxed{3}", num_tokens=5, finish="stop")
    body = server.records("solve:3")[-1]["body"]
    assert [m["role"] for m in body["messages"]] == ["user", "assistant", "user"]
    assert body["messages"][1]["content"] == "a lone \ufffd"
    assert (body["temperature"], body["stop"]) == (0.5, ["</consult>"])
    assert body["max_completion_tokens"] == 9
    assert not {"seed", "max_tokens"} & set(body)
    assert body["top_p"] == 1.0
    assert not {"top_k", "min_p"} & set(body)
    narrow = Sampling(max_tokens=9, truncation=Truncation(top_p=0.9, top_k=20, min_p=0.05))
    asyncio.run(one.write(history, narrow, seed=5))
    body = server.records("solve:3")[-1]["body"]
    assert (body["top_p"], body["top_k"], body["min_p"]) == (0.9, 20, 0.05)


def test_a_model_that_fails_is_an_error_and_no_wrong_answer(server: Any) -> None:
    for model, told in (("status:400", "400"), ("html", "not a chat completion")):
        with pytest.raises(PolicyError, match=f"{model} at {server.url}: .*{told}"):
            asyncio.run(policy(server, model).write(HELLO, Sampling(max_tokens=9), seed=0))


def test_a_conversation_that_outgrows_the_context_ends_and_an_opening_is_an_error(
    server: Any,
) -> None:
    longer = (*HELLO, Message("assistant", "three?"), Message("user", "are you sure?"))
    one = policy(server, "outgrown:1")
    assert asyncio.run(one.write(HELLO, Sampling(max_tokens=9), seed=0)).text == "\\boxed{3}"
    assert asyncio.run(one.write(longer, Sampling(max_tokens=9), seed=0)) == ChatTurn(
        text="", num_tokens=0, finish="length"
    )
    with pytest.raises(PolicyError, match="maximum context length is 8"):
        asyncio.run(policy(server, "outgrown:0").write(HELLO, Sampling(max_tokens=9), seed=0))


def test_a_reply_is_cut_to_the_room_that_the_context_has(server: Any) -> None:
    longer = (*HELLO, Message("assistant", "three?"), Message("user", "are you sure?"))
    for model, limits, text in (
        ("context:830-200", [700, 630], "\\boxed{3}"),
        ("context:900-200", [700], "\\boxed{3}"),
        ("context:830-830", [700], ""),
    ):
        turn = asyncio.run(policy(server, model).write(longer, Sampling(max_tokens=700), seed=0))
        assert turn.text == text
        assert [call["body"]["max_tokens"] for call in server.records(model)] == limits
    with pytest.raises(PolicyError, match="maximum context length is 830"):
        asyncio.run(policy(server, "context:830-830").write(HELLO, Sampling(max_tokens=7), seed=0))


@pytest.mark.parametrize(
    ("told", "room"),
    [
        ("you requested 900 tokens (200 in the messages, 700 in the completion).", 630),
        ("you requested 900 tokens (200 in your prompt; 700 for the completion).", 630),
        ("your messages resulted in 900 tokens.", -70),
        ("your request has 830 input tokens.", 0),
        ("your prompt contains at least 831 input tokens, which exceeds this limit", -1),
        ("it is too long.", None),
    ],
)
def test_the_room_that_a_refusal_states(told: str, room: int | None) -> None:
    said = "BadRequestError: Error code: 400 - This model's maximum context length is 830 tokens."
    assert room_left(f"{said} However, {told}") == room
    assert room_left(told) is None


def test_an_episode_with_a_consultation(server: Any) -> None:
    """The server cuts the stop text off; the episode has it back, and its tokens are counted."""
    with Verifier() as verifier:
        rollout = TextRollout(
            model=policy(server, "solve:42"),
            experts=ScriptedExperts(lambda query: f"{query.text} 42"),
            verifier=verifier,
        )
        problem = Problem(id="p", statement="six times seven", answer="42")
        helped = asyncio.run(rollout.play(problem, Rules(turn_budget=2), seed=0))
        alone = asyncio.run(rollout.play(problem, Rules.alone(), seed=0))
    [consultation] = helped.episode.consultations
    assert [query.text for query in consultation.queries] == ["what is it?"]
    assert helped.episode.messages[1].content.endswith("</consult>")
    assert "what is it? 42" in helped.episode.messages[2].content
    assert (helped.correct, helped.status, helped.num_policy_tokens) == (True, "correct", 7 + 5)
    assert helped.episode.stop_reason is StopReason.ANSWERED
    assert (alone.correct, alone.num_policy_tokens, alone.episode.turn) == (True, 5, 1)


@pytest.mark.parametrize(
    ("message", "finish", "usage", "expected"),
    [
        ("<consult>\n<query>?</query>", "stop", 9, ("<consult>\n<query>?</query></consult>", 9)),
        ("<consult>\n<query>?</query>", "length", 9, ("<consult>\n<query>?</query>", 9)),
        ("no consultation here", "stop", None, ("no consultation here", 3)),
        ("<consult></consult> done", "stop", 4, ("<consult></consult> done", 4)),
        (None, "content_filter", 0, ("", 0)),
    ],
)
def test_reading_a_turn(
    message: str | None, finish: str, usage: int | None, expected: tuple[str, int]
) -> None:
    choice = {"message": {"content": message}, "finish_reason": finish}
    content = {"choices": [choice], "usage": usage and {"completion_tokens": usage}}
    turn = read_turn(content, ("</consult>",))
    assert turn is not None
    assert (turn.text, turn.num_tokens) == expected
    assert turn.finish == ("length" if finish == "length" else "stop")


@pytest.mark.parametrize("content", [None, [], {}, {"choices": []}, {"choices": [{"message": 7}]}])
def test_what_is_no_chat_completion_is_no_turn(content: object) -> None:
    assert read_turn(content, ()) is None


def test_evaluate_takes_a_served_model(
    server: Any,
    settings_without_model: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every answer of the held-out problems is 3."""
    options = as_options(
        [*settings_without_model, "engine=openai", f"engine.base_url={server.url}"]
    )
    path = tmp_path / "report.json"
    assert main(["evaluate", "solve:3", *options, "--json", str(path)]) == 0
    [report] = json.loads(path.read_text(encoding="utf-8"))["sets"].values()
    assert (report["mean_at_k"], report["response_tokens"], report["call_rate"]) == (1.0, 5.0, 0.0)
    assert "solve:3, alone: 4 problems" in capsys.readouterr().out

    assert main(["evaluate", "status:401", *options]) == 2
    assert f"eapo: status:401 at {server.url}: AuthenticationError" in capsys.readouterr().err
    keyed = ["--set", "engine.api_key_env=EAPO_TESTS_HAVE_NO_SUCH_KEY"]
    assert main(["evaluate", "solve:3", *options, *keyed]) == 2
    assert "EAPO_TESTS_HAVE_NO_SUCH_KEY holds no key" in capsys.readouterr().err
    assert main(["train", *options, "--runs", str(tmp_path)]) == 2
    assert "can be evaluated, not trained" in capsys.readouterr().err
