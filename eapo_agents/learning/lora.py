"""[edge] Low-rank adapters (LoRA, arXiv 2106.09685) on a model, trained in place of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    load_peft_weights,
    set_peft_model_state_dict,
)

from eapo_agents.learning.learner import Learner
from eapo_agents.policies import ModelSettings, load_model
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Adapters:
    """Adapters on every linear layer of a model, whose own weights are frozen.

    Args:
        peft: the model with its adapters.
        base: where its own weights came from.
    """

    peft: Any
    base: ModelSettings

    @classmethod
    def attach(
        cls, model: PreTrainedModel, base: ModelSettings, *, rank: int, alpha: float, seed: int
    ) -> Adapters:
        """Return fresh adapters on a model, which computes as before until they are trained."""
        config = LoraConfig(
            r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return cls(get_peft_model(model, config), base)

    def merged(self) -> dict[str, torch.Tensor]:
        """Return the weights of the plain model that computes what model and adapters do."""
        self.peft.merge_adapter()
        try:
            weights = self.peft.get_base_model().state_dict()
            return {
                name.replace(".base_layer.", "."): weight.clone()
                for name, weight in weights.items()
                if ".lora_" not in name
            }
        finally:
            self.peft.unmerge_adapter()

    def save(self, learner: Learner, folder: Path) -> None:
        """Write the merged model in Hugging Face format, and beside it what `load` needs."""
        self.peft.save_pretrained(folder / "adapter")
        own, _ = load_model(self.base)
        merged = PeftModel.from_pretrained(own, folder / "adapter").merge_and_unload()
        merged.save_pretrained(folder)
        state = {name: value for name, value in learner.state_dict().items() if name != "model"}
        torch.save(state, folder / "learner.pt")

    def load(self, learner: Learner, folder: Path) -> None:
        """Restore what `save` wrote, and go on as if nothing had happened.

        Raises:
            UserError: a folder that does not hold such a checkpoint, or a damaged one.
        """
        try:
            weights = load_peft_weights(str(folder / "adapter"), device="cpu")
            state = torch.load(folder / "learner.pt", map_location="cpu", weights_only=True)
            set_peft_model_state_dict(self.peft, weights)
            learner.load_state_dict(state | {"model": learner.model.state_dict()})
        except Exception as error:
            raise UserError(f"cannot restore adapters from {folder}: {error}") from error
