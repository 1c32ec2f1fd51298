"""[edge] The processes that share a learner's updates: a single one, or several joined by torch.

The first process leads: it plays, evaluates and writes files, and it announces what the others do
next, so that all take part in every update, each with its part of the rows and of the weights
(FSDP2). In order: what the processes say to each other, `Processes` (a single one, for which each
method is trivial), `SeveralProcesses`, how they are joined and ended, how rows are divided, how
weights are.
"""

from __future__ import annotations

import os
import pickle
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

from eapo_agents.learning.batches import Batch, MiniBatch, Row, make_batches
from eapo_agents.learning.settings import Layout
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

State = Mapping[str, Any]

TIMEOUT = timedelta(days=7)
"""How long a process waits for the others: the first one's rollouts may take hours."""

_LAUNCHER_VARIABLES = ("TORCHELASTIC_USE_AGENT_STORE", "ACCELERATE_USE_FSDP", "WORLD_SIZE", "RANK")
"""Removed once the processes are joined: libraries and child processes would act on them."""


@dataclass(frozen=True, slots=True)
class AnyInterrupted:
    """The first process asks whether any process was interrupted."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The first process refuses its input, for a reason that all processes raise."""

    reason: str


@dataclass(frozen=True, slots=True)
class End:
    """There is nothing more to do."""


@dataclass(frozen=True)
class Processes:
    """A single process: it leads no others, and what it has is all there is."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process leads."""
        return self.rank == 0

    def announce(self, message: object) -> None:
        """As the first, tell the others what this process does next, so that they do it too."""

    def any_interrupted(self, here: bool) -> bool:
        """As the first, return whether this process or another one was interrupted."""
        return here

    def policy_copy(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return the model that a policy of this process may hold while the learner trains it."""
        return model

    def place(self, model: PreTrainedModel, device: torch.device) -> None:
        """Move the model to the device; of several processes, each holds a shard of it."""
        model.to(device)

    def local_mini_batch(
        self, mini: MiniBatch, rows: Sequence[Row], *, max_tokens: int, layout: Layout
    ) -> MiniBatch:
        """Return the mini-batch made of these rows with the micro-batches of this process only."""
        return mini

    def layout(self, wanted: Layout) -> Layout:
        """Return how the model reads a batch: as wanted, where these processes can."""
        return wanted

    def all_reduce(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Return each value summed over the processes; of a `max_` value, the largest."""
        return {name: float(value) for name, value in values.items()}

    def full_tensor(self, value: Tensor) -> Tensor:
        """Return a whole tensor of one that may be sharded."""
        return value

    def full_weights(self, model: nn.Module) -> dict[str, Tensor]:
        """Return all weights in the first process, nothing in the others."""
        return model.state_dict()

    def full_optimizer_state(self, optimizer: torch.optim.Optimizer) -> State:
        """Return the whole state in the first process, nothing in the others."""
        return optimizer.state_dict()

    def load_full_state(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, state: State
    ) -> int:
        """Load the first process's `model`, `optimizer` and `step`; return the step."""
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])


SINGLE_PROCESS = Processes()


