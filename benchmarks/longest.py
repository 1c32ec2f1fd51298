"""Compute the longest sequence whose update a GPU can hold, for a model too large to try here.

    python benchmarks/longest.py --shape 7B --gpu-gib 139 --world 8

Nothing is measured: the learner's own forward and backward run on fake tensors, which have shapes
and no data, and the bytes of all tensors alive are counted at every operation (`live_bytes.py`).
`--check` does the same for a small model and beside it the real update, counted the same way;
`--lora RANK` prints the peaks with adapters and with all weights instead.

What is assumed, term by term:

- weights, their gradients and the optimiser's moments are float32, because "bfloat16" is autocast:
  16 bytes a weight with AdamW, 8 with SGD, shared evenly by the processes of FSDP2;
- one sequence a micro-batch, every id but the first the policy's, gradients of earlier
  micro-batches in place; layout "padded", where a single sequence has no padding;
- attention by a kernel whose memory grows with the length, which `sdpa` has on the CPU and on GPUs;
- with LoRA the model's own weights are bfloat16, only the adapters have gradients and moments, and
  a hand-over makes a merged copy of every layer that has one (`Adapters.merged`);
- FSDP2 gathers a layer at a time in float32, and embedding and head together: `fully_shard` itself
  runs, as one of `--world` processes, with a process group that moves nothing;
- not counted: CUDA's context, its libraries' workspaces and the allocator's fragments (leave some
  5%), and a policy on the same GPU (it is on others: `engine=vllm-server`).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from live_bytes import LiveBytes
from shapes import SHAPES, Shape, sequences
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import Qwen2ForCausalLM

from eapo_agents.learning import (
    Adapters,
    Learner,
    LearnerSettings,
    LoRA,
    Row,
    make_batches,
    padded,
    shard_over,
    token_logprobs,
)
from eapo_agents.policies import ModelSettings, recompute_activations

GIB = 1 << 30
MOMENTS: dict[Literal["adamw", "adafactor", "sgd"], int] = {"adamw": 2, "sgd": 0}


@dataclass(frozen=True, slots=True)
class Count:
    """Bytes of one process: of weights, gradients and moments, and the peak."""

    constant: int
    peak: int


def counted(
    shape: Shape,
    settings: LearnerSettings,
    length: int,
    mesh: DeviceMesh | None = None,
    lora: LoRA | None = None,
) -> Count:
    """Return the bytes of an update on one sequence of `length` ids, without computing it.

    With adapters, the hand-over that follows counts as well.
    """
    [batch] = make_batches(
        [Row(record=record) for record in sequences(1, length, shape.vocabulary)], max_tokens=length
    )
    # Without data no mask can be looked up: all columns are the policy's anyway.
    inputs = replace(padded(batch), chosen_N=cast(Any, slice(None)))
    with FakeTensorMode(allow_non_fake_inputs=True):
        model, adapters = without_data(shape, lora, settings)
        if settings.gradient_checkpointing:
            recompute_activations(model)
        if mesh is not None:
            shard_over(model, mesh)
        weights = list(model.parameters())
        trained = [weight for weight in weights if weight.requires_grad]
        for weight in trained:
            weight.grad = torch.empty_like(weight)
        kinds = range(MOMENTS[settings.optimizer])
        moments = [torch.empty_like(weight) for weight in trained for _ in kinds]
        model.train(settings.gradient_checkpointing)
        # A fake tensor cannot tell that no mask is needed, so it is said.
        reader = partial(model, attention_mask={"full_attention": None})
        with LiveBytes([*weights, *(weight.grad for weight in trained), *moments]) as counter:
            constant = counter.live
            with settings.autocast():
                logp_BT, _ = token_logprobs(reader, batch, lambda _: inputs, 1.0)
            logp_BT.sum().backward()
            if adapters:
                adapters.merged(model.state_dict())
    return Count(constant, counter.peak)


def without_data(
    shape: Shape, lora: LoRA | None, settings: LearnerSettings
) -> tuple[Qwen2ForCausalLM, Adapters | None]:
    """Return a model whose tensors are fake, and the adapters on it.

    PEFT refuses fake tensors, so adapters are attached on the device "meta".
    """
    with torch.device("meta"):
        model = shape.model()
        adapters = lora.attach(model, ModelSettings()) if lora else None
    fakes: dict[int, nn.Parameter] = {}  # tied weights stay tied
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            data = torch.empty_like(weight, device="cpu", dtype=settings.dtype_of(weight))
            fake = nn.Parameter(data, weight.requires_grad)
            setattr(module, name, fakes.setdefault(id(weight), fake))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty_like(buffer, device="cpu"))
    return model, adapters


def longest(
    shape: Shape, settings: LearnerSettings, gpu_bytes: int, mesh: DeviceMesh | None
) -> tuple[Count, float, int]:
    """Return the count at the longest length that fits, the bytes of a further token, the length.

    Beyond some length the peak is linear: two counts give the length, a third checks it.
    """
    low, high = 8192, 16384
    for _ in range(3):
        counts = [counted(shape, settings, length, mesh) for length in (low, high)]
        slope = (counts[1].peak - counts[0].peak) / (high - low)
        found = int(low + (gpu_bytes - counts[0].peak) / slope)
        if found < 256:
            return counts[0], slope, max(0, found)
        count = counted(shape, settings, found, mesh)
        if abs(count.peak - gpu_bytes) < 0.001 * gpu_bytes:
            return count, slope, found
        low, high = found, found + max(256, found // 8)
    raise SystemExit(f"no line through the peaks near {found} tokens")


def print_table(shape: Shape, gpu_bytes: int, world: int) -> None:
    print("| optimiser | checkpointing | processes | constant GiB | KiB a token | longest |")
    print("|---|---|---|---|---|---|")
    mesh = None
    if world > 1:
        dist.init_process_group("fake", rank=0, world_size=world, store=FakeStore())
        mesh = init_device_mesh("cpu", (world,))
    for optimizer, recompute in product(MOMENTS, (True, False)):
        settings = LearnerSettings(
            device="cpu",
            precision="bfloat16",
            optimizer=optimizer,
            gradient_checkpointing=recompute,
        )
        count, slope, length = longest(shape, settings, gpu_bytes, mesh)
        print(
            f"| {optimizer} | {'yes' if recompute else 'no'} | {world} "
            f"| {count.constant / GIB:.1f} | {slope / 1024:,.0f} | {length:,} |",
            flush=True,
        )


def measured(shape: Shape, settings: LearnerSettings, length: int) -> int:
    """Return the peak bytes of a real update of the same."""
    with LiveBytes() as counter:
        learner = Learner(shape.model(), settings=settings)
        learner.sft_update(sequences(1, 2, shape.vocabulary))
        counter.peak = 0
        learner.sft_update(sequences(2, length, shape.vocabulary))
    return int(counter.peak)


def print_check() -> None:
    shape = SHAPES["12M"]
    print("| precision | checkpointing | length | real MiB | fake MiB |\n|---|---|---|---|---|")
    for precision in ("float32", "bfloat16"):
        for recompute in (False, True):
            for length in (1024, 2048):
                settings = LearnerSettings(
                    device="cpu",
                    precision=precision,
                    gradient_checkpointing=recompute,
                    max_batch_tokens=length,
                )
                real = measured(shape, settings, length)
                fake = counted(shape, settings, length, None).peak
                print(
                    f"| {precision} | {'yes' if recompute else 'no'} | {length} "
                    f"| {real / (1 << 20):.1f} | {fake / (1 << 20):.1f} |",
                    flush=True,
                )


def print_lora(shape: Shape, rank: int) -> None:
    print(
        "| checkpointing | length | all weights, MiB | LoRA, MiB | ratio |\n|---|---|---|---|---|"
    )
    adapters = LoRA(rank=rank, alpha=2.0 * rank, seed=0)
    for recompute, length in product((False, True), (512, 1024, 2048)):
        settings = LearnerSettings(
            device="cpu", precision="bfloat16", gradient_checkpointing=recompute
        )
        full, small = (
            counted(shape, settings, length, lora=lora).peak for lora in (None, adapters)
        )
        print(
            f"| {'yes' if recompute else 'no'} | {length} | {full / (1 << 20):,.0f}"
            f" | {small / (1 << 20):,.0f} | {small / full:.2f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="7B")
    parser.add_argument("--gpu-gib", type=float, default=139.0)
    parser.add_argument("--world", type=int, default=1, help="processes of FSDP2")
    parser.add_argument("--check", action="store_true", help="a small model, really updated too")
    parser.add_argument("--lora", type=int, metavar="RANK", help="beside all weights, in bfloat16")
    options = parser.parse_args()
    if options.check:
        print_check()
    elif options.lora:
        print_lora(SHAPES[options.shape], options.lora)
    else:
        print_table(SHAPES[options.shape], int(options.gpu_gib * GIB), options.world)


if __name__ == "__main__":
    main()
