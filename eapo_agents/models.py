"""Load a causal language model and its tokenizer, the embedded one among them."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from eapo_agents.settings import EMBEDDED, ModelSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def model_folder(path: str) -> str:
    """Return the folder or hub id that a model's path means.

    Raises:
        ValueError: it can only be a folder, and there is none.
    """
    if path == EMBEDDED:
        return str(resources.files("eapo_agents") / "embedded")
    if (path.startswith((".", "/")) or path.count("/") > 1) and not Path(path).is_dir():
        raise ValueError(f"no model can be loaded from {path!r}: there is no such folder")
    return path


def load_model(settings: ModelSettings) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the model, in the wanted dtype, and its tokenizer.

    Raises:
        ValueError: no model can be loaded from the path, or it is behind a server.
    """
    if settings.api.base_url:
        raise ValueError(
            f"model.api.base_url is {settings.api.base_url!r}: a model behind a server can be"
            " evaluated, not trained"
        )
    path = model_folder(settings.path)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path, dtype=getattr(torch, settings.dtype), attn_implementation=settings.attention
        )
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"no model can be loaded from {settings.path!r}: {reason}") from error
    return model, tokenizer
