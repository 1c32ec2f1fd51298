"""[edge] The trainer's side of vLLM's weight-transfer API: send the learner's weights to servers.

A transfer is controlled over HTTP; the weights go through a file in shared memory
(`vllm_file_weights.py`), or by NCCL between GPUs of trainer and servers. Afterwards each server's
prefix cache is dropped, because its keys and values are of the old weights. All servers of a policy
take the same weights at the same time.
"""

from __future__ import annotations

import json
import reprlib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from http.client import HTTPException
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from eapo_agents.files import writing
from eapo_agents.serving.process import ServerError, free_port

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

Backend = Literal["file", "nccl"]
_TIMEOUT_S = 600.0


class WeightTransfer(Protocol):
    """A way to load new weights into running servers."""

    def send(self, weights: Mapping[str, Tensor]) -> None:
        """Load all weights into every server, which samples from them afterwards.

        Raises:
            ServerError: a server did not accept them.
        """

    def close(self) -> None:
        """Free what the transfer holds in the servers."""


@dataclass(frozen=True, slots=True)
class Control:
    """Client of a server's control plane at `http://host:port`; methods are named as vLLM's.

    Raises:
        ServerError: from each method, if the server does not answer, or refuses.
    """

    root: str

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Initialise the transfer on the server."""
        self.post("init_weight_transfer_engine", {"init_info": init_info})

    def start_weight_update(self) -> None:
        """Begin an update."""
        self.post("start_weight_update")

    def update_weights(self, update_info: object) -> None:
        """Tell the server which weights follow, or where they are."""
        self.post("update_weights", {"update_info": update_info})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Finish an update, and drop the prefix cache."""
        self.post("finish_weight_update", {})
        match self._json("POST", "reset_prefix_cache"):
            case {"success": True}:
                return
            case answer:
                raise self._stranger("reset_prefix_cache", answer)

    def load_file(self, path: Path) -> None:
        """Load a file of weights, in a whole update."""
        self.start_weight_update()
        self.update_weights({"path": str(path)})
        self.finish_weight_update()

    def shutdown_weight_transfer_engine(self) -> None:
        """Shut the transfer down, so that another trainer can initialise one."""
        self.post("shutdown_weight_transfer_engine")

    def world_size(self) -> int:
        """Return the number of the server's workers."""
        match self._json("GET", "get_world_size"):
            case {"world_size": int(number)}:
                return number
            case answer:
                raise self._stranger("get_world_size", answer)

    def model(self) -> tuple[str, int]:
        """Return the name of the served model, and its context length."""
        match self._json("GET", "v1/models"):
            case {"data": [{"id": str(name), "max_model_len": int(length)}, *_]}:
                return name, length
            case answer:
                raise self._stranger("v1/models", answer)

    def post(self, path: str, body: Mapping[str, object] | None = None) -> None:
        """Send a POST request."""
        self._call("POST", path, body)

    def _json(self, method: str, path: str) -> object:
        """Return the decoded answer; one that is not JSON as text."""
        content = self._call(method, path, None)
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            return content.decode("utf-8", "replace")

    def _stranger(self, path: str, answer: object) -> ServerError:
        return ServerError(
            f"the policy server {self.root} answered to {path} with {reprlib.repr(answer)}. It must"
            " be one of `eapo serve-policy`"
        )

    def _call(self, method: str, path: str, body: Mapping[str, object] | None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.root}/{path}", data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as error:
            said = error.read().decode("utf-8", "replace")[:500]
            raise ServerError(
                f"the policy server {self.root} refused {path} ({error.code}): {said}. It must be"
                " one of `eapo serve-policy`"
            ) from None
        except (OSError, HTTPException) as error:
            raise ServerError(
                f"the policy server {self.root} does not answer to {path}: {error}"
            ) from error


