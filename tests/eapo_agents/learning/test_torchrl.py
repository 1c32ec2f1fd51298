"""TorchRL beside ours: its environment wrapper, and its GRPO loss on our trajectories."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tensordict import TensorDict, lazy_stack
from tiny_llama import tiny_llama
from torchrl.envs.libs.gym import GymEnv
from torchrl.modules.llm import TransformersWrapper
from torchrl.objectives.llm import GRPOLoss
from transformers import PreTrainedTokenizerFast

import eapo_env  # noqa: F401, registers EAPO-Math-v0
from eapo_agents.learning import LossInputs, dapo_loss
from eapo_agents.learning.advantages import group_advantages
from eapo_agents.rollouts import Trajectory
from eapo_env.episode import begin
from eapo_env.types import Problem, Rules

PROBLEM = Problem(id="p", statement="p", answer="2")


def test_gym_env_plays_an_episode() -> None:
    env = GymEnv("EAPO-Math-v0")
    opening = env.reset()
    assert opening["observation"].startswith("[user]\n")
    opening["action"] = "I pass."
    after = env.step(opening)["next"]
    assert not after["done"].item()
    after["action"] = r"\boxed{no}"
    end = env.step(after)["next"]
    assert end["terminated"].item()
    assert end["reward"].item() == 0.0
    env.close()


def trajectory(rng: np.random.Generator, reward: float) -> Trajectory:
    """Two turns of the policy among what it only reads, of a random length."""
    lengths = rng.integers(3, 9, 4)
    mask = np.repeat([False, True, False, True], lengths)
    size = int(lengths.sum())
    return Trajectory(
        token_ids=rng.integers(3, 120, size).astype(np.int32),
        mask=mask,
        logprobs=np.where(mask, -5 + rng.normal(0, 0.3, size), 0).astype(np.float32),
        reward=reward,
        status="correct" if reward else "wrong",
        correct=bool(reward),
        episode=begin(PROBLEM, Rules()),
    )


def test_its_grpo_loss_is_ours(tokenizer: PreTrainedTokenizerFast) -> None:
    """Ratios to the sampler, clipped on both sides; the mean over the policy's tokens."""
    rng = np.random.default_rng(0)
    rewards = np.array([1.0, 0.0, 0.0, 1.0, 0.0, 0.0])
    played = [trajectory(rng, reward) for reward in rewards]
    advantages = group_advantages(rewards)
    model = tiny_llama()

    loss_module = GRPOLoss(
        TransformersWrapper(
            model, tokenizer=tokenizer, input_mode="tokens", generate=False, return_log_probs=True
        ),
        clip_epsilon=(0.2, 0.28),
        masking_strategy="rlhf",
        entropy_bonus=False,
    )
    theirs = loss_module(batch_of(played, advantages)).loss_objective
    theirs.backward()
    their_gradients = taken_gradients(model)

    inputs = [
        inputs_of(model, one, advantage, played)
        for one, advantage in zip(played, advantages, strict=True)
    ]
    ours = sum(dapo_loss(one, dual_clip=None, importance_cap=None).loss for one in inputs)
    assert isinstance(ours, torch.Tensor)
    ours.backward()
    clipped = sum(
        float(dapo_loss(one, dual_clip=None, importance_cap=None).sums["clip_high_rate"])
        for one in inputs
    )
    assert clipped > 0
    assert theirs.item() == pytest.approx(ours.item(), abs=1e-5)
    torch.testing.assert_close(their_gradients, taken_gradients(model), atol=1e-5, rtol=1e-4)


def batch_of(played: list[Trajectory], advantages: np.ndarray) -> TensorDict:
    """Return what TorchRL reads: ragged sequences, a mask of what the policy sampled."""
    rows = []
    for one, advantage in zip(played, advantages, strict=True):
        size = one.num_tokens
        rows.append(
            TensorDict(
                {
                    ("tokens", "full"): torch.tensor(one.token_ids).long(),
                    ("masks", "all_attention_mask"): torch.ones(size, dtype=torch.bool),
                    ("masks", "all_assistant_mask"): torch.tensor(one.mask),
                    ("log_probs", "full"): torch.tensor(one.logprobs),
                    "advantage": torch.tensor([[float(advantage)]]),  # of all tokens alike
                }
            )
        )
    return lazy_stack(rows)


def inputs_of(
    model: torch.nn.Module, one: Trajectory, advantage: float, played: list[Trajectory]
) -> LossInputs:
    ids_1T = torch.tensor(one.token_ids)[None].long()
    logp_1TV = model(input_ids=ids_1T[:, :-1]).logits.log_softmax(-1)
    logp_1T = logp_1TV.gather(2, ids_1T[:, 1:, None])[..., 0]
    sampler_1T = torch.tensor(one.logprobs)[None, 1:]
    tokens = sum(each.num_policy_tokens for each in played)
    return LossInputs(
        logp_BT=logp_1T,
        logp_old_BT=sampler_1T,
        logp_sampler_BT=sampler_1T,
        advantage_B=torch.tensor([advantage], dtype=torch.float32),
        mask_BT=torch.tensor(one.mask)[None, 1:],
        num_group_tokens_B=torch.tensor([float(tokens)]),
        num_tokens=float(tokens),
        num_sequences=float(len(played)),
        num_groups=1.0,
    )


def taken_gradients(model: torch.nn.Module) -> torch.Tensor:
    flat = torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])
    model.zero_grad()
    return flat
