"""A learner's weights as vLLM takes them: by the names of checkpoints, and none left out."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eapo_agents.policies.policy import PolicyError
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from torch import Tensor

_HEAD = "lm_head.weight"
_RELOADING = "vllm.model_executor.model_loader.reload.layerwise"
_WITHOUT_HEAD = frozenset(("gemma2",))
"""Models that vLLM gives no head of its own where it is tied to the embedding."""


class CheckpointNames:
    """Weights of a learner by the names of its model's checkpoints, which vLLM reads.

    In memory a model can have other names and shapes: its experts are fused in one weight.

    Args:
        model: its folder or hub id.
    """

    def __init__(self, model: str | Path) -> None:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        with torch.device("meta"):
            self._model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
        first: dict[int, str] = {}
        self._names = {
            name: first.setdefault(id(weight), name)
            for name, weight in self._model.state_dict(keep_vars=True).items()
        }
        """Each weight's name, with the name of the weight it is tied to."""

    def of(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of a state dict; of two tied ones, vLLM keeps the one not given.

        Raises:
            UserError: an unknown or missing name.
        """
        from transformers.core_model_loading import revert_weight_conversion

        names = self._names
        given = {names[name]: weight for name, weight in state_dict.items() if name in names}
        unknown = [name for name in state_dict if name not in names]
        missing = [name for name, same in names.items() if same not in given]
        if unknown or missing:
            raise UserError(f"weights do not fit: unknown {unknown}, missing {missing}")
        weights = {name: given[same].detach() for name, same in names.items()}
        if self._model.config.model_type in _WITHOUT_HEAD and names.get(_HEAD) != _HEAD:
            weights.pop(_HEAD, None)
        checkpoint: dict[str, Tensor] = revert_weight_conversion(self._model, weights)
        return checkpoint


def layers_with_weights(worker: Any) -> frozenset[str]:
    """Return the classes of the layers of a worker's model that have weights of their own."""
    owners = [layer for layer in worker.get_model().modules() if [*layer.parameters(recurse=False)]]
    return frozenset(type(layer).__name__ for layer in owners)


@contextmanager
def all_loaded(layers: Set[str]) -> Iterator[None]:
    """Raise a PolicyError if vLLM says that a layer kept its old weights, which it only logs.

    It says so of layers that hold nothing but constants too; `layers` are the others.
    """
    kept: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            layer, _, message = record.getMessage().partition(": ")
            if message == "Failed to load weights" and layer in layers:
                kept.append(layer)

    logger, listener = logging.getLogger(_RELOADING), Listener()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(listener)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
        logger.propagate = propagate
    if kept:
        raise PolicyError(
            f"vLLM kept old weights in {', '.join(sorted(set(kept)))}: it cannot take new ones of"
            " this model while it runs"
        )
