"""Print policy tokens per second: `HFPolicy` beside transformers' `generate`, in the same run.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/generate.py

Equal: rows whose prompts and completions are equally long. Ragged: prompts of 16-200 and
completions of 4-256 ids, where `generate` carries every row to the end of the longest. Only
sampled ids that were asked for count. The model is small and fresh, in float32 on the CPU.

With `--model FOLDER`, a real model's 64 episodes instead: the first turns of 8 problems of the
preset `local` by 8, each as long as the model makes it, on either side; `generate` then runs the
model as transformers loads it, ours with the linear layers that `load_model` chooses.

The two take turns, and the ratio is also of CPU seconds, which other load on the machine changes
less.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from completions import Work, endless_tokenizer, ragged_work
from shapes import SHAPES
from transformers import AutoModelForCausalLM, PreTrainedModel

from eapo_agents.policies import (
    Chat,
    HFPolicy,
    ModelSettings,
    Sampling,
    load_model,
    with_fast_linears,
)
from eapo_agents.training import presets
from eapo_env.prompts import Prompts
from eapo_env.types import Rules


def equal_work(num_rows: int, rng: np.random.Generator) -> Work:
    return [(rng.integers(4, 109, 64).tolist(), 64) for _ in range(num_rows)]


def grouped_work(num_rows: int, rng: np.random.Generator) -> Work:
    """Groups of 16 that share a prompt, as in training."""
    return [work for work in ragged_work(num_rows // 16, rng) for _ in range(16)]


def small_cases() -> tuple[PreTrainedModel, HFPolicy, Mapping[str, Work]]:
    """Return a small model, a policy of it that never ends, and random work."""
    model, rng = with_fast_linears(SHAPES["1M"].model().eval()), np.random.default_rng(0)
    cases = {
        "16 equal": equal_work(16, rng),
        "128 equal": equal_work(128, rng),
        "256 ragged": ragged_work(256, rng),
        "256 ragged, groups of 16": grouped_work(256, rng),
    }
    return model, HFPolicy(model, endless_tokenizer()), cases


def real_case(
    folder: Path, max_tokens: int
) -> tuple[PreTrainedModel, HFPolicy, Mapping[str, Work]]:
    """Return the model in a folder, a policy of it that never ends, and its own episodes."""
    model, tokenizer = load_model(ModelSettings(path=str(folder)))
    model.eval()
    work = asyncio.run(own_work(HFPolicy(model, tokenizer), max_tokens))
    model.generation_config.eos_token_id = tokenizer.eos_token = None
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    plain.generation_config.eos_token_id = None
    lengths = [length for _, length in work]
    name = f"64 episodes, {min(lengths)} to {max(lengths)} ids, {sum(lengths) / 64:.0f} on average"
    return plain, HFPolicy(model, tokenizer), {name: work}


async def own_work(policy: HFPolicy, max_tokens: int) -> Work:
    """Return the prompts of eight problems, eight times each, with the lengths it answers at."""
    config, rules, chat = presets.local(), Rules(turn_budget=2), Chat(policy.tokenizer)
    prompts = [
        chat.opening([Prompts().opening(problem, rules)])
        for problem in config.problems.load()[:8]
        for _ in range(8)
    ]
    sampling = Sampling(max_tokens=max_tokens)
    done = await asyncio.gather(
        *(policy.complete(prompt, sampling, seed) for seed, prompt in enumerate(prompts))
    )
    return [(ids, len(one.token_ids)) for ids, one in zip(prompts, done, strict=True)]


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


def seconds(run: Callable[[], None]) -> tuple[float, float]:
    """Return the wall-clock seconds and the CPU seconds that it takes."""
    start, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - start, time.process_time() - cpu


def row(name: str, ways: Sequence[Callable[[], None]], work: Work, repeats: int) -> str:
    """Return a row of the table; the ways take turns, after one turn to warm up."""
    measured = [[seconds(way) for way in ways] for _ in range(repeats + 1)][1:]
    wall, cpu = np.median(measured, axis=0).T
    tokens = sum(length for _, length in work)
    return (
        f"| {name} | {tokens / wall[0]:,.0f} | {tokens / wall[1]:,.0f} | {wall[1] / wall[0]:.2f}"
        f" | {tokens / cpu[0]:,.0f} | {tokens / cpu[1]:,.0f} | {cpu[1] / cpu[0]:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--model", type=Path, help="a folder")
    parser.add_argument("--max-tokens", type=int, default=256, help="of an episode of --model")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, policy, cases = real_case(args.model, args.max_tokens) if args.model else small_cases()
    print(f"{args.threads} threads, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
    print("| tokens | HFPolicy/s | generate/s | ratio | HFPolicy/CPU s | generate/CPU s | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name, work in cases.items():
        ways = (partial(run_policy, policy, work), partial(run_generate, model, work, 256))
        print(row(name, ways, work, args.repeats), flush=True)


if __name__ == "__main__":
    main()