@dataclass(frozen=True)
class SeveralProcesses(Processes):
    """One of several processes, joined by torch's default process group."""

    def announce(self, message: object) -> None:
        """See `Processes.announce`."""
        assert self.is_first, "only the first process announces; the others receive"
        dist.broadcast_object_list([pickle.dumps(message)], src=0, device=torch.device("cpu"))

    def receive(self) -> Any:
        """As one of the others, wait for what the first process announces, and return it.

        Raises:
            UserError: another process ended.
        """
        box: list[Any] = [None]
        try:
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        except RuntimeError as error:
            raise UserError("another process ended before this one") from error
        return pickle.loads(box[0])

    def any_interrupted(self, here: bool) -> bool:
        """See `Processes.any_interrupted`; the others call it on the message `AnyInterrupted`."""
        if self.is_first:
            self.announce(AnyInterrupted())
        flag = torch.tensor(int(here))
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def policy_copy(self, model: PreTrainedModel) -> PreTrainedModel:
        """See `Processes.policy_copy`: a copy, because the learner's model will be sharded."""
        copy: PreTrainedModel = deepcopy(model)
        return copy

    def place(self, model: PreTrainedModel, device: torch.device) -> None:
        """See `Processes.place`."""
        shard_over(model, init_device_mesh(device.type, (self.world_size,)))

    def local_mini_batch(
        self, mini: MiniBatch, rows: Sequence[Row], *, max_tokens: int, layout: Layout
    ) -> MiniBatch:
        """See `Processes.local_mini_batch`.

        All processes get the same number of micro-batches, some of them with nothing to learn, so
        that all take part in each gathering of weights.
        """
        lengths = [row.record.num_tokens for row in rows]
        shares = [
            make_batches([rows[i] for i in share], max_tokens=max_tokens, layout=layout)
            for share in balanced_shares(lengths, self.world_size)
        ]
        missing = max(map(len, shares)) - len(shares[self.rank])
        idle = [_idle_batch(mini.batches[-1])] * missing
        return replace(mini, batches=shares[self.rank] + idle)

    def layout(self, wanted: Layout) -> Layout:
        """See `Processes.layout`: "shared" calls the model once or twice, and all must as often."""
        return "padded" if wanted == "shared" else wanted

    def all_reduce(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """See `Processes.all_reduce`."""
        sums = {name: value for name, value in values.items() if not name.startswith("max_")}
        maxima = {name: value for name, value in values.items() if name.startswith("max_")}
        return _all_reduce(sums, dist.ReduceOp.SUM) | _all_reduce(maxima, dist.ReduceOp.MAX)

    def full_tensor(self, value: Tensor) -> Tensor:
        """See `Processes.full_tensor`; all processes call it together."""
        return _full_tensor(value)

    def full_weights(self, model: nn.Module) -> dict[str, Tensor]:
        """See `Processes.full_weights`; tied weights stay tied."""
        full = {id(weight): self._to_first(weight) for weight in model.parameters()}
        names = dict(model.named_parameters(remove_duplicate=False))
        state = model.state_dict()
        if not self.is_first:
            return {}
        return {
            name: full[id(names[name])] if name in names else value.cpu()
            for name, value in state.items()
        }

    def full_optimizer_state(self, optimizer: torch.optim.Optimizer) -> State:
        """See `Processes.full_optimizer_state`."""
        state = optimizer.state_dict()
        moments = {
            number: {name: self._to_first(value) for name, value in entry.items()}
            for number, entry in state["state"].items()
        }
        return state | {"state": moments} if self.is_first else {}

    def load_full_state(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, state: State
    ) -> int:
        """See `Processes.load_full_state`; what the others give is not looked at."""
        shapes = _broadcast_object(_without_values(state) if self.is_first else None)
        for name, value in model.state_dict().items():
            given = state["model"][name] if self.is_first else None
            value.copy_(_shard_like(given, shapes["model"][name], value))
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        moments: dict[int, dict[str, Any]] = {}
        for number, entry in shapes["optimizer"]["state"].items():
            own = state["optimizer"]["state"][number] if self.is_first else dict.fromkeys(entry)
            moments[number] = {
                name: _shard_like(own[name], value, weights[number])
                for name, value in entry.items()
            }
        optimizer.load_state_dict(shapes["optimizer"] | {"state": moments})
        return int(shapes["step"])

    def _to_first(self, value: Any) -> Any:
        """Return the whole tensor on the CPU in the first process; nothing in the others."""
        if not isinstance(value, Tensor):
            return value
        full = _full_tensor(value.detach())
        return full.cpu() if self.is_first else None


def num_launched() -> int:
    """Return how many processes a launcher (accelerate, torchrun) started, this one included."""
    if dist.is_initialized():
        return dist.get_world_size()
    return int(os.environ.get("WORLD_SIZE", "1"))


def check_all_joined(processes: Processes) -> None:
    """Refuse to work as a single process where a launcher started several.

    Raises:
        UserError: `processes` is `SINGLE_PROCESS` in one of several processes.
    """
    if processes.world_size == 1 and num_launched() > 1:
        raise UserError(
            f"a launcher started {num_launched()} processes, and this would be done in each of them"
            " by itself: call eapo_agents.training.lead(main) in the script, and pass on"
            " processes=processes, which main gets"
        )


def check_leads(processes: Processes) -> None:
    """Refuse to make here what the first process alone makes, as `check_all_joined` does.

    Raises:
        UserError: as `check_all_joined`, or this is another process than the first.
    """
    check_all_joined(processes)
    if not processes.is_first:
        raise UserError(
            f"process {processes.rank} follows the first one, which makes the trainer: make it in"
            " the main of eapo_agents.training.lead(main)"
        )


@contextmanager
def joined() -> Iterator[Processes]:
    """Yield the processes that a launcher (accelerate, torchrun) started, this one among them.

    On leaving the context, the first process tells the others that it is done.
    """
    world_size = num_launched()
    if world_size == 1:
        yield SINGLE_PROCESS
        return
    _open_group(local_rank=int(os.environ["LOCAL_RANK"]))
    for name in _LAUNCHER_VARIABLES:
        os.environ.pop(name, None)
    processes = SeveralProcesses(dist.get_rank(), world_size)
    yield processes
    if processes.is_first:
        processes.announce(End())


def end_process(main: Callable[[], int]) -> None:
    """End this one of several processes with the exit status that `main` returns; 1 on an error.

    It ends here and nowhere else: torch may abort while the interpreter shuts down after it.
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


def _open_group(local_rank: int) -> None:
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
        dist.init_process_group("cpu:gloo,cuda:nccl", timeout=TIMEOUT)
    else:
        dist.init_process_group("gloo", timeout=TIMEOUT)


def balanced_shares(sizes: Sequence[int], num_shares: int) -> list[list[int]]:
    """Return the indices of the items in each share, so that all have about the same sum of sizes.

    The largest first, there and back again: 0 1 2 2 1 0 0 1 2 ...
    """
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    turns = [*range(num_shares), *reversed(range(num_shares))]
    shares: list[list[int]] = [[] for _ in range(num_shares)]
    for k, i in enumerate(order):
        shares[turns[k % len(turns)]].append(i)
    return shares


def _idle_batch(batch: Batch) -> Batch:
    """Return a batch to read and to learn nothing from: no token in it is the policy's."""
    cut = {
        name: getattr(batch, name)[:1, :2] for name in ("ids_BT", "mask_BT", "logp_sampler_BT")
    } | {name: getattr(batch, name)[:1] for name in ("row_B", "advantage_B", "num_group_tokens_B")}
    short = replace(batch, **cut, length_B=batch.length_B[:1].clamp(max=2))
    return replace(short, mask_BT=torch.zeros_like(short.mask_BT))


def _all_reduce(values: Mapping[str, Tensor], how: dist.ReduceOp.RedOpType) -> dict[str, float]:
    if not values:
        return {}
    joint = torch.stack([value.detach().double().cpu() for value in values.values()])
    dist.all_reduce(joint, how)
    return dict(zip(values, joint.tolist(), strict=True))


def shard_over(model: PreTrainedModel, mesh: DeviceMesh) -> None:
    """Shard a model's weights over these processes in place (FSDP2), one unit a layer."""
    blocks = set(model._no_split_modules or ())
    layers = [module for module in model.modules() if type(module).__name__ in blocks]
    for module in (*layers, model):
        sharded = fully_shard(module, mesh=mesh, reshard_after_forward=True)
        assert isinstance(sharded, FSDPModule)
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)  # gloo refuses to scale


def _full_tensor(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value


def _without_values(node: Any) -> Any:
    """Return a state with its large tensors replaced by empty ones of the same shape and type."""
    match node:
        case Tensor() if node.dim():
            return torch.empty_like(node, device="meta")
        case Mapping():
            return {key: _without_values(value) for key, value in node.items()}
        case _:
            return node


def _broadcast_object(node: Any) -> Any:
    box = [node]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def _shard_like(given: Tensor | None, shape: Any, like: Tensor) -> Any:
    """Return the first process's tensor sharded like `like`; small values came with the shapes."""
    if not (isinstance(shape, Tensor) and shape.dim()):
        return shape
    device = like.device
    full = (
        torch.empty(shape.shape, dtype=shape.dtype, device=device)
        if given is None
        else given.to(device)
    )
    if isinstance(like, DTensor):
        return distribute_tensor(full, like.device_mesh, like.placements)
    dist.broadcast(full, src=0)
    return full
