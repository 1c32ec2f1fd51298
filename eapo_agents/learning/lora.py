"""[edge] Low-rank adapters (LoRA, arXiv 2106.09685), trained instead of a model's weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from eapo_agents.policies import LoRASettings, ModelSettings, load_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PREFIX = "base_model.model."
"""What PEFT puts before the names of the model's own weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoRA:
    """The adapters to put on every linear layer.

    Args:
        rank: of the two factors of an adapter.
        alpha: the adapters' output is scaled by alpha / rank.
        seed: of their first weights.
    """

    rank: int
    alpha: float
    seed: int

    @classmethod
    def of(cls, settings: LoRASettings, seed: int) -> LoRA | None:
        """Return the adapters that the settings of a model ask for; None if they ask for none."""
        return cls(rank=settings.rank, alpha=settings.alpha, seed=seed) if settings.rank else None

    def attach(self, model: PreTrainedModel, base: ModelSettings) -> Adapters:
        """Put new adapters on a model in place; it computes as before until they are trained.

        The model's own weights are frozen. `base` says where they came from.
        """
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=self.rank, lora_alpha=self.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        with torch.random.fork_rng():
            torch.manual_seed(self.seed % 2**63)
            return Adapters(peft_model=get_peft_model(model, config), base=base)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """Adapters on a model, and where its frozen weights came from.

    The methods take and return whole weights by the names of the model's `state_dict`, so that they
    do not depend on how the model is sharded.
    """

    peft_model: Any
    base: ModelSettings

    def merged(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of the plain model that computes what model and adapters do.

        W + alpha / rank * B A for each adapted layer.
        """
        from peft.tuners.lora import LoraLayer

        plain = {
            name.replace(".base_layer.", "."): weight
            for name, weight in weights.items()
            if ".lora_" not in name
        }
        for name, layer in self.peft_model.get_base_model().named_modules():
            if isinstance(layer, LoraLayer):
                down, up = (weights[f"{name}.lora_{factor}.default.weight"] for factor in "AB")
                change = (up @ down) * layer.scaling["default"]
                weight = plain[f"{name}.weight"]
                change = change.T if layer.fan_in_fan_out else change
                plain[f"{name}.weight"] = (weight + change.to(weight.device)).to(weight.dtype)
        return plain

    def save(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        """Write the merged model in Hugging Face format, and beside it what `read` returns."""
        from peft import PeftModel

        named = {_PREFIX + name: weight for name, weight in weights.items()}
        self.peft_model.save_pretrained(folder / "adapter", state_dict=named)
        model, _ = load_model(self.base)
        merged = PeftModel.from_pretrained(model, folder / "adapter").merge_and_unload()
        merged.save_pretrained(folder)

    def read(self, folder: Path) -> dict[str, Tensor]:
        """Return the adapters' weights in a folder that `save` wrote."""
        from peft import load_peft_weights

        weights = load_peft_weights(str(folder / "adapter"), device="cpu")
        return {
            name.removeprefix(_PREFIX).replace(".weight", ".default.weight"): weight
            for name, weight in weights.items()
        }
