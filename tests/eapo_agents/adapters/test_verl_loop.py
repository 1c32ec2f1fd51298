"""The agent loop of verl against a scripted client: mask, log-probabilities, limits, the stop text.

Needs verl: `make test-verl`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

pytest.importorskip("verl")

from families import family_of, made
from omegaconf import OmegaConf
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from verl.experimental.agent_loop.agent_loop import (
    AgentLoopOutput,
    DictConfigWrap,
    _agent_loop_registry,
)
from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder
from verl.workers.rollout.replica import TokenOutput

from eapo_agents.adapters.verl_config import verl_rows
from eapo_agents.adapters.verl_loop import EapoAgentLoop
from eapo_agents.policies import EMBEDDED, char_tokenizer
from eapo_agents.training.presets import embedded
from eapo_env.actions import CONSULT_CLOSE, Consult, render_consult
from eapo_env.types import Problem, Rules
from eapo_env.validation import UserError

PROBLEM = Problem(id="p", statement="((3 + 4))", answer="7", source="mine")
CONSULT = render_consult(Consult(("3 + 4 = ?", "3 + 4 = ?")))
PARAMS = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0}


class ScriptedClient:
    """verl's client of its servers, which writes texts; a log-probability tells its place.

    Args:
        seam: after so many tokens a request is interrupted and resumed, as verl does with partial
            rollouts: its server then looks for stop texts from there on.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], seam: int = 0
    ) -> None:
        self.tokenizer, self.texts, self.seam = tokenizer, list(texts), seam
        self.calls: list[tuple[str, list[int], dict[str, Any]]] = []

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]
    ) -> TokenOutput:
        text = self.texts[min(len(self.calls), len(self.texts) - 1)]
        self.calls.append((request_id, prompt_ids, dict(sampling_params)))
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        ids = self._stopped([*ids, self.tokenizer.eos_token_id], sampling_params.get("stop", ()))
        ids = ids[: sampling_params["max_tokens"]]
        return TokenOutput(
            token_ids=ids,
            log_probs=[-(place + 1) / 1024 for place in range(len(ids))],
            stop_reason="completed",
            extra_fields={"min_global_steps": len(self.calls), "max_global_steps": 9},
        )

    def _stopped(self, ids: list[int], stop: Sequence[str]) -> list[int]:
        for length in range(self.seam + 1, len(ids)):
            text = self.tokenizer.decode(ids[self.seam : length])
            if any(mark in text for mark in stop):
                return ids[:length]
        return ids


def config(**changes: Any) -> dict[str, Any]:
    rollout = {
        "n": 4,
        "prompt_length": 400,
        "response_length": 600,
        "max_model_len": None,
        **changes,
    }
    return {
        "eapo": {"preset": "embedded", "annealing": {"schedule": "power"}},
        "actor_rollout_ref": {"rollout": rollout, "model": {"path": EMBEDDED}},
        "trainer": {"total_training_steps": 8},
        "data": {},
    }


def loop(client: ScriptedClient, verl: Mapping[str, Any] | None = None, **others: Any) -> Any:
    return EapoAgentLoop(
        trainer_config=DictConfigWrap(OmegaConf.create(verl or config())),
        server_manager=client,
        tokenizer=client.tokenizer,
        **others,
    )


def row(*, alone: bool = False, step: int = 1, member: int = 0) -> dict[str, Any]:
    [found] = verl_rows([PROBLEM], embedded(), rules=Rules.alone() if alone else Rules())
    return {**found, "global_steps": step, "session_id": member, "uid": "u", "index": 0}


def play(client: ScriptedClient, verl: Mapping[str, Any] | None = None, **which: Any) -> Any:
    return asyncio.run(loop(client, verl).run(dict(PARAMS), **row(**which)))


@cache
def characters() -> PreTrainedTokenizerBase:
    return char_tokenizer()


def test_verl_finds_the_loop_by_its_plug_in() -> None:
    target = f"{EapoAgentLoop.__module__}.{EapoAgentLoop.__qualname__}"
    assert _agent_loop_registry["eapo"] == {"_target_": target}


def test_ids_mask_and_logprobs_are_those_of_the_episode() -> None:
    client = ScriptedClient(characters(), [CONSULT, "\\boxed{7}"])
    output: AgentLoopOutput = play(client)
    (first, opening, params), (again, second, _) = client.calls
    assert first == again  # a sticky session
    assert params["stop"] == [CONSULT_CLOSE]
    assert params["include_stop_str_in_output"]
    assert output.prompt_ids == opening
    turn = characters().encode(CONSULT, add_special_tokens=False)
    assert second[: len(opening) + len(turn)] == opening + turn
    reply = second[len(opening) + len(turn) :]
    answer = [
        *characters().encode("\\boxed{7}", add_special_tokens=False),
        characters().eos_token_id,
    ]
    assert output.response_ids == turn + reply + answer
    assert output.response_mask == [1] * len(turn) + [0] * len(reply) + [1] * len(answer)
    expected = [-(place + 1) / 1024 for place in range(len(turn))] + [0.0] * len(reply)
    expected += [-(place + 1) / 1024 for place in range(len(answer))]
    assert output.response_logprobs == expected
    assert output.reward_score == 1.0
    assert output.num_turns == 4
    said = output.extra_fields["reward_extra_info"]
    assert said == {
        "acc": 1.0,
        "acceptance_rate": 1.0,
        "turn_budget": 2.0,
        "queries": 2.0,
        "accepted": 2.0,
        "expert_prompt_tokens": 0.0,
        "expert_completion_tokens": 0.0,
        "expert_cost": 0.0,
    }
    versions = (output.extra_fields["min_global_steps"], output.extra_fields["max_global_steps"])
    assert versions == (1, 9)


