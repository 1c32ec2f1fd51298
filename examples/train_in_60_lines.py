"""A whole training in the open: rollout, advantage, loss, update; no trainer, learner or config.

    python examples/train_in_60_lines.py --steps 20

It trains the embedded model, a Llama of a million parameters, on made-up sums, with an expert who
is withdrawn as the training goes on. Left out are all refinements: clipping, dynamic sampling,
micro-batches, evaluation, checkpoints; `eapo_agents.Learner` and `eapo_agents.Trainer` have them.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from eapo_agents import Group, HFPolicy, Rollout, TokenLimits
from eapo_agents.policies import ModelSettings, load_model
from eapo_env import Annealing, Prompts, Verifier, synthetic_experts, synthetic_problems


async def play(rollout: Rollout, annealing: Annealing, step: int, groups: int) -> list[Group]:
    """Rollout: play groups of eight episodes, all at the same time, under the step's rules."""
    problems = synthetic_problems(groups, brackets=3, seed=step)
    rules = [annealing.rules_at(step, draw) for draw in np.linspace(0, 0.99, 8)]
    played = (rollout.play_group(p, rules, seed=step * 1000 + n) for n, p in enumerate(problems))
    return list(await asyncio.gather(*played))


def advantages(group: Group) -> np.ndarray:
    """Advantage: how much better than its group each episode did, in standard deviations."""
    rewards_G = group.rewards_G
    return np.asarray((rewards_G - rewards_G.mean()) / (rewards_G.std() + 1e-6))


def loss(model: torch.nn.Module, group: Group) -> torch.Tensor:
    """Loss: -A log pi of the tokens that the policy wrote; what it only read is masked out."""
    ids_GT = pad_sequence([torch.tensor(one.token_ids) for one in group.trajectories], True).long()
    mask_GT = pad_sequence([torch.tensor(one.mask) for one in group.trajectories], True)
    logits_GTV: torch.Tensor = model(input_ids=ids_GT[:, :-1]).logits
    logp_GT = logits_GTV.log_softmax(-1).gather(2, ids_GT[:, 1:, None])[..., 0]
    advantage_G = torch.tensor(advantages(group))
    return -(advantage_G[:, None] * logp_GT * mask_GT[:, 1:]).sum()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and print what each step did."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--groups", type=int, default=8, help="problems a step")
    options = parser.parse_args(arguments)
    model, tokenizer = load_model(ModelSettings())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    annealing = Annealing(steps=options.steps, schedule="ours_linear", turn_budget=2)
    with Verifier() as verifier:
        rollout = Rollout(
            policy=HFPolicy(model, tokenizer),  # samples from the weights that are trained
            experts=synthetic_experts(),
            verifier=verifier,
            prompts=Prompts.terse(),
            limits=TokenLimits(max_response_tokens=256, max_reply_tokens=32),
        )
        for step in range(1, options.steps + 1):
            groups = asyncio.run(play(rollout, annealing, step, options.groups))
            tokens = sum(group.num_policy_tokens for group in groups)
            for group in groups:
                (loss(model, group) / tokens).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()  # update
            optimizer.zero_grad()
            played = [one for group in groups for one in group.trajectories]
            accuracy = np.mean([one.correct for one in played])
            calls = np.mean([one.episode.num_queries > 0 for one in played])
            print(f"step {step:3}  accuracy {accuracy:.2f}  call rate {calls:.2f}")


if __name__ == "__main__":
    main()
