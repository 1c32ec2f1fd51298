"""Count the bytes of all tensors alive, by watching every operation.

Not a benchmark; `memory.py` and `longest.py` use it. On the CPU the count equals what torch's
allocator reports to its profiler, but for what a kernel takes and returns within one operation. It
also works on fake tensors, which have shapes and no data: so it can count for a model and a length
that this machine could not hold.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

RESIZED_BYTES = 1 << 20
"""New storages of at least this size are looked at again: sharding empties and refills them."""


class LiveBytes(TorchDispatchMode):
    """Context that counts the bytes of tensors made inside it: `live` now, `peak` at most.

    Tensors made before count if they are given.
    """

    def __init__(self, tensors: Sequence[torch.Tensor] = ()) -> None:
        super().__init__()
        self.live = 0
        self._size: dict[int, int] = {}
        self._large: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        for tensor in tensors:
            self._see(tensor)
        self._large.clear()
        self.peak = self.live

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        for value in tree_leaves(found):
            if isinstance(value, torch.Tensor):
                self._see(value)
        for key, large in list(self._large.items()):
            if (storage := large()) is not None:
                self._set(key, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return found

    def _see(self, value: torch.Tensor) -> None:
        local = value._local_tensor if isinstance(value, DTensor) else value
        storage = local.untyped_storage()
        key = storage._cdata
        if key not in self._size:
            self._set(key, storage.nbytes())
            weakref.finalize(storage, self._forget, key)
            if storage.nbytes() >= RESIZED_BYTES:
                self._large[key] = weakref.ref(storage)

    def _set(self, key: int, size: int) -> None:
        self.live += size - self._size.get(key, 0)
        self._size[key] = size

    def _forget(self, key: int) -> None:
        self._large.pop(key, None)
        self.live -= self._size.pop(key)
