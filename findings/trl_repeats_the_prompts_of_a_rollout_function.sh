#!/usr/bin/env bash
# trl 1.16.0, transformers 5.19.0: a `rollout_func` gets every prompt `num_generations` times.
#
# A good guess, from the docstring of GRPOTrainer ("receives the raw per-process prompt slice with no
# duplication; it is responsible for returning the correct number of completions per prompt"): the
# function gets each prompt once, and returns `num_generations` completions for it.
# Behaviour: the prompts come repeated, in blocks, and one completion is wanted for each; a function
# that returns `num_generations` for each prompt gives num_generations^2 rows.
# Seen (2 prompts a step, num_generations=4):
#   ['a', 'a', 'a', 'a', 'b', 'b', 'b', 'b']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.13.0" "transformers==5.19.0" "trl==1.16.0"
cd "$folder"
HF_HUB_OFFLINE=1 TRL_EXPERIMENTAL_SILENCE=1 "$folder/venv/bin/python" - <<'PY'
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
model = LlamaForCausalLM(LlamaConfig(vocab_size=8, **sizes))
words = Tokenizer(models.WordLevel({str(n): n for n in range(8)}, unk_token="0"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="0", eos_token="1")
seen = []


def rollout(prompts, trainer):
    seen.append(list(prompts))
    rows = range(len(prompts))
    return {
        "prompt_ids": [[2] for _ in rows],
        "completion_ids": [[3, 1] for _ in rows],
        "logprobs": [[-1.0, -1.0] for _ in rows],
    }


trainer = GRPOTrainer(
    model,
    processing_class=tokenizer,
    rollout_func=rollout,
    reward_funcs=lambda prompts, completions, **row: [float(n % 2) for n in range(len(prompts))],
    train_dataset=Dataset.from_dict({"prompt": ["a", "b"]}),
    args=GRPOConfig(
        output_dir="out", max_steps=1, num_generations=4, per_device_train_batch_size=8,
        shuffle_dataset=False, use_cpu=True, bf16=False, report_to=[], disable_tqdm=True,
        save_strategy="no",
    ),
)
trainer.train()
print(seen[0])
assert seen[0] == ["a"] * 4 + ["b"] * 4, "this finding is out of date"
PY