@given(st.integers(0, len(CONSULT)), st.text(alphabet="<>/consult 7", max_size=20))
@settings(max_examples=40, deadline=None)
def test_a_stop_text_across_a_resumed_request_ends_the_turn(seam: int, after: str) -> None:
    whole = play(ScriptedClient(characters(), [CONSULT, "\\boxed{7}"]))
    resumed = play(ScriptedClient(characters(), [CONSULT + after, "\\boxed{7}"], seam=seam))
    assert resumed.response_ids == whole.response_ids
    assert resumed.response_logprobs == whole.response_logprobs


def test_rows_of_validation_are_played_alone_with_verls_own_parameters() -> None:
    client = ScriptedClient(characters(), ["\\boxed{7}"])
    output = asyncio.run(loop(client).run({**PARAMS, "temperature": 0.2}, **row(alone=True)))
    [(_, prompt, params)] = client.calls
    assert "stop" not in params
    assert params["temperature"] == 0.2
    assert "expert" not in characters().decode(prompt).lower()
    assert output.extra_fields["reward_extra_info"]["acceptance_rate"] == 0.0


@given(st.integers(1, 10))
@settings(max_examples=10, deadline=None)
def test_the_acceptance_rate_is_that_of_verls_global_step(step: int) -> None:
    output = play(ScriptedClient(characters(), ["\\boxed{7}"]), step=step)
    rate = output.extra_fields["reward_extra_info"]["acceptance_rate"]
    assert rate == (pytest.approx(1 / step) if step <= 8 else 0.0)


@given(st.integers(1, 400), st.integers(30, 600), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_a_response_is_within_verls_limits_and_ends_with_the_policy(
    response_length: int, room: int, seed: int
) -> None:
    rng = random.Random(seed)
    texts = [rng.choice([CONSULT, "x" * 30, "\\boxed{7}"]) for _ in range(10)]
    opening = len(play(ScriptedClient(characters(), ["\\boxed{7}"])).prompt_ids)
    verl = config(response_length=response_length, max_model_len=opening + room)
    output = play(ScriptedClient(characters(), texts), verl)
    assert len(output.prompt_ids) == opening
    assert 1 <= len(output.response_ids) <= min(response_length, room)
    assert output.response_mask[0] == output.response_mask[-1] == 1
    assert len(output.response_ids) == len(output.response_mask) == len(output.response_logprobs)


def test_r1s_tokenizer_which_verls_own_loops_refuse(tmp_path: Path) -> None:
    folder = made(family_of("R1-Distill-Qwen"), tmp_path / "r1")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.unk_token = None  # as released
    client = ScriptedClient(
        tokenizer, [f"We ask.\n</think>\n{CONSULT}", "So.\n</think>\n\\boxed{7}"]
    )
    parts: dict[str, Any] = {
        "processor": None,
        "dataset_cls": None,
        "data_config": DictConfigWrap(OmegaConf.create({})),
        "hf_model_type": "qwen2",
    }
    verl = config()
    verl["eapo"]["rollout"] = {"wording": "terse"}
    output = asyncio.run(loop(client, verl, **parts).run(dict(PARAMS), **row()))
    assert output.reward_score == 1.0
    text = tokenizer.decode(output.prompt_ids + output.response_ids)
    assert text.count("<｜Assistant｜><think>\n") == 2
    assert text.count("<｜end▁of▁sentence｜>") == 2
    with pytest.raises(ValueError, match="does not define required token"):
        create_continuous_token_builder(tokenizer, hf_model_type="qwen2")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"global_steps": None}, "trainer.use_v1 must be True"),
        ({"session_id": 4}, r"member must be in \[0, 4\), not 4"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(change: dict[str, Any], said: str) -> None:
    given = {name: value for name, value in {**row(), **change}.items() if value is not None}
    client = ScriptedClient(characters(), ["\\boxed{7}"])
    with pytest.raises(UserError, match=said):
        asyncio.run(loop(client).run(dict(PARAMS), **given))


def test_a_server_without_logprobs_is_named() -> None:
    class WithoutLogprobs(ScriptedClient):
        async def generate(self, *which: Any, **how: Any) -> TokenOutput:
            return (await super().generate(*which, **how)).model_copy(update={"log_probs": None})

    with pytest.raises(UserError, match="calculate_log_probs must be True"):
        play(WithoutLogprobs(characters(), ["\\boxed{7}"]))
