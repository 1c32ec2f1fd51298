"""Print policy tokens per second: `HFPolicy` beside transformers' `generate`, in the same run.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/generate.py

Equal: rows whose prompts and completions are equally long. Ragged: prompts of 16-200 and
completions of 4-256 ids, where `generate` carries every row to the end of the longest. Only
sampled ids that were asked for count. The model is small and fresh, in float32 on the CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from completions import Work, endless_tokenizer, ragged_work
from shapes import SHAPES
from transformers import PreTrainedModel

from eapo_agents.policies import HFPolicy, Sampling, with_fast_linears


def equal_work(num_rows: int, rng: np.random.Generator) -> Work:
    return [(rng.integers(4, 109, 64).tolist(), 64) for _ in range(num_rows)]


def grouped_work(num_rows: int, rng: np.random.Generator) -> Work:
    """Groups of 16 that share a prompt, as in training."""
    return [work for work in ragged_work(num_rows // 16, rng) for _ in range(16)]


def run_policy(policy: HFPolicy, work: Work) -> None:
    async def together() -> None:
        completions = await asyncio.gather(
            *(
                policy.complete(prompt, Sampling(max_tokens=length), seed)
                for seed, (prompt, length) in enumerate(work)
            )
        )
        assert [len(completion.token_ids) for completion in completions] == [n for _, n in work]

    asyncio.run(together())


@torch.inference_mode()
def run_generate(model: PreTrainedModel, work: Work, batch: int) -> None:
    for start in range(0, len(work), batch):
        rows = work[start : start + batch]
        width, longest = max(len(ids) for ids, _ in rows), max(length for _, length in rows)
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt, _ in rows])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt, _ in rows])
        completed = model.generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            max_new_tokens=longest,
            pad_token_id=0,
        )
        assert completed.shape == (len(rows), width + longest)


def tokens_per_second(run: Callable[[], None], work: Work, repeats: int) -> float:
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return sum(length for _, length in work) / statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, rng = with_fast_linears(SHAPES["1M"].model().eval()), np.random.default_rng(0)
    policy = HFPolicy(model, endless_tokenizer())
    cases = {
        "16 equal": equal_work(16, rng),
        "128 equal": equal_work(128, rng),
        "256 ragged": ragged_work(256, rng),
        "256 ragged, groups of 16": grouped_work(256, rng),
    }
    print(f"{args.threads} threads, torch {torch.__version__}")
    print("| tokens/s | HFPolicy | generate | ratio |\n|---|---|---|---|")
    for name, work in cases.items():
        ours = tokens_per_second(partial(run_policy, policy, work), work, args.repeats)
        theirs = tokens_per_second(partial(run_generate, model, work, 256), work, args.repeats)
        print(f"| {name} | {ours:,.0f} | {theirs:,.0f} | {ours / theirs:.1f} |", flush=True)


if __name__ == "__main__":
    main()
