"""A model spread over processes by torch's fully sharded data parallelism, and back to a whole.

Gradients are summed over the processes, not averaged: each process adds its share of one loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def shard(model: PreTrainedModel, device: str, world: int) -> None:
    """Spread a model's weights over all processes in place, one group of weights a layer."""
    shard_over(model, init_device_mesh(device, (world,)))


def shard_over(model: PreTrainedModel, mesh: DeviceMesh) -> None:
    """Spread a model's weights over these processes in place, one group of weights a layer."""
    blocks = set(model._no_split_modules or ())
    parts = [module for module in model.modules() if type(module).__name__ in blocks]
    for module in (*parts, model):
        sharded = fully_shard(module, mesh=mesh, reshard_after_forward=True)
        assert isinstance(sharded, FSDPModule)
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)  # gloo refuses to scale


def whole(value: Tensor) -> Tensor:
    """Return a tensor that may be spread; every process must ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def full_weights(model: nn.Module, *, keep: bool) -> dict[str, Tensor]:
    """Return a whole state dict, or an empty one unless `keep`; tied weights stay tied."""
    gathered = {id(weight): _gathered(weight, keep) for weight in model.parameters()}
    names = dict(model.named_parameters(remove_duplicate=False))
    state = model.state_dict()
    if not keep:
        return {}
    return {
        name: gathered[id(names[name])] if name in names else value.cpu()
        for name, value in state.items()
    }


def full_optimizer(optimizer: torch.optim.Optimizer, *, keep: bool) -> dict[str, Any]:
    """Return a whole state dict, or an empty one unless `keep`."""
    state = optimizer.state_dict()
    moments = {
        number: {name: _gathered(value, keep) for name, value in entry.items()}
        for number, entry in state["state"].items()
    }
    return state | {"state": moments} if keep else {}


def load_full(model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> int:
    """Take over the whole state of the first process; the others' is not looked at."""
    first = dist.get_rank() == 0
    sketch = _from_first(_sketch(state) if first else None)
    for name, value in model.state_dict().items():
        given = state["model"][name] if first else None
        value.copy_(_placed(given, sketch["model"][name], value))
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    moments = {
        number: {
            name: _placed(
                state["optimizer"]["state"][number][name] if first else None,
                value,
                weights[number],
            )
            for name, value in entry.items()
        }
        for number, entry in sketch["optimizer"]["state"].items()
    }
    optimizer.load_state_dict(sketch["optimizer"] | {"state": moments})
    return int(sketch["step"])


def _gathered(value: Any, keep: bool) -> Any:
    """Return a whole tensor in the processor's memory, a view of nothing else."""
    if not isinstance(value, Tensor):
        return value
    full = whole(value.detach())
    return full.cpu() if keep else None


def _sketch(node: Any) -> Any:
    """Return a state with its large tensors replaced by empty ones of the same shape and type."""
    match node:
        case Tensor() if node.dim():
            return torch.empty_like(node, device="meta")
        case Mapping():
            return {key: _sketch(value) for key, value in node.items()}
        case _:
            return node


def _from_first(node: Any) -> Any:
    box = [node]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def _placed(given: Tensor | None, sketch: Any, like: Tensor) -> Any:
    """Return the first process's tensor spread like `like`; small values came in the sketch."""
    if not (isinstance(sketch, Tensor) and sketch.dim()):
        return sketch
    device = like.device
    full = (
        torch.empty(sketch.shape, dtype=sketch.dtype, device=device)
        if given is None
        else given.to(device)
    )
    if isinstance(like, DTensor):
        return distribute_tensor(full, like.device_mesh, like.placements)
    dist.broadcast(full, src=0)
    return full
