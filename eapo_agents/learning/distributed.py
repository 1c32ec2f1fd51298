"""[edge] The processes that a learner works in: one alone, or several that share every update.

`Processes` is one by itself, for which each method is trivial; `SeveralProcesses` holds torch's
process group. The first process leads: it plays, evaluates and writes, and it tells the others
what to call on their learners (`announce`), so that all take part in every update, each with its
share of the rows. What follows and shards the model is in `follower.py` and `sharding.py`.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from eapo_agents.learning.batches import Batch, Layout, MiniBatch, Row, make_batches

if TYPE_CHECKING:
    from transformers import PreTrainedModel

State = Mapping[str, Any]

PATIENCE = timedelta(days=7)
"""How long a process waits for the others: the first one's rollouts may take hours."""

_OF_THE_LAUNCHER = ("TORCHELASTIC_USE_AGENT_STORE", "ACCELERATE_USE_FSDP", "WORLD_SIZE", "RANK")
"""Would make libraries, and the children of this process, believe that they are part of it all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the first process has the others do: call a method of their learners."""

    method: str
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The first process asks whether any of them was interrupted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """There is nothing more to do."""


Message = Order | Question | End


@dataclass(frozen=True)
class Processes:
    """One process: it leads nobody, and what it has is all there is."""

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process leads."""
        return self.rank == 0

    def announce(self, method: str, *arguments: Any) -> None:
        """As the first, have the others call a method of their learners, as this one does next."""

    def any_interrupted(self, here: bool) -> bool:
        """As the first, return whether this process or another one was interrupted."""
        return here

    def policy_copy(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return the model that a policy of this process may hold while the learner trains it."""
        return model

    def place(self, model: PreTrainedModel, device: torch.device) -> None:
        """Move the model to the device; of several processes, each holds a part of it."""
        model.to(device)

    def share(self, mini: MiniBatch, rows: Sequence[Row], *, max_tokens: int) -> MiniBatch:
        """Return the mini-batch, made of these rows, with the micro-batches of this process."""
        return mini

    def layout(self, wanted: Layout) -> Layout:
        """Return how the model reads a batch here."""
        return wanted

    def total(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Return each value summed over the processes, or the largest of a `max_` one."""
        return {name: float(value) for name, value in values.items()}

    def whole(self, value: Tensor) -> Tensor:
        """Return a value that may be spread over the processes."""
        return value

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """Return all weights in the first process, nothing in the others."""
        return model.state_dict()

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> State:
        """Return the whole state in the first process, nothing in the others."""
        return optimizer.state_dict()

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer, state: State) -> int:
        """Take over the first process's `model`, `optimizer` and `step`; return the last."""
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])


