"""The tokenizer of the embedded model: one id for each ASCII character and each tag of the grammar.

At most 128 ids, so that the embeddings of a model of a million parameters stay small.
"""

from __future__ import annotations

import string
from typing import Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, START, END = "<pad>", "<unk>", "<|im_start|>", "<|im_end|>"
CHARACTERS: Final = "\n " + string.digits + string.ascii_letters + string.punctuation
TAGS: Final = (
    "<consult>",
    "</consult>",
    "<query>",
    "</query>",
    "<reply>",
    "</reply>",
    "<think>",
    "</think>",
    "\\boxed{",
)

# Two ids a message that the policy reads, one for each that it writes: END is its end of turn.
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] != 'assistant' %}" + START + "{% endif %}"
    "{{ message['content'] }}" + END + "{% endfor %}"
)


def char_tokenizer() -> PreTrainedTokenizerFast:
    """Return the character tokenizer, with its chat template.

    Each printable ASCII character, the newline and each tag of the grammar is one id; any other
    character is `<unk>`. In text encoded with `split_special_tokens=True`, only the chat template
    produces `<|im_start|>` and `<|im_end|>`.
    """
    special = (PAD, UNKNOWN, START, END)
    vocabulary = {token: i for i, token in enumerate((*special, *CHARACTERS, *TAGS))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    backend.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[START],
        chat_template=_CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
