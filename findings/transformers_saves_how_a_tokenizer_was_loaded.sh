#!/usr/bin/env bash
# transformers 5.19.0: a saved tokenizer tells whether the hub was offline when it was loaded.
#
# A good guess: what save_pretrained writes follows from the tokenizer. So two checkpoints of equal runs
# are equal files, and a loaded tokenizer that is saved again is what it was.
# Behaviour: tokenizer_config.json gets `local_files_only`, true with HF_HUB_OFFLINE=1 and false without,
# and `is_local`. A run that is resumed with another environment writes other checkpoints.
# Seen:
#   HF_HUB_OFFLINE=0: is_local True, local_files_only False
#   HF_HUB_OFFLINE=1: is_local True, local_files_only True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "transformers==5.19.0"
cd "$folder"
cat > save.py <<'PY'
import json
import os
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoTokenizer, PreTrainedTokenizerFast

words = Tokenizer(WordLevel({"two": 0, "[UNK]": 1}, unk_token="[UNK]"))
PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained("made")
assert "local_files_only" not in json.loads(Path("made/tokenizer_config.json").read_text())
AutoTokenizer.from_pretrained("made").save_pretrained("again")
config = json.loads(Path("again/tokenizer_config.json").read_text())
offline = os.environ["HF_HUB_OFFLINE"]
found = {name: config.get(name) for name in ("is_local", "local_files_only")}
print(f"HF_HUB_OFFLINE={offline}: " + ", ".join(f"{name} {value}" for name, value in found.items()))
expected = {"is_local": True, "local_files_only": offline == "1"}
assert found == expected, "this finding is out of date"
PY
for offline in 0 1; do
  HF_HUB_OFFLINE=$offline "$folder/venv/bin/python" save.py 2>/dev/null
done
