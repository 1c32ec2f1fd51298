"""Loading a model: a Hugging Face folder or hub id, or the embedded model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from inspect import signature
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from eapo_env.hub import is_hub_id
from eapo_env.validation import UserError, at_least, positive

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

EMBEDDED = "embedded"
"""The path of the small model that ships with this package."""

WRONG_BELIEF = "wrong-belief"
"""The path of the embedded model after it was taught to calculate wrongly, which ships too."""

SHIPPED = (EMBEDDED, WRONG_BELIEF)
"""The paths of the models that ship."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoRASettings:
    """Low-rank adapters that are trained instead of the model's own weights.

    Args:
        rank: of the two factors of an adapter; 0 trains all weights.
        alpha: the adapters' output is scaled by alpha / rank.

    Raises:
        UserError: a value out of its range.
    """

    rank: int = 0
    alpha: float = 32.0

    def __post_init__(self) -> None:
        at_least(0, self, "rank")
        positive(self, "alpha")


ALL_WEIGHTS = LoRASettings()
"""No adapters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """The model and how it is loaded.

    Args:
        path: a Hugging Face folder or hub id; "embedded" is the small model in this package,
            "wrong-belief" the same after it was taught to calculate wrongly. With
            the engine "openai", the name under which the model is served.
        dtype: of the weights.
        attention: transformers' attention implementation: "sdpa", "eager", or, with their
            packages, "flash_attention_2" and the like, which the layout "packed" needs.
        template: variables of the chat template, such as `enable_thinking`, `reasoning_effort` or
            `date_string`. A template that writes the date gets the same one every day.
        lora: adapters on every linear layer, which training learns instead of all weights. They
            need about ten times the learning rate. The model's own weights stay as they are, in
            bfloat16 where `learner.precision` is.

    Raises:
        UserError: a variable whose name is no identifier.
    """

    path: str = EMBEDDED
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: str = "sdpa"
    template: Mapping[str, str | bool | int | float] = field(default_factory=dict, hash=False)
    lora: LoRASettings = ALL_WEIGHTS

    def __post_init__(self) -> None:
        for name in self.template:
            if not str(name).isidentifier():
                raise UserError(f"template variables must be identifiers, not {name!r}")


NO_VARIABLES: Mapping[str, str | bool | int | float] = MappingProxyType({})


def model_folder(path: str) -> str:
    """Return the folder or hub id of a model's path; `owner/name` where no folder `owner` is here.

    Raises:
        UserError: it is neither; the hub is not asked.
    """
    if path in SHIPPED:
        return str(resources.files("eapo_agents.policies") / path)
    if not (Path(path).is_dir() or is_hub_id(path)):
        raise UserError(
            f"no such run or model folder: {path} (a hub id is OWNER/NAME, where there is no folder"
            " OWNER)"
        )
    return path


def is_character_level(path: str) -> bool:
    """Return whether a path is a model that ships, or a folder that has its tokenizer.

    Models trained from the embedded one keep its tokenizer; they know its terse prompts only.
    """
    if path in SHIPPED:
        return True
    file = Path(path) / "tokenizer.json"
    return file.is_file() and _alphabet(file) == _alphabet(
        Path(model_folder(EMBEDDED)) / "tokenizer.json"
    )


def _alphabet(file: Path) -> object:
    """Return the vocabulary in a tokenizer's file; None if it holds none."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))["model"]["vocab"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def load_model(settings: ModelSettings) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the model, with the linear layers that are fastest here, and its tokenizer.

    The generation config of the model holds the ids that end a turn, that of the chat template
    among them, and nothing that cannot be saved.

    Raises:
        UserError: no model can be loaded from the path, its tokenizer has no files, or the
            embedding is too small for it.
    """
    from transformers import AutoModelForCausalLM

    from eapo_agents.policies.linear import (
        cpuinfo_with_avx512,
        onednn_is_faster,
        with_fast_linears,
    )

    with _loading(settings):
        model = AutoModelForCausalLM.from_pretrained(
            model_folder(settings.path), **_as_loaded(settings)
        )
    tokenizer = _tokenizer_of(model, settings)
    _set_ends(model, tokenizer)
    if onednn_is_faster(model.num_parameters(), cpuinfo_with_avx512()):
        model = with_fast_linears(model)
    return model, tokenizer


def outline_model(settings: ModelSettings) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the model without its weights, on the device "meta", and its tokenizer.

    Of a model on the hub, this loads the config and the tokenizer alone.

    Raises:
        UserError: as `load_model`, but for the weights.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with _loading(settings):
        config = AutoConfig.from_pretrained(model_folder(settings.path))
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, **_as_loaded(settings))
    return model, _tokenizer_of(model, settings)


@contextmanager
def _loading(settings: ModelSettings) -> Iterator[None]:
    """Raise a UserError that names the model for what transformers raises here."""
    from safetensors import SafetensorError

    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"no model can be loaded from {settings.path!r}: {reason}") from error


def _as_loaded(settings: ModelSettings) -> dict[str, Any]:
    """Return transformers' arguments for a model's dtype and attention."""
    import torch

    dtype = getattr(torch, settings.dtype)
    return {"dtype": dtype, "attn_implementation": settings.attention}


def _tokenizer_of(model: PreTrainedModel, settings: ModelSettings) -> PreTrainedTokenizerBase:
    """Return a model's tokenizer, whose ids are all in the model's embedding."""
    tokenizer = load_tokenizer(model_folder(settings.path), settings.template)
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise UserError(
            f"the embedding of {settings.path!r} has {rows} rows, and its tokenizer has"
            f" {len(tokenizer)} ids: resize the embedding"
        )
    return tokenizer


def load_tokenizer(
    path: str | Path, template: Mapping[str, str | bool | int | float] = NO_VARIABLES
) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model folder or hub id, variables set in its chat template.

    Where transformers builds another tokenizer than `tokenizer.json` describes, one that loses
    spaces (a byte-level one that calls itself a Llama tokenizer, as R1-Distill-Llama's does), the
    file is taken as it is.

    Raises:
        UserError: no tokenizer can be loaded, or it encodes nothing.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    path = str(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        if not _keeps_spaces(tokenizer):
            from_file = PreTrainedTokenizerFast.from_pretrained(path)
            tokenizer = from_file if _keeps_spaces(from_file) else tokenizer
    except (OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"no tokenizer can be loaded from {path!r}: {reason}") from error
    if not tokenizer.encode(_SENTENCE, add_special_tokens=False):
        raise UserError(f"the tokenizer of {path!r} encodes nothing: are its files missing?")
    for circumstance in ("local_files_only", "is_local"):  # of the loading, which would be saved
        tokenizer.init_kwargs.pop(circumstance, None)
    if isinstance(tokenizer.chat_template, str):
        for name, value in template.items():
            tokenizer.chat_template = _with_variable(tokenizer.chat_template, name, value)
    return tokenizer


def _with_variable(template: str, name: str, value: object) -> str:
    """Return a chat template that sets a variable first, and not again right after that."""
    any_setting = _setting(r"\w+")
    if earlier := re.match(rf"(?P<others>(?:{any_setting})*?){_setting(name)}", template):
        template = earlier["others"] + template[earlier.end() :]
    return f"{{%- set {name} = {json.dumps(value)} %}}{template}"


def _setting(name: str) -> str:
    """Return the pattern of the line that sets a variable to a text, a number or a truth value."""
    value = r'(?:"(?:[^"\\]|\\.)*"|true|false|-?\d[\d.eE+-]*)'
    return rf"\{{%- set {name} = {value} %\}}"


_SENTENCE = "What is 2 + 3?\n x = 4"


def _keeps_spaces(tokenizer: PreTrainedTokenizerBase) -> bool:
    ids = tokenizer.encode(_SENTENCE, add_special_tokens=False)
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False)).strip() == _SENTENCE


def cache_argument(model: PreTrainedModel, values: Cache | None) -> dict[str, Cache | None]:
    """Return the keyword argument with which a model's forward pass takes keys and values."""
    return {_name_of_cache(type(model).forward): values}


