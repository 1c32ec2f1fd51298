#!/usr/bin/env bash
# transformers 5.19.0, tokenizers 0.23.3: one set of tokenizer files gives other ids with another
# `model_type` in config.json.
#
# A good guess: `tokenizer.json` and `tokenizer_config.json` decide how a text is tokenised; the
# model's config does not, and "llama" and "mistral" with a `LlamaTokenizer` are the same.
# Behaviour: for "llama" AutoTokenizer builds a LlamaTokenizer anew, whose legacy=false puts the
# space marker before the first text alone; for "mistral" it takes tokenizer.json as it is, which
# has the marker before the text after each special token as well.
# Seen:
#   llama LlamaTokenizer ['</s>', 'h', 'i']
#   mistral TokenizersBackend ['</s>', '▁', 'h', 'i']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "transformers==5.19.0" "tokenizers==0.23.3"
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PY'
import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import AutoTokenizer

texts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "h", "i"]
backend = Tokenizer(
    models.BPE({text: id_ for id_, text in enumerate(texts)}, [], unk_token="<unk>", byte_fallback=True)
)
backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
backend.add_special_tokens(["<unk>", "<s>", "</s>"])
names = {
    "tokenizer_class": "LlamaTokenizer", "legacy": False, "bos_token": "<s>", "eos_token": "</s>",
    "unk_token": "<unk>", "add_bos_token": False,
}
read = {}
for model_type in ("llama", "mistral"):
    files = Path(model_type)
    files.mkdir()
    backend.save(str(files / "tokenizer.json"))
    (files / "tokenizer_config.json").write_text(json.dumps(names))
    (files / "config.json").write_text(json.dumps({"model_type": model_type}))
    tokenizer = AutoTokenizer.from_pretrained(files)
    read[model_type] = tokenizer.convert_ids_to_tokens(
        tokenizer.encode("</s>hi", add_special_tokens=False)
    )
    print(model_type, type(tokenizer).__name__, read[model_type])
assert read["llama"] == ["</s>", "h", "i"], "this finding is out of date"
assert read["mistral"] == ["</s>", "▁", "h", "i"], "this finding is out of date"
PY
