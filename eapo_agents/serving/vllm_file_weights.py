"""[edge] The backend "file" of vLLM's weight-transfer API: new weights from a safetensors file.

vLLM's own backends need CUDA. The server's workers import this module as their worker extension,
which registers the backend. The trainer sends the path of a file that holds every weight.
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
    """The empty initialisation of this backend."""


@dataclass
class WeightsFile(WeightTransferUpdateInfo):  # type: ignore[misc]
    """The path of the file with the weights."""

    path: str


class FileWeightTransferEngine(WeightTransferEngine):  # type: ignore[misc]
    """vLLM's engine that reads a file, in the steps in which its others receive a broadcast."""

    init_info_cls = Nothing
    update_info_cls = WeightsFile

    def init_transfer_engine(self, init_info: Nothing) -> None:
        """Do nothing."""

    def start_weight_update(self) -> None:
        """Prepare every layer for weights in the format of a checkpoint."""
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, str]) -> None:
        """Load the file, without vLLM's wait for an accelerator."""
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: WeightsFile) -> None:
        """Load the file."""
        from safetensors.torch import load_file

        self.model.load_weights(load_file(update_info.path).items())

    def finish_weight_update(self) -> None:
        """Convert the layers to the format of the kernels."""
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        """Do nothing."""


class FileWeights:
    """The worker extension: naming it makes the workers import this module."""


WeightTransferEngineFactory.register_engine("file", FileWeightTransferEngine)
