"""Loading a model: a Hugging Face folder or hub id, or the embedded model."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from eapo_env.hub import is_hub_id
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EMBEDDED = "embedded"
"""The path of the small model that ships with this package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """The model and how it is loaded.

    Args:
        path: a Hugging Face folder or hub id; "embedded" is the small model in this package. With
            the engine "openai", the name under which the model is served.
        dtype: of the weights.
        attention: transformers' attention implementation: "sdpa", "eager", or, with their
            packages, "flash_attention_2" and the like, which the layout "packed" needs.
    """

    path: str = EMBEDDED
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: str = "sdpa"


def model_folder(path: str) -> str:
    """Return the folder or hub id of a model's path; `owner/name` where no folder `owner` is here.

    Raises:
        UserError: it is neither; the hub is not asked.
    """
    if path == EMBEDDED:
        return str(resources.files("eapo_agents.policies") / "embedded")
    if not (Path(path).is_dir() or is_hub_id(path)):
        raise UserError(
            f"no such run or model folder: {path} (a hub id is OWNER/NAME, where there is no folder"
            " OWNER)"
        )
    return path


def load_model(settings: ModelSettings) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the model, with the linear layers that are fastest here, and its tokenizer.

    Raises:
        UserError: no model can be loaded from the path.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from eapo_agents.policies.linear import onednn_is_faster, with_fast_linears

    path = model_folder(settings.path)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path, dtype=getattr(torch, settings.dtype), attn_implementation=settings.attention
        )
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"no model can be loaded from {settings.path!r}: {reason}") from error
    return with_fast_linears(model) if onednn_is_faster() else model, tokenizer
