"""[edge] GGUF files (llama.cpp's format) as model folders: plain weights, tokenizer, chat template.

transformers reads such a file, with gaps that this module closes: it refuses to save the weights
that it has dequantised, it splits text in the manner of GPT-2 where it does not know the file's
pre-tokenizer, and it names one end of a turn where a chat model may have two. The weights are
rounded to bfloat16: as float32 many would lie exactly between two of its values, and a tiny
update would tip all of them at once as soon as something computes in bfloat16.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eapo_agents.files import write_folder
from eapo_agents.policies.models import end_ids, load_tokenizer
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_DIGITS_APART = ("smollm", "starcoder", "refact", "command-r", "codeshell", "minerva-7b")
_AS_GPT_2 = ("gpt-2", "phi-2", "mpt", "olmo")
_SENTENCES = (
    "What is 12 + 345?\n\n  It's 357.",
    "<consult>\n<query>7 * 8</query>\n</consult>",
    "\\boxed{42} \t数学 😀",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedModel:
    """What a GGUF file held.

    Args:
        architecture: its name in transformers.
        num_parameters: tied weights counted once.
        end_tokens: the tokens that end a turn.
        has_template: whether the file has a chat template; without one it is a base model.
    """

    architecture: str
    num_parameters: int
    end_tokens: tuple[str, ...]
    has_template: bool


def import_gguf(file: Path, folder: Path) -> ImportedModel:
    """Write the model in a GGUF file to a new folder in Hugging Face format; return what it is.

    Raises:
        UserError: no GGUF file, an architecture that transformers cannot read, a pre-tokenizer that
            nothing here knows, or a folder that holds something.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder")
    fields = _fields(file)
    source: dict[str, Any] = {"gguf_file": file.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **source)
        _set_pre_tokenizer(tokenizer, file, str(fields.get("tokenizer.ggml.pre", "default")))
        model = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.bfloat16, **source)
    except UserError:
        raise
    except (OSError, ValueError, LookupError, NotImplementedError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file} cannot be read: {reason}") from error
    ends = _set_ends(model, tokenizer, fields.get("tokenizer.ggml.eot_token_id"))

    def write(place: Path) -> None:
        _as_plain_weights(model).save_pretrained(place)
        tokenizer.save_pretrained(place)
        _check_same_ids(tokenizer, place)

    write_folder(folder, write, mode=file.stat().st_mode)
    return ImportedModel(
        architecture=type(model).__name__,
        num_parameters=sum(weight.numel() for weight in model.parameters()),
        end_tokens=tuple(tokenizer.convert_ids_to_tokens(ends)),
        has_template=bool(tokenizer.chat_template),
    )


def _fields(file: Path) -> dict[str, object]:
    """Return the metadata of a GGUF file, without its long lists."""
    from gguf import GGUFReader

    try:
        fields = GGUFReader(file).fields
    except (OSError, ValueError, LookupError) as error:
        raise UserError(f"{file} is not a GGUF file: {error}") from error
    return {name: field.contents() for name, field in fields.items() if len(field.data) == 1}


def _set_pre_tokenizer(tokenizer: PreTrainedTokenizerBase, file: Path, name: str) -> None:
    """Give a byte-level tokenizer the pre-tokenizer that the file names.

    A plain one is what transformers builds where it does not know the name.
    """
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    backend = tokenizer.backend_tokenizer
    built = json.loads(backend.to_str())["pre_tokenizer"] or {}
    if built.get("type") != "ByteLevel" or name in _AS_GPT_2:
        return
    if name not in _DIGITS_APART:
        raise UserError(
            f"{file} splits text in the manner {name!r}, which cannot be built here: its tokens"
            " would be others; use the model's own folder or hub id"
        )
    backend.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )


def _set_ends(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, end_of_turn: object
) -> list[int]:
    """Name all ends of a turn in the generation config; return them."""
    config = model.generation_config
    assert config is not None, "a causal language model has one"
    released = config.eos_token_id
    listed = released if isinstance(released, list) else [released]
    ends = end_ids([*listed, end_of_turn], tokenizer)
    if ends:
        config.eos_token_id = ends if len(ends) > 1 else ends[0]
    return ends


def _as_plain_weights(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model without the marks of a quantised one: its weights are numbers by now."""
    model.hf_quantizer = None
    for name in ("quantization_config", "_pre_quantization_dtype", "_model_name_or_path"):
        if hasattr(model.config, name):
            delattr(model.config, name)
    return model


def _check_same_ids(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Raise a UserError if the tokenizer that was written reads some sentences otherwise."""
    written = load_tokenizer(folder)
    for sentence in _SENTENCES:
        built, read = (
            one.encode(sentence, add_special_tokens=False) for one in (tokenizer, written)
        )
        if built != read:
            raise UserError(f"{folder}: its tokenizer reads {sentence!r} as {read}, not {built}")