@cache
def _name_of_cache(forward: Callable[..., object]) -> str:
    """Return `cache`, as newer releases of transformers call it, or `past_key_values`."""
    return "cache" if "cache" in signature(forward).parameters else "past_key_values"


def recompute_activations(model: PreTrainedModel) -> None:
    """Let a model's layers compute their activations again in the backward pass.

    Newer releases of transformers call it `activation_checkpointing_enable`.
    """
    names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
    enable = next(getattr(model, name) for name in names if hasattr(model, name))
    enable({"use_reentrant": False})


def end_ids(released: object, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids that end a turn: released ones, the tokenizer's and the chat template's.

    Args:
        released: `eos_token_id` of a generation config: an id, a list of them or None.
        tokenizer: a base model's names the end of a document, which its template never writes.
    """
    from eapo_agents.policies.chat import Chat

    ends = [*released] if isinstance(released, list) else [released]
    template_end = Chat(tokenizer).end_of_turn if tokenizer.chat_template else None
    return sorted({end for end in (*ends, tokenizer.eos_token_id, template_end) if end is not None})


def _set_ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a model a generation config that can be saved and holds all ends of a turn."""
    from transformers import GenerationConfig

    config = model.generation_config
    if config is None:
        return
    ends = end_ids(config.eos_token_id, tokenizer)
    try:
        config.validate(strict=True)
    except ValueError:
        known = {"bos_token_id": config.bos_token_id, "pad_token_id": config.pad_token_id}
        ids = {name: id_ for name, id_ in known.items() if id_ is not None and id_ >= 0}
        config = model.generation_config = GenerationConfig(**ids)
    if ends:
        config.eos_token_id = ends if len(ends) > 1 else ends[0]


def reasoning_parser(model: str) -> str | None:
    """Return vLLM's parser for a model that reasons, by its chat template; None for any other.

    With a parser the server sends reasoning in a field of its own, so that a reply which the token
    limit cut inside its reasoning is told from one that was cut in its answer.
    """
    from eapo_agents.policies.chat import Chat

    tokenizer = load_tokenizer(model)
    template = tokenizer.chat_template
    if not isinstance(template, str):
        return None
    if "enable_thinking" in template:
        return "qwen3"
    return "deepseek_r1" if Chat(tokenizer).opened else None
