"""Time one update of the learner: tokens per second, against a plain implementation.

The plain update pads every sequence on the left to the longest, in one batch with an attention
mask, and computes logits at every position, as a first version would. Both compute the same
gradient (the relative difference of the two is printed). On a machine with other tenants read the
CPU seconds. Random ids, a random 1M-parameter model.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/learner.py --threads 2
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from shapes import SHAPES
from transformers import Qwen2ForCausalLM

from eapo_agents.learning import Learner, LearnerSettings, group_advantages, rows_of_groups
from eapo_agents.policies import with_fast_linears
from eapo_agents.rollouts import Group, Trajectory
from eapo_env.episode import begin
from eapo_env.types import Problem, Rules

SMALL = SHAPES["1M"]
LENGTHS = {
    "ragged: 36 + 8..220 ids": (36, 8, 220),
    "TRL's shape: 36 + 64 ids": (36, 64, 64),
}


def make_groups(prompt: int, shortest: int, longest: int) -> list[Group]:
    """Return 16 groups of 8 with completions of uniformly drawn lengths."""
    rng = np.random.default_rng(0)
    problem = Problem(id="p", statement="1 + 1 = ?", answer="2")
    episode = begin(problem, Rules(), seed=0)

    def trajectory(member: int) -> Trajectory:
        length = prompt + int(rng.integers(shortest, longest + 1))
        mask = np.arange(length) >= prompt
        return Trajectory(
            token_ids=rng.integers(1, SMALL.vocabulary, length, np.int32),
            mask=mask,
            logprobs=np.where(mask, -np.log(SMALL.vocabulary), 0.0),
            reward=float(member % 3 == 0),
            status="correct",
            correct=member % 3 == 0,
            episode=episode,
        )

    return [
        Group(problem=problem, trajectories=tuple(map(trajectory, range(8)))) for _ in range(16)
    ]


def plain_update(
    model: Qwen2ForCausalLM, optimizer: torch.optim.Optimizer, groups: list[Group]
) -> None:
    """DAPO at ratio 1, one left-padded batch, logits everywhere."""
    rows = rows_of_groups(groups, group_advantages)
    width = max(row.record.num_tokens for row in rows)
    ids_BT = torch.zeros(len(rows), width, dtype=torch.int64)
    mask_BT, real_BT = (torch.zeros(len(rows), width, dtype=torch.bool) for _ in range(2))
    sampler_BT = torch.zeros(len(rows), width)
    for b, row in enumerate(rows):
        start = width - row.record.num_tokens
        ids_BT[b, start:] = torch.tensor(row.record.token_ids)
        mask_BT[b, start:], real_BT[b, start:] = torch.tensor(row.record.mask), True
        sampler_BT[b, start:] = torch.tensor(row.logprobs)
    logits_BTV = model(
        input_ids=ids_BT,
        attention_mask=real_BT.long(),
        position_ids=(real_BT.long().cumsum(1) - 1).clamp(min=0),
        use_cache=False,
    ).logits[:, :-1]
    logp_BT = logits_BTV.log_softmax(-1).gather(-1, ids_BT[:, 1:, None])[..., 0]
    weight_BT = (logp_BT.detach() - sampler_BT[:, 1:]).exp().clamp(max=2.0) * mask_BT[:, 1:]
    advantage_B1 = torch.tensor([[row.advantage] for row in rows])
    optimizer.zero_grad()
    (-(advantage_B1 * weight_BT * logp_BT).sum() / mask_BT.sum()).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def gradient(model: Qwen2ForCausalLM) -> torch.Tensor:
    return torch.cat([weight.grad.flatten() for weight in model.parameters()])


def seconds(update: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Return the least wall-clock and CPU seconds of an update, after one to warm up."""
    wall, cpu = [], []
    for _ in range(repeats + 1):
        start = time.perf_counter(), time.process_time()
        update()
        wall.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
    return min(wall[1:]), min(cpu[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    base = LearnerSettings(device="cpu", learning_rate=0.0, weight_decay=0.0)
    layouts: list[tuple[Literal["padded", "packed"], int]] = [
        ("padded", 1024),
        ("padded", 4096),
        ("padded", 32768),
        ("packed", 1024),
    ]
    ways = {
        f"{layout}, {tokens} tokens": replace(base, layout=layout, max_batch_tokens=tokens)
        for layout, tokens in layouts
    } | {"padded, 4096 tokens, bfloat16": replace(base, precision="bfloat16")}
    print("| 128 sequences | update | s | CPU s | tokens/s | CPU ratio | gradient differs by |")
    print("|---|---|---|---|---|---|---|")
    for shape, lengths in LENGTHS.items():
        groups = make_groups(*lengths)
        num_tokens = sum(t.num_tokens for group in groups for t in group.trajectories)
        plain = SMALL.model()
        optimizer = torch.optim.AdamW(plain.parameters(), lr=0.0, fused=True)
        wall, base_cpu = seconds(partial(plain_update, plain, optimizer, groups), options.repeats)
        expected = gradient(plain)
        row = f"| {shape} | plain | {wall:.2f} | {base_cpu:.2f} | {num_tokens / wall:,.0f} "
        print(row + "| 1.00 | - |", flush=True)
        for name, way in ways.items():
            learner = Learner(with_fast_linears(SMALL.model()), settings=way)
            wall, cpu = seconds(partial(learner.update, groups), options.repeats)
            apart = (gradient(learner.model) - expected).norm() / expected.norm()
            row = f"| {shape} | {name} | {wall:.2f} | {cpu:.2f} | {num_tokens / wall:,.0f} "
            print(row + f"| {cpu / base_cpu:.2f} | {apart:.1e} |", flush=True)


if __name__ == "__main__":
    main()
