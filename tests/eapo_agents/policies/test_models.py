"""Loading models: dtype, tokenizer, the embedded one, and errors in one line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from tiny_llama import saved, tiny_llama
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from eapo_agents.policies.characters import char_tokenizer
from eapo_agents.policies.chat import Chat
from eapo_agents.policies.models import ModelSettings, load_model, load_tokenizer, model_folder
from eapo_env.validation import UserError


def test_a_folder_is_loaded_in_the_wanted_dtype(tiny_model: Path) -> None:
    for dtype in ("float32", "bfloat16"):
        model, tokenizer = load_model(ModelSettings(path=str(tiny_model), dtype=dtype))
        assert {weight.dtype for weight in model.parameters()} == {getattr(torch, dtype)}
        text = "p1\nask 3, turns 2 \\boxed{3}"
        assert tokenizer.encode(text) == char_tokenizer().encode(text)


@pytest.mark.parametrize("config", [None, "{}", '{"model_type": "llama"}', '{"model_type": "?"}'])
def test_a_path_that_is_no_model_is_an_error(tmp_path: Path, config: str | None) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config, encoding="utf-8")
    with pytest.raises(ValueError, match=f"no model can be loaded from '{tmp_path}'") as caught:
        load_model(ModelSettings(path=str(tmp_path)))
    assert "\n" not in str(caught.value)


def test_damaged_weights_are_an_error(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=f"no model can be loaded from '{folder}'"):
        load_model(ModelSettings(path=str(folder)))


def test_attention_is_computed_in_the_wanted_way(tiny_model: Path) -> None:
    ids = torch.arange(1, 9)[None]
    logits = []
    for attention in ("sdpa", "eager"):
        model, _ = load_model(ModelSettings(path=str(tiny_model), attention=attention))
        assert model.config._attn_implementation == attention
        logits.append(model(ids).logits)
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-4)


def test_an_attention_that_is_not_there_is_an_error(tiny_model: Path) -> None:
    with pytest.raises(ValueError, match=r"no model can be loaded .*no_such_kernel"):
        load_model(ModelSettings(path=str(tiny_model), attention="no_such_kernel"))


@pytest.mark.parametrize("path", ["/no/such/model", "./model", "a/b/c", "runs/nothing", "emb"])
def test_a_folder_that_is_not_there_is_called_so(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(f"no such run or model folder: {path} (a hub")):
        model_folder(path)


def test_a_hub_id_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert model_folder("Qwen/Qwen2.5-0.5B-Instruct") == "Qwen/Qwen2.5-0.5B-Instruct"


def byte_level_folder(folder: Path, tiny_model: Path, **names: object) -> Path:
    """Return the tiny model with a byte-level tokenizer that says how it is called."""
    backend = Tokenizer(models.BPE({c: i for i, c in enumerate(ALPHABET)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(t, normalized=False) for t in ("<bos>", "<end>")])
    shutil.copytree(tiny_model, folder)
    backend.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<bos>", "eos_token": "<end>", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())


@pytest.mark.parametrize("name", ["LlamaTokenizerFast", "PreTrainedTokenizerFast"])
def test_spaces_stay_whatever_a_tokenizer_calls_itself(
    tiny_model: Path, tmp_path: Path, name: str
) -> None:
    """transformers#45488, #45920: a byte-level tokenizer named after Llama loses its spaces."""
    folder = byte_level_folder(tmp_path / "r1", tiny_model, tokenizer_class=name)
    tokenizer = load_tokenizer(folder)
    text = "What is 2 + 3?\n x = 4"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert tokenizer.eos_token == "<end>"


