#!/usr/bin/env bash
# verl 0.9.1 with transformers 5.10.4: sequence parallelism with sdpa attention computes other logits.
#
# A good guess: `ulysses_sequence_parallel_size=2` gives the logits of a single process with each of
# transformers' attention implementations, or is refused with those that it does not support.
# Behaviour: `apply_monkey_patch` patches flash attention alone. With `attn_implementation=sdpa`
# nothing is refused, and each process attends to its own part of the sequence only.
# Seen (the largest difference to the logits of the whole sequence):
#   process 0, ids 0 to 7: 0.000000
#   process 1, ids 8 to 15: 0.155998
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "verl==0.9.1" "transformers==5.10.4" "torch==2.13.0"
cd "$folder"
cat >ulysses.py <<'PY'
import os

import torch
import torch.distributed as dist
from torch.multiprocessing import spawn
from transformers import Qwen2Config, Qwen2ForCausalLM

LENGTH, SIZE = 16, 2


def main(rank, differences):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method="file://JOIN", rank=rank, world_size=SIZE)
    from verl.models.transformers.monkey_patch import apply_monkey_patch
    from verl.utils.ulysses import (
        set_ulysses_sequence_parallel_group,
        ulysses_pad_and_slice_inputs,
    )

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_implementation="sdpa",
    )
    model = Qwen2ForCausalLM(config).eval()
    ids = torch.arange(LENGTH)[None]
    with torch.no_grad():
        whole = model(input_ids=ids, position_ids=ids, use_cache=False).logits[0]
        apply_monkey_patch(model, ulysses_sp_size=SIZE, use_remove_padding=True)
        set_ulysses_sequence_parallel_group(dist.group.WORLD)
        own, positions, _ = ulysses_pad_and_slice_inputs(ids, ids, sp_size=SIZE)
        part = model(input_ids=own, position_ids=positions, use_cache=False).logits[0]
    first, last = own[0, 0].item(), own[0, -1].item()
    differences[rank] = (part - whole[first : last + 1]).abs().max()
    dist.barrier()
    print(f"process {rank}, ids {first} to {last}: {differences[rank].item():.6f}", flush=True)


if __name__ == "__main__":
    differences = torch.zeros(SIZE).share_memory_()
    spawn(main, args=(differences,), nprocs=SIZE)
    assert differences[0] < 1e-5, differences
    assert differences[1] > 0.01, "this finding is out of date"
PY
sed -i "s|JOIN|$folder/join|" ulysses.py
"$folder/venv/bin/python" -W ignore ulysses.py
