"""Load a causal language model and its tokenizer, the embedded one among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from eapo_agents.settings import ModelSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_model(settings: ModelSettings) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the model, in the wanted dtype, and its tokenizer.

    Raises:
        ValueError: no model can be loaded from the path.
    """
    path = settings.location
    try:
        model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, settings.dtype))
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"no model can be loaded from {settings.path!r}: {reason}") from error
    return model, tokenizer
