#!/usr/bin/env bash
# torchrl 0.14.1, tensordict 0.14.3: GRPOLoss gives another loss for one advantage a token than for
# the same advantage once a sequence, where sequences differ in length.
#
# A good guess: an advantage of shape [T, 1] that is the same at every token is the same as one of
# shape [1, 1], which is broadcast over the tokens.
# Behaviour: ragged ids and log-probabilities are padded on the left, ragged advantages on the right
# (the default of `get(..., as_padded_tensor=True)`): the shorter sequence's tokens get the zeros of
# the padding, and lose part of their advantage.
# Seen (6 policy tokens of ratio 1; by hand (4 * -1 + 2 * 1) / 6 = -1/3):
#   once a sequence: -0.3333
#   once a token:    -0.6667
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.13.0" "torchrl==0.14.1" "tensordict==0.14.3" "transformers==5.19.0"
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PY'
import torch
from tensordict import TensorDict, lazy_stack
from tokenizers import Tokenizer, models
from torchrl.modules.llm import TransformersWrapper
from torchrl.objectives.llm import GRPOLoss
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

torch.manual_seed(0)
sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
model = LlamaForCausalLM(LlamaConfig(vocab_size=8, **sizes)).eval()
words = Tokenizer(models.WordLevel({str(n): n for n in range(8)}, unk_token="0"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="0", eos_token="1")
actor = TransformersWrapper(
    model, tokenizer=tokenizer, input_mode="tokens", generate=False, return_log_probs=True
)
loss = GRPOLoss(actor, masking_strategy="rlhf", entropy_bonus=False)


def row(length, advantage):
    """A prompt of one id, then the policy's; log-probabilities are the model's own."""
    ids = torch.arange(2, 2 + length)
    with torch.no_grad():
        logits = model(input_ids=ids[None, :-1]).logits[0].log_softmax(-1)
    own = torch.cat([torch.zeros(1), logits.gather(1, ids[1:, None])[:, 0]])
    mask = torch.arange(length) > 0
    return TensorDict({
        ("tokens", "full"): ids,
        ("masks", "all_attention_mask"): torch.ones(length, dtype=torch.bool),
        ("masks", "all_assistant_mask"): mask,
        ("log_probs", "full"): own,
        "advantage": advantage,
    })


once = lazy_stack([row(5, torch.tensor([[1.0]])), row(3, torch.tensor([[-1.0]]))])
each = lazy_stack([row(5, torch.full((5, 1), 1.0)), row(3, torch.full((3, 1), -1.0))])
found = [loss(batch).loss_objective.item() for batch in (once, each)]
print(f"once a sequence: {found[0]:.4f}\nonce a token:    {found[1]:.4f}")
assert abs(found[0] - -1 / 3) < 1e-4, "this finding is out of date"
assert abs(found[1] - found[0]) > 0.1, "this finding is out of date"
PY
