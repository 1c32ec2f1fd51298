"""Load a causal language model and its tokenizer, the embedded one among them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from eapo_agents.policies.openai import ApiSettings
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def model_folder(path: str) -> str:
    """Return the folder or hub id that a model's path means.

    Raises:
        UserError: it can only be a folder, and there is none.
    """
    if path == EMBEDDED:
        return str(resources.files("eapo_agents.policies") / "embedded")
    if (path.startswith((".", "/")) or path.count("/") > 1) and not Path(path).is_dir():
        raise UserError(f"no model can be loaded from {path!r}: there is no such folder")
    return path


def load_model(settings: ModelSettings) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the model, in the wanted dtype, and its tokenizer.

    Raises:
        UserError: no model can be loaded from the path, or it is behind a server.
    """
    if settings.api.base_url:
        raise UserError(
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
        raise UserError(f"no model can be loaded from {settings.path!r}: {reason}") from error
    return model, tokenizer


EMBEDDED = "embedded"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Which model, and how it is held.

    Args:
        path: a Hugging Face folder or hub id; "embedded" is the small model in this package. With
            an `api.base_url`, the name under which the model is served there.
        engine: what samples: "hf" is transformers, on the learner's own weights; "vllm" is vLLM in
            this process, on a copy of them (section `vllm`), and "vllm-server" a vLLM server of its
            own (section `policy_server`).
        dtype: of the weights.
        attention: how transformers computes attention, by its name for it: "sdpa", "eager", or,
            with their packages, "flash_attention_2" and the like, which the layout "packed" wants.
        max_batch: the most episodes that "hf" advances at once.
        api: a server that has the model, instead of any engine; no such model can be trained.
    """

    path: str = EMBEDDED
    engine: Literal["hf", "vllm", "vllm-server"] = "hf"
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: str = "sdpa"
    max_batch: int = 256
    api: ApiSettings = ApiSettings()