@dataclass(frozen=True, slots=True)
class Controls:
    """Client of the control planes of all servers of a policy, as if they were one server.

    A call reaches the servers at the same time, and returns when all of them have answered.

    Raises:
        ServerError: from each method, if a server does not answer, or refuses.
    """

    servers: Sequence[Control]

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Initialise the transfer; the workers of each server rank after the one's before it."""
        first, sizes = init_info["rank_offset"], self._world_sizes()
        ranks = accumulate(sizes[:-1], initial=first)
        in_parallel(
            partial(one.init_weight_transfer_engine, init_info | {"rank_offset": rank})
            for one, rank in zip(self.servers, ranks, strict=True)
        )

    def start_weight_update(self) -> None:
        """Begin an update."""
        in_parallel(one.start_weight_update for one in self.servers)

    def update_weights(self, update_info: object) -> None:
        """Tell the servers which weights follow."""
        in_parallel(partial(one.update_weights, update_info) for one in self.servers)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Finish an update, and drop the prefix caches."""
        in_parallel(one.finish_weight_update for one in self.servers)

    def load_file(self, path: Path) -> None:
        """Load a file of weights, in a whole update of each server, whatever becomes of others."""
        in_parallel(partial(one.load_file, path) for one in self.servers)

    def shutdown_weight_transfer_engine(self) -> None:
        """Shut the transfer down, so that another trainer can initialise one."""
        in_parallel(one.shutdown_weight_transfer_engine for one in self.servers)

    def world_size(self) -> int:
        """Return the number of the workers of all servers."""
        return sum(self._world_sizes())

    def model(self) -> tuple[str, int]:
        """Return the name of the served model, and its context length.

        Raises:
            ServerError: two servers differ in either.
        """
        models = in_parallel(one.model for one in self.servers)
        for server, model in zip(self.servers, models, strict=True):
            if model != models[0]:
                says = "the policy server {} serves {!r} with a context of {} tokens"
                raise ServerError(
                    f"{says.format(self.servers[0].root, *models[0])}, and"
                    f" {says.format(server.root, *model)}: all must be the same"
                )
        return models[0]

    def _world_sizes(self) -> list[int]:
        return in_parallel(one.world_size for one in self.servers)


def in_parallel(calls: Iterable[Callable[[], T]]) -> list[T]:
    """Return the results of calls that are made at the same time, in order.

    Once all have ended, the first error in that order is raised. An interruption of the caller ends
    its wait, and does not keep the process from ending.
    """
    answers: list[Future[T]] = []
    for call in calls:
        answer: Future[T] = Future()
        answers.append(answer)
        Thread(target=_answer, args=(answer, call), daemon=True).start()
    wait(answers)
    return [answer.result() for answer in answers]


def _answer(answer: Future[T], call: Callable[[], T]) -> None:
    try:
        answer.set_result(call())
    except BaseException as error:
        answer.set_exception(error)


@dataclass(frozen=True)
class FileTransfer:
    """Transfer by a file in shared memory: trainer and servers are on one machine."""

    control: Controls

    def send(self, weights: Mapping[str, Tensor]) -> None:
        """See `WeightTransfer.send`."""
        with weights_file(weights) as folder:
            self.control.load_file(Path(folder) / "model.safetensors")

    def close(self) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class NCCLTransfer:
    """Transfer by NCCL from the trainer's GPU to the servers'; vLLM's engine on both sides.

    One broadcast reaches the workers of all servers.

    Args:
        control: the servers' control planes.
        address: of the trainer, as the servers reach it.
    """

    control: Controls
    address: str = "127.0.0.1"

    def send(self, weights: Mapping[str, Tensor]) -> None:
        """See `WeightTransfer.send`."""
        self._source.weights = weights
        self._engine.send_weights()

    def close(self) -> None:
        """Close the communicator on both sides."""
        if "_engine" in self.__dict__:
            self._engine.shutdown()
            self.control.shutdown_weight_transfer_engine()

    @cached_property
    def _source(self) -> Any:
        return nccl_source()

    @cached_property
    def _engine(self) -> Any:
        from vllm.distributed.weight_transfer.nccl_engine import (
            NCCLTrainerInitInfo,
            NCCLTrainerWeightTransferEngine,
        )

        info = NCCLTrainerInitInfo(
            master_address=self.address,
            master_port=free_port(),
            world_size=1 + self.control.world_size(),
            rank=0,
        )
        return NCCLTrainerWeightTransferEngine.trainer_init(
            info, client=self.control, source=self._source
        )


def nccl_source() -> Any:
    """Return a `WeightSource` of vLLM that yields the mapping in its attribute `weights`.

    Each weight is on this process's accelerator when it is yielded, if there is one: NCCL sends
    from nowhere else, and several processes gather their weights on the CPU.
    """
    import torch
    from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource

    place = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")

    class Weights(WeightSource):  # type: ignore[misc]
        weights: Mapping[str, Tensor]

        def metadata(self) -> list[Any]:
            return [
                ParamMeta(name, weight.dtype, tuple(weight.shape))
                for name, weight in self.weights.items()
            ]

        def __iter__(self) -> Iterator[tuple[str, Tensor]]:
            for name, weight in self.weights.items():
                yield name, weight.to(place)

    return Weights()


_SHARED_MEMORY = Path("/dev/shm")


@contextmanager
def weights_file(weights: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield a folder with the weights in `model.safetensors`, in shared memory if there is any."""
    from safetensors.torch import save_file

    place = _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None
    with TemporaryDirectory(prefix="eapo-weights-", dir=place) as folder:
        copies = {name: weight.cpu().clone().contiguous() for name, weight in weights.items()}
        path = Path(folder) / "model.safetensors"
        with writing(path):
            save_file(copies, path)
        yield folder
