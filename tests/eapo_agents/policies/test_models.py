"""Loading models: dtype, tokenizer, the embedded one, and errors in one line."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

from eapo_agents.policies.characters import char_tokenizer
from eapo_agents.policies.models import ModelSettings, load_model, model_folder
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