@dataclass(frozen=True)
class SeveralProcesses(Processes):
    """One of several processes, joined by torch's default process group."""

    def announce(self, method: str, *arguments: Any) -> None:
        """See `Processes.announce`; in the others this does nothing."""
        if self.is_first:
            self.send(Order(method=method, arguments=arguments))

    def send(self, message: Message) -> None:
        """As the first, tell the others something."""
        dist.broadcast_object_list([message], src=0, device=torch.device("cpu"))

    def receive(self) -> Message:
        """As one of the others, wait for what the first one says.

        Raises:
            ConnectionError: another process ended.
        """
        box: list[Any] = [None]
        try:
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        except RuntimeError as error:
            raise ConnectionError("another process ended before this one") from error
        message: Message = box[0]
        return message

    def any_interrupted(self, here: bool) -> bool:
        """See `Processes.any_interrupted`; the others call it when they are asked."""
        if self.is_first:
            self.send(Question())
        flag = torch.tensor(int(here))
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def policy_copy(self, model: PreTrainedModel) -> PreTrainedModel:
        """See `Processes.policy_copy`: a copy, because the learner's will be spread."""
        copy: PreTrainedModel = deepcopy(model)
        return copy

    def place(self, model: PreTrainedModel, device: torch.device) -> None:
        """See `Processes.place`."""
        shard(model, device.type, self.world)

    def share(self, mini: MiniBatch, rows: Sequence[Row], *, max_tokens: int) -> MiniBatch:
        """See `Processes.share`: every process has as many micro-batches, maybe an idle one."""
        lengths = [row.record.num_tokens for row in rows]
        shares = [
            make_batches([rows[i] for i in share], max_tokens=max_tokens)
            for share in balanced_shares(lengths, self.world)
        ]
        idle = [idle_batch(mini.batches[-1])] * (max(map(len, shares)) - len(shares[self.rank]))
        return replace(mini, batches=shares[self.rank] + idle)

    def layout(self, wanted: Layout) -> Layout:
        """See `Processes.layout`; "shared" may read twice, and all must read as often."""
        return "padded" if wanted == "shared" else wanted

    def total(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """See `Processes.total`."""
        sums = {name: value for name, value in values.items() if not name.startswith("max_")}
        maxima = {name: value for name, value in values.items() if name.startswith("max_")}
        return _reduced(sums, dist.ReduceOp.SUM) | _reduced(maxima, dist.ReduceOp.MAX)

    def whole(self, value: Tensor) -> Tensor:
        """See `Processes.whole`."""
        return whole(value)

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """See `Processes.weights`."""
        return full_weights(model, keep=self.is_first)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> State:
        """See `Processes.optimizer_state`."""
        return full_optimizer(optimizer, keep=self.is_first)

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer, state: State) -> int:
        """See `Processes.load`."""
        return load_full(model, optimizer, state)


SINGLE_PROCESS = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """Yield the processes that a launcher (accelerate, torchrun) started this one among.

    Leaving it, the first process releases the others.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield SINGLE_PROCESS
        return
    _open_group(local_rank=int(os.environ["LOCAL_RANK"]))
    for name in _OF_THE_LAUNCHER:
        os.environ.pop(name, None)
    processes = SeveralProcesses(dist.get_rank(), world)
    yield processes
    if processes.is_first:
        processes.send(End())


def leaving(main: Callable[[], int]) -> int:
    """End this one of several processes with the exit status that `main` returns.

    It ends here and nowhere else: torch may abort while the interpreter is taken down after it.
    """
    status = 1
    try:
        status = main()
        if status == 0 and dist.is_initialized():
            dist.destroy_process_group()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def balanced_shares(sizes: Sequence[int], hands: int) -> list[list[int]]:
    """Return which items go to which hand, so that all have about the same sum of sizes.

    The largest first, there and back again: 0 1 2 2 1 0 0 1 2 ...
    """
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    turns = [*range(hands), *reversed(range(hands))]
    shares: list[list[int]] = [[] for _ in range(hands)]
    for k, i in enumerate(order):
        shares[turns[k % len(turns)]].append(i)
    return shares


def idle_batch(batch: Batch) -> Batch:
    """Return a batch to read and to learn nothing from: no token in it is the policy's."""
    cut = {
        name: getattr(batch, name)[:1, :2] for name in ("ids_BT", "mask_BT", "logp_sampler_BT")
    } | {name: getattr(batch, name)[:1] for name in ("row_B", "advantage_B", "num_group_tokens_B")}
    short = replace(batch, **cut, length_B=batch.length_B[:1].clamp(max=2))
    return replace(short, mask_BT=torch.zeros_like(short.mask_BT))


def _open_group(local_rank: int) -> None:
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
        dist.init_process_group("cpu:gloo,cuda:nccl", timeout=PATIENCE)
    else:
        dist.init_process_group("gloo", timeout=PATIENCE)


def _reduced(values: Mapping[str, Tensor], how: dist.ReduceOp.RedOpType) -> dict[str, float]:
    if not values:
        return {}
    joint = torch.stack([value.detach().double().cpu() for value in values.values()])
    dist.all_reduce(joint, how)
    return dict(zip(values, joint.tolist(), strict=True))


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