def test_missing_tokenizer_files_are_an_error(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    for file in folder.glob("*token*"):
        file.unlink()
    config = json.loads((folder / "config.json").read_text())
    for kind in ("qwen2", "llama"):
        (folder / "config.json").write_text(json.dumps(config | {"model_type": kind}))
        with pytest.raises(UserError, match="tokenizer"):
            load_model(ModelSettings(path=str(folder)))


def test_an_embedding_that_is_too_small_is_an_error(tmp_path: Path) -> None:
    folder = saved(tiny_llama(vocab_size=100), tmp_path / "small")
    with pytest.raises(UserError, match=r"has 100 rows, and its tokenizer has 1\d\d ids: resize"):
        load_model(ModelSettings(path=str(folder)))


@pytest.mark.parametrize(
    "released",
    [
        {"temperature": 0.9, "top_p": 0.6},
        {"do_sample": False, "temperature": 1e-6},
        {"pad_token_id": -1},
        {"do_sample": True, "temperature": 0.6},
    ],
)
def test_a_generation_config_that_loads_can_be_saved(
    tiny_model: Path, tmp_path: Path, released: dict[str, object]
) -> None:
    """transformers#29988, OpenRLHF#212: the first three load and cannot be saved."""
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | released))
    model, _ = load_model(ModelSettings(path=str(folder)))
    model.save_pretrained(tmp_path / "saved")
    assert load_model(ModelSettings(path=str(tiny_model)))[0].generation_config.eos_token_id == (
        model.generation_config.eos_token_id
    )


def test_the_templates_end_of_turn_is_saved_with_the_model(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Qwen3#927: a base model's files name the end of a document only."""
    folder = shutil.copytree(tiny_model, tmp_path / "base")
    tokenizer = char_tokenizer()
    tokenizer.eos_token = "<pad>"
    tokenizer.save_pretrained(folder)
    file = folder / "generation_config.json"
    file.write_text(json.dumps({"eos_token_id": tokenizer.pad_token_id}))
    model, _ = load_model(ModelSettings(path=str(folder)))
    ends = {tokenizer.convert_tokens_to_ids(end) for end in ("<pad>", "<|im_end|>")}
    assert set(model.generation_config.eos_token_id) == ends


def test_variables_of_the_template_are_set_and_saved(tiny_model: Path, tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['content'] + '<|im_end|>' }}{% endfor %}"
        "{{ '' if enable_thinking is defined and not enable_thinking else '<think>' }}"
        "{{ date_string if date_string is defined else '' }}"
    )
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    settings = ModelSettings(path=str(folder), template={"enable_thinking": False})
    _, tokenizer = load_model(settings)
    assert Chat(tokenizer).opened == ""
    tokenizer.save_pretrained(tmp_path / "saved")
    assert Chat(load_tokenizer(tmp_path / "saved")).opened == ""
    again = load_tokenizer(tmp_path / "saved", {"date_string": "2nd", "enable_thinking": True})
    assert Chat(again).opened == "<think>2nd"
    again.save_pretrained(tmp_path / "again")
    third = load_tokenizer(tmp_path / "again", {"enable_thinking": False})
    assert Chat(third).opened == ""
    assert third.chat_template.count("set enable_thinking =") == 1
    assert 'set date_string = "2nd"' in third.chat_template, "others stay as they were saved"
    odd = load_tokenizer(folder, {"date_string": '50% "} %}'})
    odd.save_pretrained(tmp_path / "odd")
    fourth = load_tokenizer(tmp_path / "odd", {"enable_thinking": False, "date_string": "3rd"})
    assert "50%" not in fourth.chat_template
    assert fourth.chat_template.endswith(template)
    assert Chat(load_tokenizer(folder)).opened == "<think>"
    dated = load_tokenizer(folder, {"date_string": 'the "1st"'})
    assert Chat(dated).opened == '<think>the "1st"'
    with pytest.raises(UserError, match="template variables must be identifiers, not 'a-b'"):
        ModelSettings(template={"a-b": 1})


def test_a_saved_tokenizer_does_not_tell_how_it_was_loaded(tmp_path: Path) -> None:
    """transformers 5.19 saves whether the hub was offline, so that equal runs would differ."""
    load_tokenizer(model_folder("embedded")).save_pretrained(tmp_path)
    saved_keys = json.loads((tmp_path / "tokenizer_config.json").read_text()).keys()
    assert not saved_keys & {"local_files_only", "is_local"}
