#!/usr/bin/env bash
# torch 2.13.0: of torch's optimisers, fused SGD and Adafactor fail on the weights of fully_shard.
#
# A good guess: an optimiser of torch.optim takes the weights that torch's own FSDP2 makes, fused or not,
# as AdamW does.
# Behaviour: the first step of SGD(fused=True) and of Adafactor raises, also with a single process; the
# errors name operators. SGD that is not fused works.
# Seen:
#   AdamW fused: works
#   SGD: works
#   SGD fused: NotImplementedError (aten._fused_sgd_)
#   Adafactor: RuntimeError (aten.pow_)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.13.0" numpy
cd "$folder"
"$folder/venv/bin/python" - 2>/dev/null <<'PY'
import re
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

dist.init_process_group("gloo", init_method=Path("meet").absolute().as_uri(), rank=0, world_size=1)
model = torch.nn.Linear(4, 4)
fully_shard(model, mesh=init_device_mesh("cpu", (1,)))


def step(optimizer):
    model(torch.ones(2, 4)).sum().backward()
    try:
        optimizer.step()
    except Exception as error:
        return f"{type(error).__name__} ({re.search(r'aten[.]_?[a-z_]+', str(error))[0]})"
    return "works"


weights = list(model.parameters())
found = {
    "AdamW fused": step(torch.optim.AdamW(weights, fused=True)),
    "SGD": step(torch.optim.SGD(weights, fused=False)),
    "SGD fused": step(torch.optim.SGD(weights, fused=True)),
    "Adafactor": step(torch.optim.Adafactor(weights)),
}
print("\n".join(f"{name}: {what}" for name, what in found.items()))
dist.destroy_process_group()
assert list(found.values()) == [
    "works",
    "works",
    "NotImplementedError (aten._fused_sgd_)",
    "RuntimeError (aten.pow_)",
], "this finding is out of date"
PY
