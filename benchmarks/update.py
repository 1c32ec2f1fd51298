"""Time one update of a model of a given size: tokens per second, and MFU.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/update.py
    python benchmarks/update.py --device cuda --shape 500M --precision bfloat16 --number 64 \
        --length 4096 --batch-tokens 32768 --attention flash_attention_2 --peak-tflops 989

Sequences of random ids between a quarter of `--length` and all of it, with a prompt of an eighth.
Padding and recomputation count as time, not as work: tokens are those of the sequences, and the
operations are the model's own (`Shape.update_flops`). MFU is their share of the peak, which is
`--peak-tflops`, or the speed of a large product of two matrices in the same run. Least of the
repeats, after one update to warm up; the peak of memory is known on a GPU only.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from shapes import SHAPES, Shape

from eapo_agents.learning import Learner, LearnerSettings
from eapo_agents.policies import with_fast_linears
from eapo_agents.rollouts import Demonstration


def ragged(shape: Shape, number: int, length: int) -> list[Demonstration]:
    rng = np.random.default_rng(0)
    return [
        Demonstration(token_ids=rng.integers(1, shape.vocabulary, n), mask=np.arange(n) >= n // 8)
        for n in rng.integers(length // 4, length + 1, number)
    ]


def seconds(work: Callable[[], object], repeats: int) -> float:
    found = []
    for _ in range(repeats + 1):
        start = now()
        work()
        found.append(now() - start)
    return min(found[1:])


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def product_tflops(device: str, dtype: torch.dtype) -> float:
    """Return the speed of a product of two matrices."""
    size = 8192 if device == "cuda" else 2048
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    return 2 * size**3 / seconds(lambda: matrix @ matrix, 5) / 1e12


def settings_of(options: argparse.Namespace) -> Sequence[LearnerSettings]:
    base = LearnerSettings(
        device=options.device,
        precision=options.precision,
        max_batch_tokens=options.batch_tokens,
        compile=options.compile,
    )
    return [
        replace(base, layout=layout, gradient_checkpointing=recompute)
        for recompute in (False, True)
        for layout in ("padded", "packed")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shape", choices=SHAPES, default="12M")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--attention", default="sdpa", help="transformers' name of it")
    parser.add_argument("--compile", choices=("none", "inductor", "aot_eager"), default="none")
    parser.add_argument("--number", type=int, default=8, help="of sequences")
    parser.add_argument("--length", type=int, default=512, help="of the longest")
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak-tflops", type=float, help="as the GPU's maker says")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shape = SHAPES[options.shape]
    records = ragged(shape, options.number, options.length)
    num_tokens = sum(record.num_tokens for record in records)
    operations = sum(shape.update_flops(1, record.num_tokens) for record in records)
    peak = options.peak_tflops or product_tflops(options.device, getattr(torch, options.precision))
    load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    print(
        f"{options.shape}, {options.precision}, {options.attention}, {num_tokens:,} tokens in "
        f"{len(records)} sequences, {options.batch_tokens:,} a micro-batch; torch "
        f"{torch.__version__}, peak {peak:.3f} TFLOP/s, {options.threads} threads, load {load}"
    )
    print("| layout | checkpointing | s | tokens/s | TFLOP/s | MFU | padding | peak GiB |")
    print("|---|---|---|---|---|---|---|---|")
    for settings in settings_of(options):
        model = with_fast_linears(shape.model(options.attention))
        learner = Learner(model, settings=settings)
        padding = learner.sft_update(records)["padding_rate"]
        if options.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        took = seconds(partial(learner.sft_update, records), options.repeats)
        memory = torch.cuda.max_memory_allocated() / 2**30 if options.device == "cuda" else None
        print(
            f"| {settings.layout} | {'yes' if settings.gradient_checkpointing else 'no'} "
            f"| {took:.2f} | {num_tokens / took:,.0f} | {operations / took / 1e12:.3f} "
            f"| {operations / took / 1e12 / peak:.0%} | {padding:.0%} "
            f"| {'-' if memory is None else f'{memory:.1f}'} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
