"""Pretraining: demonstrations are laid out as rollouts lay them out; a tiny run, end to end."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from eapo_agents.policies.chat import Chat
from eapo_agents.policies.models import ModelSettings, load_model
from eapo_agents.reproduction.pretraining import Pretraining
from eapo_agents.rollouts.rollout import Rollout
from eapo_agents.rollouts.trajectory import encode
from eapo_agents.testing import ScriptedPolicy
from eapo_env.demonstrator import NoisyDemonstrator
from eapo_env.episode import Episode
from eapo_env.prompts import Prompts
from eapo_env.types import ExpertReply, Query
from eapo_env.verifier import Verifier

TINY = Pretraining(copying_steps=1, arithmetic_steps=1, format_steps=1, noisy_steps=1, batch_size=4)


class RecordedReplies:
    """Experts that reply as they did in a demonstration, turn by turn."""

    def __init__(self, episode: Episode) -> None:
        self._replies = {
            query: reply
            for c in episode.consultations
            for query, reply in zip(c.queries, c.replies, strict=True)
        }

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        return [self._replies[replace(query, seed=0)] for query in queries]


def test_a_demonstration_is_laid_out_as_its_rollout(
    tokenizer: PreTrainedTokenizerFast, verifier: Verifier
) -> None:
    rng, compared = np.random.default_rng(0), 0
    for _ in range(60):
        demonstration = NoisyDemonstrator().demonstrate(rng)
        accepted = [a for c in demonstration.consultations for a in c.accepted]
        rate = 1.0 if all(accepted) else 0.0  # the gate must decide as it did
        if not (all(accepted) or not any(accepted)):
            continue
        policy = ScriptedPolicy(
            tokenizer, [m.content for m in demonstration.messages if m.role == "assistant"]
        )
        rollout = Rollout(
            policy=policy,
            experts=RecordedReplies(demonstration),
            verifier=verifier,
            prompts=Prompts.terse(),
        )
        rules = replace(demonstration.rules, acceptance_rate=rate)
        played = asyncio.run(rollout.play(demonstration.problem, rules, seed=1))
        encoded = encode(demonstration, Chat(tokenizer))
        assert played.token_ids.tolist() == encoded.token_ids.tolist()
        assert played.mask.tolist() == encoded.mask.tolist()
        compared += bool(demonstration.consultations)
    assert compared > 5, "some of those that were compared consulted"


def test_a_tiny_pretraining_makes_a_model_that_loads(tmp_path: Path) -> None:
    losses: list[float] = []
    TINY.run(f"{tmp_path}/model", losses.append)
    assert len(losses) == TINY.steps == 4
    assert all(np.isfinite(losses))
    model, tokenizer = load_model(ModelSettings(path=str(tmp_path / "model")))
    assert 0.5e6 < model.num_parameters() < 1.5e6
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert tokenizer.decode(tokenizer.encode("(1+2)")) == "(1+2)"
    weights = tmp_path / "model" / "model.safetensors"
    assert weights.stat().st_size <= 3e6
    mode = (tmp_path / "model" / "config.json").stat().st_mode
    assert stat.S_IMODE(weights.stat().st_mode) == stat.S_IMODE(mode)


def test_pretraining_touches_no_file_of_others(tmp_path: Path) -> None:
    own = tmp_path / "script.sh"
    own.write_text("", encoding="utf-8")
    own.chmod(0o700)
    replace(TINY, copying_steps=0, arithmetic_steps=0, noisy_steps=0, batch_size=1).run(
        tmp_path, lambda _: None
    )
    assert stat.S_IMODE(own.stat().st_mode) == 0o700


def test_the_same_seed_makes_the_same_model(tmp_path: Path) -> None:
    settings = replace(TINY, arithmetic_steps=1, format_steps=1)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        replace(settings, seed=seed).run(tmp_path / name, lambda _: None)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_a_few_steps_lower_the_loss(tmp_path: Path) -> None:
    losses: list[float] = []
    settings = Pretraining(
        copying_steps=0,
        arithmetic_steps=12,
        format_steps=0,
        noisy_steps=0,
        batch_size=8,
        learning_rate=2e-2,
    )
    settings.run(tmp_path, losses.append)
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.5


@pytest.mark.parametrize("bad", [{"batch_size": 0}, {"format_steps": -1}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(bad))}={next(iter(bad.values()))}"):
        Pretraining(**bad)
