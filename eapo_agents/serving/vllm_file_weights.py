"""[edge] New weights for a running vLLM server by way of a file: a backend of vLLM's transfer API.

vLLM's own backends want CUDA. This module is loaded in the server's workers, named there as the
worker extension; loading it makes the backend "file" known. What the trainer sends is the path of a
safetensors file that holds every weight.
"""

from __future__ import annotations

from dataclasses import dataclass

from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory


@dataclass
class Nothing(WeightTransferInitInfo):  # type: ignore[misc]
    """There is nothing to agree on beforehand."""


@dataclass
class WeightsFile(WeightTransferUpdateInfo):  # type: ignore[misc]
    """Where the weights are."""

    path: str


class FileWeightTransferEngine(WeightTransferEngine):  # type: ignore[misc]
    """Reads a file, in the same steps in which vLLM's own engines receive a broadcast."""

    init_info_cls = Nothing
    update_info_cls = WeightsFile

    def init_transfer_engine(self, init_info: Nothing) -> None:
        """Do nothing."""

    def start_weight_update(self) -> None:
        """Prepare every layer for weights in the format of a checkpoint."""
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, str]) -> None:
        """Load the file; unlike vLLM's own, this waits for no accelerator."""
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: WeightsFile) -> None:
        """Load the file."""
        from safetensors.torch import load_file

        self.model.load_weights(load_file(update_info.path).items())

    def finish_weight_update(self) -> None:
        """Pack the layers as the kernels want them."""
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        """Do nothing."""


class FileWeights:
    """The worker extension that brings this module, and so its backend, into the workers."""


WeightTransferEngineFactory.register_engine("file", FileWeightTransferEngine)
