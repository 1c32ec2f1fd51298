"""Families of language models from scratch: the class, the tokenizer and the chat template of each.

The weights are random and tiny. Tokenizers have the build of the family: its pre-tokenizer, which
added tokens are flagged special, the class that `tokenizer_config.json` names. Templates write what
the family's do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import GenerationConfig, PreTrainedModel

SIZES: Mapping[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 96, "max_position_embeddings": 512, "initializer_range": 0.2,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
_HEAD = {"head_dim": 16}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
_ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
_LATENT = {"kv_lora_rank": 32, "q_lora_rank": 32, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
           "v_head_dim": 16, "n_group": 2, "topk_group": 1, "num_key_value_heads": 4}  # fmt: skip
_TEXT = "What is the sum of the parts? First add 12 and 34, then take it times 5; so it is 230.\n"


@dataclass(frozen=True, slots=True)
class Shape:
    """A tokenizer and a chat template.

    Args:
        build: makes the tokenizer.
        template: in Jinja.
        names: `tokenizer_config.json`.
        ends: tokens that `generation_config.json` ends at.
        end_of_turn: with which the template ends a turn of the assistant; None if it has several.
    """

    build: Callable[[], Tokenizer]
    template: str
    names: Mapping[str, Any]
    ends: tuple[str, ...]
    end_of_turn: str | None


@dataclass(frozen=True, slots=True)
class Family:
    """A model class in the manner of released models, and what it can do here.

    Args:
        models: released models of this shape.
        config: the name of its class in transformers, without the ending.
        sizes: settings of its own.
        shape: its tokenizer and template.
        attention: transformers' implementation.
    """

    models: str
    config: str
    sizes: Mapping[str, Any] = field(default_factory=dict, hash=False)
    shape: str = "chatml"
    attention: str = "sdpa"


def byte_level(special: tuple[str, ...], plain: tuple[str, ...] = ()) -> Tokenizer:
    """Return a tokenizer of bytes, which has every text, as GPT-2's, Qwen's or Llama 3's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    return _trained(tokenizer, trainer, special, plain)


