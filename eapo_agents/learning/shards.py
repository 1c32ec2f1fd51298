"""[edge] What a learner trains, on disk in parts: torch's distributed checkpoint (DCP).

Each of several processes writes its part of weights and moments, and any number of processes, a
single one included, restores the whole: each reads what it holds.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor, empty

SHARDS = "shards"
"""The folder of the parts in a checkpoint."""

_WEIGHT, _MOMENT = "weight:", "moment:"


def save_shards(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Write this process's part of trained weights and moments; all processes call it together.

    Returns when all have written, and what they wrote is on disk.

    Raises:
        OSError: a process could not write.
    """
    trained = _trained(model)
    moments = {
        f"{_MOMENT}{name}:{moment}": value
        for name, weight in trained.items()
        for moment, value in optimizer.state.get(weight, {}).items()
    }
    weights = {_WEIGHT + name: weight.detach() for name, weight in trained.items()}
    with _errors_of_any_process():
        save({**weights, **moments}, storage_writer=FileSystemWriter(folder))


def load_shards(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Restore what `save_shards` wrote, in however many processes; all call it together.

    Raises:
        OSError, KeyError, ValueError, RuntimeError: a part is missing or damaged, or is of another
            model.
    """
    reader = FileSystemReader(folder)
    trained, metadata = _trained(model), reader.read_metadata()
    moments = {name: _empty_moments(name, weight, metadata) for name, weight in trained.items()}
    state = {_WEIGHT + name: weight.detach() for name, weight in trained.items()} | {
        f"{_MOMENT}{name}:{moment}": value
        for name, own in moments.items()
        for moment, value in own.items()
    }
    with _errors_of_any_process(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # a single process
        load(state, storage_reader=reader)
    numbers = {name: number for number, name in enumerate(trained)}
    groups = optimizer.state_dict()["param_groups"]
    by_number = {numbers[name]: own for name, own in moments.items() if own}
    optimizer.load_state_dict({"state": by_number, "param_groups": groups})


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights that the optimiser has, in its order, by name."""
    return {name: one for name, one in model.named_parameters() if one.requires_grad}


def _empty_moments(name: str, weight: Tensor, metadata: Metadata) -> dict[str, Tensor]:
    """Return a tensor for each moment of a weight that was written, sharded as the weight is."""
    start = f"{_MOMENT}{name}:"
    return {
        key.removeprefix(start): _empty(stored, weight)
        for key, stored in metadata.state_dict_metadata.items()
        if key.startswith(start) and isinstance(stored, TensorStorageMetadata)
    }


def _empty(stored: TensorStorageMetadata, like: Tensor) -> Tensor:
    dtype = stored.properties.dtype
    if isinstance(like, DTensor) and stored.size:
        mesh, placements = like.device_mesh, like.placements
        return empty(stored.size, dtype=dtype, device_mesh=mesh, placements=placements)
    return torch.empty(stored.size, dtype=dtype, device=like.device)


@contextmanager
def _errors_of_any_process() -> Iterator[None]:
    """Raise the first error of DCP's collection, which is no `Exception` itself."""
    try:
        yield
    except CheckpointException as errors:
        [(first, _), *_] = errors.failures.values()
        raise first from None
