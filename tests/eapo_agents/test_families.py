"""Families of language models: what an episode reads, who agrees, what a checkpoint keeps.

What a family cannot do here stands in `docs/families.md`, and is refused at the start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import family_table
import numpy as np
import pytest
import torch
import transformers
from asked import gap, together
from families import FAMILIES, SHAPES, Family, made
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from eapo_agents.learning import Learner, LearnerSettings
from eapo_agents.policies import Chat, Completion, HFPolicy, ModelSettings, Sampling, load_model
from eapo_agents.policies.decoding import StopTable
from eapo_agents.rollouts import Demonstration, Rollout, Trajectory
from eapo_agents.testing import ScriptedPolicy
from eapo_env.actions import Consult, render_consult
from eapo_env.experts import ScriptedExperts
from eapo_env.types import Message, Problem, Rules
from eapo_env.verifier import Verifier

PROBLEM = Problem(id="p", statement="What is 2 + 3?\n x = 4", answer="5")
ROWS = family_table.rows()

each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.models)


def loaded(family: Family, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    path = str(made(family, folder / "model"))
    return load_model(ModelSettings(path=path, attention=family.attention))


class Recorded(ScriptedPolicy):
    """A scripted policy that remembers what it read and wrote."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> None:
        super().__init__(tokenizer, texts)
        self.calls: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    async def complete(
        self, prompt_ids: Sequence[int], sampling: Sampling, seed: int
    ) -> Completion:
        completion = await super().complete(prompt_ids, sampling, seed)
        self.calls.append((tuple(prompt_ids), completion.token_ids))
        return completion


def played(tokenizer: PreTrainedTokenizerBase) -> tuple[Trajectory, Recorded]:
    """Return an episode that consults and then answers, and the policy that wrote it."""
    thought = "So</think>\n" if Chat(tokenizer).opened else ""
    policy = Recorded(
        tokenizer, [thought + render_consult(Consult(("2 + 3?",))), thought + r"It is \boxed{5}"]
    )
    experts = ScriptedExperts(lambda query: "2 + 3 = 5\n so 5")
    rollout = Rollout(policy=policy, experts=experts, verifier=Verifier())
    return asyncio.run(rollout.play(PROBLEM, Rules(turn_budget=3), seed=1)), policy


@each_family
def test_an_episode_reads_what_the_template_writes(family: Family, tmp_path: Path) -> None:
    model, tokenizer = loaded(family, tmp_path)
    trajectory, policy = played(tokenizer)
    (opening, consulted), (second, answered) = policy.calls
    messages = [{"role": m.role, "content": m.content} for m in trajectory.episode.messages]
    theirs = tokenizer.apply_chat_template(
        messages[:-3], add_generation_prompt=True, return_dict=False
    )
    if "strftime_now" not in SHAPES[family.shape].template:
        assert list(opening) == theirs
    assert trajectory.status == "correct"
    assert trajectory.episode.num_queries == 1
    # The history only grows, and the mask holds exactly what was sampled.
    assert second[: len(opening) + len(consulted)] == opening + consulted
    assert tuple(trajectory.token_ids) == second + answered
    between = len(second) - len(opening) - len(consulted)
    masks = [False] * len(opening) + [True] * len(consulted) + [False] * between
    assert trajectory.mask.tolist() == masks + [True] * len(answered)
    assert "2 + 3 = 5\n so 5" in tokenizer.decode(second[-between:])
    # The end of turn that the template writes is known, and written once.
    end = SHAPES[family.shape].end_of_turn
    chat = Chat(tokenizer)
    assert chat.end_of_turn == (end and tokenizer.convert_tokens_to_ids(end))
    message = Message("user", "Go on.")
    reply = chat.reply(message, after=-1)
    if end:
        assert chat.end_of_turn in StopTable(model, tokenizer).ends
        assert reply[0] == chat.end_of_turn
        assert chat.reply(message, after=reply[0]) == reply[1:]


@each_family
def test_what_runs_is_in_the_table(family: Family, tmp_path: Path) -> None:
    row = family_table.measured(family, tmp_path / "model")
    expected = {column: ROWS[family.models][column] for column in family_table.HERE}
    if transformers.__version__ != family_table.MEASURED_WITH:  # a newer release may do more
        expected = {name: row[name] if word == "no" else word for name, word in expected.items()}
    assert row == expected


@each_family
def test_sampler_and_learner_agree_with_a_plain_forward_pass(
    family: Family, tmp_path: Path
) -> None:
    row, (model, tokenizer) = ROWS[family.models], loaded(family, tmp_path)
    ids = Chat(tokenizer).opening([Message("user", PROBLEM.statement)])
    lengths = (len(ids), 7, 21)
    if row["hf"] == "yes":
        policy = HFPolicy(model, tokenizer)
        sampling, room = Sampling(max_tokens=6), policy.max_context_tokens - 6
        asked = [((ids * 2)[: min(n, room)], sampling, seed) for seed, n in enumerate(lengths)]
        for request, done in zip(asked, together(policy, asked), strict=True):
            assert gap(model, request, done) < 2e-3
    records = [
        Demonstration(token_ids=np.array((ids * 2)[:n], np.int32), mask=np.arange(n) > 3)
        for n in lengths
    ]
    for layout in family_table.LAYOUTS:
        if row[layout] == "yes":
            learner = Learner(model, settings=LearnerSettings(device="cpu", layout=layout))
            for record, found in zip(records, learner.logprobs(records), strict=True):
                assert np.abs(found - plain(model, record))[record.mask].max() < 2e-3


@torch.no_grad()
def plain(model: PreTrainedModel, record: Demonstration) -> np.ndarray:
    """Return each id's log-probability from one forward pass of the row alone; 0 for the first."""
    ids = torch.tensor(np.asarray(record.token_ids), dtype=torch.long)
    logp = torch.log_softmax(model(ids[None]).logits[0, :-1].float(), -1)
    chosen = logp.gather(1, ids[1:, None])[:, 0]
    return np.concatenate([[0.0], chosen.numpy()])


@each_family
def test_a_checkpoint_is_the_model_again(family: Family, tmp_path: Path) -> None:
    model, tokenizer = loaded(family, tmp_path)
    Learner(model, settings=LearnerSettings(device="cpu")).save(tmp_path / "checkpoint")
    tokenizer.save_pretrained(tmp_path / "checkpoint")
    settings = ModelSettings(path=str(tmp_path / "checkpoint"), attention=family.attention)
    again, its_tokenizer = load_model(settings)
    weights = again.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    assert StopTable(again, its_tokenizer).ends == StopTable(model, tokenizer).ends
    first, second = played(tokenizer)[0], played(its_tokenizer)[0]
    assert first.token_ids.tolist() == second.token_ids.tolist()