def sentence_pieces(
    special: tuple[str, ...], plain: tuple[str, ...] = (), *, prefix: bool = True, **flags: bool
) -> Tokenizer:
    """Return a tokenizer of characters with ▁ for a space, as Llama 2's, Phi-3's or Gemma's."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    known = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=known, show_progress=False)
    tokenizer = _trained(tokenizer, trainer, special, plain, **flags)
    description = json.loads(tokenizer.to_str()) | {"pre_tokenizer": None}
    tokenizer = Tokenizer.from_str(json.dumps(description))
    marks: list[Any] = [normalizers.Prepend("▁")] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*marks, normalizers.Replace(" ", "▁")])
    strip: list[Any] = [decoders.Strip(" ", 1, 0)] if prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


def _trained(
    tokenizer: Tokenizer,
    trainer: trainers.BpeTrainer,
    special: tuple[str, ...],
    plain: tuple[str, ...],
    **flags: bool,
) -> Tokenizer:
    tokenizer.train_from_iterator([_TEXT] * 4, trainer)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, **flags) for t in special])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in plain])
    return tokenizer


_EACH = "{% for m in messages %}"
_PROMPT = "{% endfor %}{% if add_generation_prompt %}"
_CHATML = (
    _EACH + "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    + _PROMPT + "{{ '<|im_start|>assistant\n' }}{% endif %}"
)  # fmt: skip
_QWEN3 = (
    _EACH + "{{ '<|im_start|>' + m['role'] + '\n' + m['content'].split('</think>')[-1].lstrip('\n')"
    " + '<|im_end|>\n' }}" + _PROMPT + "{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
_R1 = (
    "{{ bos_token }}" + _EACH + "{% if m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}"
    "{% else %}{{ '<｜Assistant｜>' + m['content'].split('</think>')[-1]"
    " + '<｜end▁of▁sentence｜>' }}{% endif %}"
    + _PROMPT
    + "{{ '<｜Assistant｜><think>\n' }}{% endif %}"
)
_LLAMA2 = (
    "{{ bos_token }}" + _EACH + "{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + '</s>' }}{% endif %}{% endfor %}"
)
_LLAMA3 = (
    "{{ bos_token }}{{ '<|start_header_id|>system<|end_header_id|>\n\nToday Date: '"
    " + strftime_now('%d %b %Y') + '<|eot_id|>' }}" + _EACH
    + "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim"
    " + '<|eot_id|>' }}" + _PROMPT
    + "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)  # fmt: skip
_MISTRAL = (
    "{{ bos_token }}" + _EACH
    + "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + '[/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)  # fmt: skip
_PHI3 = (
    _EACH + "{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}"
    + _PROMPT + "{{ '<|assistant|>\n' }}{% endif %}"
)  # fmt: skip
_PHI4 = (
    _EACH + "{{ '<|im_start|>' + m['role'] + '<|im_sep|>' + m['content'] + '<|im_end|>' }}"
    + _PROMPT + "{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)  # fmt: skip
_GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}" + _EACH
    + "{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}"
    + _PROMPT + "{{ '<start_of_turn>model\n' }}{% endif %}"
)  # fmt: skip
_HARMONY = (
    _EACH + "{% if m['role'] == 'assistant' %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + m['content'] + '<|end|>' }}"
    "{% else %}{{ '<|start|>' + m['role'] + '<|message|>' + m['content'] + '<|end|>' }}{% endif %}"
    + _PROMPT + "{{ '<|start|>assistant' }}{% endif %}"
)  # fmt: skip
_GLM = (
    "[gMASK]<sop>" + _EACH + "{{ '<|' + m['role'] + '|>\n' + m['content'] }}"
    + _PROMPT + "{{ '<|assistant|>\n' }}{% endif %}"
)  # fmt: skip
_COMMAND = (
    "{{ bos_token }}" + _EACH + "{% set who = 'CHATBOT' if m['role'] == 'assistant' else 'USER' %}"
    "{{ '<|START_OF_TURN_TOKEN|><|' + who + '_TOKEN|>' + m['content'] + '<|END_OF_TURN_TOKEN|>' }}"
    + _PROMPT + "{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"
)  # fmt: skip


def _chatml(eos: str, *ends: str, template: str = _CHATML) -> Shape:
    return Shape(
        lambda: byte_level(
            ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), ("<think>", "</think>")
        ),
        template,
        {"tokenizer_class": "Qwen2Tokenizer", "eos_token": eos, "pad_token": "<|endoftext|>"},
        ends,
        "<|im_end|>",
    )


SHAPES: Mapping[str, Shape] = {
    "chatml": _chatml("<|im_end|>", "<|im_end|>", "<|endoftext|>"),
    "chatml-base": _chatml("<|endoftext|>", "<|endoftext|>"),
    "qwen3": _chatml("<|im_end|>", "<|im_end|>", "<|endoftext|>", template=_QWEN3),
    "r1": Shape(
        lambda: byte_level(
            ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
            ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"),
        ),
        _R1,
        {
            "tokenizer_class": "LlamaTokenizerFast", "legacy": True,
            "bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>",
            "pad_token": "<｜end▁of▁sentence｜>",
        },
        ("<｜end▁of▁sentence｜>",),
        "<｜end▁of▁sentence｜>",
    ),
    "llama2": Shape(
        lambda: sentence_pieces(()),
        _LLAMA2,
        {
            "tokenizer_class": "LlamaTokenizer", "legacy": False, "bos_token": "<s>",
            "eos_token": "</s>", "unk_token": "<unk>",
        },
        ("</s>",),
        "</s>",
    ),
    "llama3": Shape(
        lambda: byte_level(
            ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
             "<|eot_id|>")
        ),
        _LLAMA3,
        {
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>",
            "eos_token": "<|eot_id|>",
        },
        ("<|end_of_text|>", "<|eot_id|>"),
        "<|eot_id|>",
    ),
    "mistral": Shape(
        lambda: sentence_pieces(("[INST]", "[/INST]")),
        _MISTRAL,
        {
            "tokenizer_class": "LlamaTokenizer", "legacy": False, "bos_token": "<s>",
            "eos_token": "</s>", "unk_token": "<unk>",
        },
        ("</s>",),
        "</s>",
    ),
    "nemo": Shape(
        lambda: byte_level(("<s>", "</s>", "[INST]", "[/INST]")),
        _MISTRAL,
        {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"},
        ("</s>",),
        "</s>",
    ),
    "phi3": Shape(
        lambda: sentence_pieces(
            ("<|endoftext|>", "<|assistant|>", "<|end|>", "<|user|>"), rstrip=True
        ),
        _PHI3,
        {
            "tokenizer_class": "LlamaTokenizer", "legacy": False, "bos_token": "<s>",
            "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<unk>",
        },
        ("<|endoftext|>", "<|end|>"),
        "<|end|>",
    ),
    "phi4": Shape(
        lambda: byte_level(("<|endoftext|>", "<|im_start|>", "<|im_sep|>", "<|im_end|>")),
        _PHI4,
        {
            "tokenizer_class": "GPT2Tokenizer", "bos_token": "<|endoftext|>",
            "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
        },
        ("<|im_end|>", "<|endoftext|>"),
        "<|im_end|>",
    ),
    "gemma": Shape(
        lambda: sentence_pieces(
            ("<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>"), prefix=False
        ),
        _GEMMA,
        {
            "tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "eos_token": "<eos>",
            "pad_token": "<pad>", "unk_token": "<unk>",
        },
        ("<eos>", "<end_of_turn>"),
        "<end_of_turn>",
    ),
    "harmony": Shape(
        lambda: byte_level(
            ("<|startoftext|>", "<|endoftext|>", "<|return|>", "<|start|>", "<|channel|>",
             "<|message|>", "<|end|>", "<|call|>")
        ),
        _HARMONY,
        {
            "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|return|>",
            "pad_token": "<|endoftext|>",
        },
        ("<|return|>", "<|endoftext|>", "<|call|>"),
        None,
    ),
    "glm": Shape(
        lambda: byte_level(
            ("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>")
        ),
        _GLM,
        {
            "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
        },
        ("<|endoftext|>", "<|user|>"),
        "<|user|>",
    ),
    "command": Shape(
        lambda: byte_level(
            ("<BOS_TOKEN>", "<PAD>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>",
             "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>")
        ),
        _COMMAND,
        {
            "tokenizer_class": "CohereTokenizerFast", "bos_token": "<BOS_TOKEN>",
            "eos_token": "<|END_OF_TURN_TOKEN|>", "pad_token": "<PAD>",
        },
        ("<|END_OF_TURN_TOKEN|>",),
        "<|END_OF_TURN_TOKEN|>",
    ),
}  # fmt: skip

_LONG_ROPE = {
    "sliding_window": None, "original_max_position_embeddings": 128,
    "rope_parameters": {
        "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 8,
        "long_factor": [4.0 + i for i in range(8)], "original_max_position_embeddings": 128,
    },
}  # fmt: skip
_LLAMA3_ROPE = {
    "rope_parameters": {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 128,
    }
}  # fmt: skip
_WINDOW = _HEAD | {"sliding_window": 32}
_GEMMA_OWN = _WINDOW | {"query_pre_attn_scalar": 16}
_HYBRID = _HEAD | {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}  # fmt: skip
_GPTJ = {"n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 512, "rotary_dim": 8}

FAMILIES: tuple[Family, ...] = (
    Family("Qwen2.5 Instruct", "Qwen2"),
    Family("Qwen2.5 base", "Qwen2", shape="chatml-base"),
    Family("R1-Distill-Qwen", "Qwen2", shape="r1"),
    Family("R1-Distill-Llama", "Llama", shape="r1"),
    Family("Qwen3", "Qwen3", _HEAD, shape="qwen3"),
    Family("Qwen3 MoE", "Qwen3Moe", _HEAD | _EXPERTS, shape="qwen3"),
    Family("Qwen3-Next", "Qwen3Next", _HYBRID | _EXPERTS | {"shared_expert_intermediate_size": 32}),
    Family("Qwen3.5", "Qwen3_5", _HYBRID, shape="qwen3"),
    Family("Llama 2", "Llama", shape="llama2"),
    Family("Llama 3", "Llama", _LLAMA3_ROPE, shape="llama3"),
    Family("Mistral 7B v0.3", "Mistral", {"sliding_window": None}, shape="mistral"),
    Family("Mistral 7B v0.1", "Mistral", {"sliding_window": 32}, shape="mistral"),
    Family("Mistral Nemo", "Mistral", _HEAD | {"sliding_window": None}, shape="nemo"),
    Family("Mixtral", "Mixtral", {"num_local_experts": 4, "sliding_window": None}, shape="mistral"),
    Family("Phi-3", "Phi3", {"sliding_window": None}, shape="phi3"),
    Family("Phi-3.5 (LongRoPE)", "Phi3", _LONG_ROPE, shape="phi3"),
    Family("Phi-4", "Phi3", {"sliding_window": None}, shape="phi4"),
    Family("SmolLM2", "Llama"),
    Family("SmolLM3", "SmolLM3", {"no_rope_layers": [1, 1, 1, 0]}, shape="qwen3"),
    Family("Gemma 1", "Gemma", _HEAD, shape="gemma"),
    Family("Gemma 2", "Gemma2", _GEMMA_OWN, shape="gemma", attention="eager"),
    Family("Gemma 3", "Gemma3", _GEMMA_OWN, shape="gemma"),
    Family("gpt-oss", "GptOss", _WINDOW | {"num_local_experts": 4, "num_experts_per_tok": 2},
           shape="harmony", attention="eager"),
    Family("DeepSeek-V2", "DeepseekV2", _ROUTED | _LATENT, shape="r1"),
    Family("DeepSeek-V3", "DeepseekV3", _ROUTED | _LATENT | {"first_k_dense_replace": 1},
           shape="r1"),
    Family("GLM-4", "Glm4", _HEAD, shape="glm"),
    Family("GLM-4.5", "Glm4Moe", _HEAD | _ROUTED | {"n_group": 1, "topk_group": 1}, shape="glm"),
    Family("OLMo 2", "Olmo2"),
    Family("OLMo 3", "Olmo3", {"sliding_window": 32}),
    Family("OLMoE", "Olmoe", _EXPERTS),
    Family("Granite 3", "Granite"),
    Family("Granite 3 MoE", "GraniteMoe", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    Family("Command R", "Cohere", shape="command"),
    Family("Command A", "Cohere2", _WINDOW, shape="command"),
    Family("LFM2", "Lfm2", {"block_dim": 64, "block_ff_dim": 96, "full_attn_idxs": [1, 3]}),
    Family("StableLM", "StableLm"),
    Family("Starcoder 2", "Starcoder2", {"sliding_window": None}),
    Family("Phi-2", "Phi"),
    Family("Phi-3.5 MoE", "Phimoe", {"num_local_experts": 4, "sliding_window": None}),
    Family("Pythia", "GPTNeoX"),
    Family("AFM", "Arcee"),
    Family("Apertus", "Apertus"),
    Family("Seed-OSS", "SeedOss", _HEAD),
    Family("Hunyuan", "HunYuanDenseV1", _HEAD),
    Family("ERNIE 4.5", "Ernie4_5", _HEAD),
    Family("EXAONE 4", "Exaone4", {"sliding_window": 32, "sliding_window_pattern": 4}),
    Family("Nemotron", "Nemotron"),
    Family("Helium", "Helium", _HEAD),
    Family("dots.llm1", "Dots1",
           _HEAD | _ROUTED | {"n_group": 1, "topk_group": 1, "n_shared_experts": 1}),
    Family("MiniMax-M2", "MiniMaxM2", _HEAD | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    Family("GPT-2", "GPT2", {"n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 512}),
    Family("Falcon", "Falcon", {"num_kv_heads": 2}),
    Family("GPT-J", "GPTJ", _GPTJ, attention="eager"),
    Family("CodeGen", "CodeGen", _GPTJ, attention="eager"),
)  # fmt: skip


def family_of(models: str) -> Family:
    """Return the family of some released models."""
    return next(family for family in FAMILIES if family.models == models)


@cache
def tokenizer_of(shape: str) -> Tokenizer:
    """Return the tokenizer of a shape; the same one each time."""
    return SHAPES[shape].build()


def made(family: Family, folder: Path, **changes: Any) -> Path:
    """Write a family's model, tokenizer and configs to a folder, as a release has them."""
    shape, tokenizer = SHAPES[family.shape], tokenizer_of(family.shape)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    added = {
        str(token.pop("id")): token for token in json.loads(tokenizer.to_str())["added_tokens"]
    }
    names = {**shape.names, "added_tokens_decoder": added, "model_max_length": 4096}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    (folder / "chat_template.jinja").write_text(shape.template)
    model = model_of(family, **changes)
    ends = [tokenizer.token_to_id(end) for end in shape.ends]
    model.generation_config = GenerationConfig(eos_token_id=ends)
    model.save_pretrained(folder)
    return folder


def model_of(family: Family, **changes: Any) -> PreTrainedModel:
    """Return a family's model with fresh weights; a vocabulary of a multiple of 64 ids."""
    torch.manual_seed(0)
    vocabulary = -(-tokenizer_of(family.shape).get_vocab_size() // 64) * 64
    name = "Gemma3Text" if family.config == "Gemma3" else family.config
    name = "Qwen3_5Text" if family.config == "Qwen3_5" else name
    sizes = {**SIZES, "vocab_size": vocabulary, **family.sizes, **changes}
    config = getattr(transformers, f"{name}Config")(**sizes)
    head = "LMHeadModel" if family.config == "GPT2" else "ForCausalLM"
    cls = getattr(transformers, family.config + head)
    model: PreTrainedModel = cls._from_config(config, attn_implementation=family.attention)
    return model.eval()
