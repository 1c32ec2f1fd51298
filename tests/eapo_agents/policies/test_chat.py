"""Token histories under several chat templates, hostile content, and the character tokenizer."""

from __future__ import annotations

import string
from functools import cache

import pytest
from hypothesis import given, settings, strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from eapo_agents.policies.characters import CHARACTERS, TAGS, char_tokenizer
from eapo_agents.policies.chat import Chat, TokenHistory, cut_tokens, plain_ids
from eapo_agents.policies.policy import Completion
from eapo_env.answers import extract_answer
from eapo_env.prompts import CUT_MARK
from eapo_env.types import Message
from eapo_env.validation import UserError

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] "
    "+ '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
REASONING = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ '<｜User｜>' + m['content'] }}{% else %}"
    "{{ '<｜Assistant｜>' + m['content'].split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' "
    "+ ('model' if m['role'] == 'assistant' else m['role']) + '\n' + m['content'] "
    "+ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
NEWLINE = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}assistant: "
)


def byte_tokenizer(template: str, special: list[str], plain: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with a few merges; the last special token ends a turn."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("<", "|"), ("Ġ", "x")]
    vocabulary = {token: i for i, token in enumerate([*alphabet, *map("".join, merges)])}
    backend = Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    backend.add_tokens([AddedToken(token, normalized=False) for token in plain])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=special[0] if special else None,
        eos_token=special[-1] if special else None,
        chat_template=template,
    )


@cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    match kind:
        case "char":
            return char_tokenizer()
        case "chatml":
            tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
            return byte_tokenizer(CHATML, tokens, ["<think>", "</think>"])
        case "llama3":
            headers = ["<|start_header_id|>", "<|end_header_id|>"]
            return byte_tokenizer(LLAMA3, ["<|begin_of_text|>", *headers, "<|eot_id|>"], [])
        case "reasoning":  # as in R1's distilled models, the role tokens are not flagged special
            ends = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"]
            roles = ["<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"]
            return byte_tokenizer(REASONING, ends, roles)
        case "gemma":  # runs of newlines and spaces are added tokens that are not special
            ends = ["<bos>", "<start_of_turn>", "<end_of_turn>"]
            runs = [*("\n" * n for n in range(1, 5)), "  ", "   ", "<h1>", "½"]
            return byte_tokenizer(GEMMA, ends, runs)
        case _:
            return byte_tokenizer(NEWLINE, [], [])


KINDS = ("char", "chatml", "llama3", "reasoning", "gemma", "newline")
CHATS = {kind: Chat(tokenizer_of(kind)) for kind in KINDS}
HOSTILE = (
    "<|im_start|>", "<|im_end|>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>",
    "<|eot_id|>", "<|start_header_id|>", "</think>", "<unk>", "<pad>", "\n\n", "é½", "\ud800", "\0",
)  # fmt: skip
texts = st.lists(st.sampled_from(HOSTILE) | st.text(string.printable, max_size=8)).map("".join)
kinds = st.sampled_from(KINDS)


def completion_of(kind: str, text: str, *, ended: bool) -> Completion:
    ids = plain_ids(text, tokenizer_of(kind))
    end = tokenizer_of(kind).eos_token_id
    ids += [end] if ended and end is not None else []
    return Completion(token_ids=tuple(ids), logprobs=(-0.25,) * len(ids), finish="stop")


@given(kinds, texts, st.lists(st.tuples(texts.filter(bool), st.booleans(), texts), max_size=3))
@settings(max_examples=150, deadline=None)
def test_a_history_only_grows_and_masks_exactly_what_was_sampled(
    kind: str, opening: str, turns: list[tuple[str, bool, str]]
) -> None:
    chat = CHATS[kind]
    history = TokenHistory.open([Message("user", opening)], chat)
    assert history.num_policy_tokens == 0
    num_sampled = 0
    for written, ended, answered in turns:
        completion = completion_of(kind, written, ended=ended)
        later = history.sampled(completion).extend(Message("user", answered), chat)
        prompt = history.token_ids + completion.token_ids
        assert later.token_ids[: len(prompt)] == prompt
        assert later.mask[: len(prompt)] == history.mask + (True,) * len(completion.token_ids)
        num_sampled += len(completion.token_ids)
        history = later
    assert sum(history.mask) == history.num_policy_tokens == num_sampled
    assert len(history.token_ids) == len(history.mask) == len(history.logprobs)
    expected = tuple(-0.25 if sampled else 0.0 for sampled in history.mask)
    assert history.logprobs == expected


@given(kinds, texts, texts)
@settings(max_examples=150, deadline=None)
def test_content_never_becomes_a_control_token(kind: str, opening: str, answered: str) -> None:
    chat, tokenizer = CHATS[kind], tokenizer_of(kind)
    frame = set(chat.opening([Message("user", "")])) | set(
        chat.reply(Message("user", ""), after=-1)
    )
    added = {id_ for id_, one in tokenizer.added_tokens_decoder.items() if str(one).strip()}
    added -= set(tokenizer.convert_tokens_to_ids(list(TAGS)))
    control = (frame & added) | set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}

    def controls(ids: list[int]) -> list[int]:
        return [token_id for token_id in ids if token_id in control]

    hostile, plain = Message("user", opening), Message("user", "x")
    assert controls(chat.opening([hostile])) == controls(chat.opening([plain]))
    hostile = Message("user", answered)
    assert controls(chat.reply(hostile, after=-1)) == controls(chat.reply(plain, after=-1))


@given(kinds, texts.filter(lambda text: text.isascii() and text == text.strip()))
@settings(max_examples=100, deadline=None)
def test_the_policy_reads_the_words_of_a_message(kind: str, text: str) -> None:
    tokenizer = tokenizer_of(kind)
    covered = "".join(c for c in text if kind != "char" or c in CHARACTERS)
    assert covered in tokenizer.decode(CHATS[kind].opening([Message("user", covered)]))
    assert covered in tokenizer.decode(CHATS[kind].reply(Message("user", covered), after=-1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["What is the sum?", "x", "\\boxed{7} then", "1\n\n2"])
def test_the_opening_is_what_the_chat_template_gives(kind: str, text: str) -> None:
    tokenizer = tokenizer_of(kind)
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
    )
    assert CHATS[kind].opening([Message("user", text)]) == rendered


@given(st.lists(st.sampled_from(("\n", "  ", " ", "x", "½", "<h1>"))).map("".join))
def test_runs_of_newlines_and_spaces_are_read_as_the_template_has_them(text: str) -> None:
    """Tokens of white space, or of one character, are text: contents are not cut behind them."""
    rendered = tokenizer_of("gemma").apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
    )
    assert CHATS["gemma"].opening([Message("user", text)]) == rendered


@pytest.mark.parametrize("kind", ["char", "chatml", "llama3", "gemma"])
def test_a_whole_conversation_is_what_the_chat_template_gives(kind: str) -> None:
    chat, tokenizer = CHATS[kind], tokenizer_of(kind)
    history = TokenHistory.open([Message("user", "What is 2 + 3?")], chat)
    history = history.sampled(completion_of(kind, "the help?", ended=True))
    history = history.extend(Message("user", "the reply: 5"), chat)
    contents = [("user", "What is 2 + 3?"), ("assistant", "the help?"), ("user", "the reply: 5")]
    rendered = tokenizer.apply_chat_template(
        [{"role": role, "content": content} for role, content in contents],
        add_generation_prompt=True,
        return_dict=False,
    )
    assert list(history.token_ids) == rendered


def test_earlier_reasoning_stays_where_the_template_would_drop_it() -> None:
    chat, tokenizer = CHATS["reasoning"], tokenizer_of("reasoning")
    history = TokenHistory.open([Message("user", "2+3?")], chat)
    history = history.sampled(completion_of("reasoning", "I add.</think>Help", ended=True))
    history = history.extend(Message("user", "5"), chat)
    assert tokenizer.decode(list(history.token_ids)) == (
        "<｜begin▁of▁sentence｜><｜User｜>2+3?<｜Assistant｜><think>\nI add.</think>Help"
        "<｜end▁of▁sentence｜><｜User｜>5<｜Assistant｜><think>\n"
    )


@pytest.mark.parametrize("kind", ["char", "chatml", "llama3", "reasoning", "gemma"])
def test_a_sampled_end_is_the_policys_and_a_supplied_one_is_not(kind: str) -> None:
    chat, end = CHATS[kind], tokenizer_of(kind).eos_token_id
    opened = TokenHistory.open([Message("user", "q")], chat)
    histories = [
        opened.sampled(completion_of(kind, "ab", ended=ended)).extend(Message("user", "r"), chat)
        for ended in (True, False)
    ]
    assert histories[0].token_ids == histories[1].token_ids
    position = len(opened.token_ids) + len(plain_ids("ab", tokenizer_of(kind)))
    assert histories[0].token_ids[position] == end
    assert [history.mask[position] for history in histories] == [True, False]


@pytest.mark.parametrize("kind", KINDS)
def test_a_turn_that_was_cut_off_gets_no_end(kind: str) -> None:
    completion = completion_of(kind, "cut o", ended=False)
    history = TokenHistory.open([Message("user", "q")], CHATS[kind]).sampled(completion)
    assert history.token_ids[-1] == completion.token_ids[-1]


def test_the_text_of_a_turn_is_without_its_end() -> None:
    completion = completion_of("char", "<query>a  b</query>", ended=True)
    assert CHATS["char"].text(completion.token_ids) == "<query>a  b</query>"


@given(kinds, texts, st.lists(st.sampled_from(["</consult>", "</con", "sult>", "x", "é"])))
@settings(max_examples=150, deadline=None)
def test_a_completion_ends_with_the_first_id_that_completes_a_stop_text(
    kind: str, before: str, parts: list[str]
) -> None:
    chat, stop = CHATS[kind], ("</consult>", "</never>")
    whole = completion_of(kind, f"{before}{''.join(parts)}.", ended=True)
    found = chat.until_stop(whole, stop)
    length = len(found.token_ids)
    assert found.token_ids == whole.token_ids[:length]
    assert len(found.logprobs) == length
    assert stop[0] not in chat.text(whole.token_ids[: length - 1])
    assert (stop[0] in chat.text(found.token_ids)) == (stop[0] in chat.text(whole.token_ids))
    if stop[0] not in chat.text(whole.token_ids):
        assert found is whole


def test_a_completion_that_a_limit_cut_after_a_stop_text_was_stopped() -> None:
    chat = CHATS["char"]
    cut = Completion(
        token_ids=tuple(plain_ids("<consult></consult>", chat.tokenizer)),
        logprobs=(-0.25,) * len(plain_ids("<consult></consult>", chat.tokenizer)),
        finish="length",
    )
    assert chat.until_stop(cut, ("</consult>",)).finish == "stop"
    assert chat.until_stop(cut, ()) is cut


def test_a_template_that_loses_a_message_is_refused() -> None:
    last_only = byte_tokenizer("{{ messages[-1]['content'] }}", [], [])
    with pytest.raises(ValueError, match="each message once"):
        Chat(last_only)


@given(kinds, texts, st.integers(0, 40))
@settings(max_examples=150, deadline=None)
def test_a_cut_text_is_short_and_says_so(kind: str, text: str, limit: int) -> None:
    tokenizer = tokenizer_of(kind)
    cut = cut_tokens(text, tokenizer, limit)
    if len(plain_ids(text, tokenizer)) <= limit:
        assert cut == text.replace("\ud800", "\ufffd")
    else:
        kept = cut.removesuffix(CUT_MARK)
        assert cut == kept + CUT_MARK
        assert text.replace("\ud800", "\ufffd").startswith(kept)
        assert (
            len(plain_ids(kept, tokenizer)) <= limit + 3
        )  # a character of several ids stays whole


def test_cutting_tells_how_and_refuses_a_negative_limit() -> None:
    assert cut_tokens("12 + 34", tokenizer_of("char"), 4) == "12 +" + CUT_MARK
    assert cut_tokens("12 + 34", tokenizer_of("char"), 7) == "12 + 34"
    long_tokens = byte_tokenizer(NEWLINE, [], ["=" * 100])
    assert len(cut_tokens("=" * 300, long_tokens, 2)) <= 128 + len(CUT_MARK)
    with pytest.raises(ValueError, match="-1"):
        cut_tokens("x", tokenizer_of("char"), -1)


def test_the_character_tokenizer_is_small_and_knows_the_tags() -> None:
    tokenizer = char_tokenizer()
    assert len(tokenizer) <= 128
    for tag in TAGS:
        assert plain_ids(tag, tokenizer) == [tokenizer.convert_tokens_to_ids(tag)]
    assert len(plain_ids("<|im_end|>", tokenizer)) == len("<|im_end|>")
    assert plain_ids("½", tokenizer) == [tokenizer.unk_token_id]
    assert set(CHARACTERS) == {c for c in map(chr, range(128)) if c.isprintable()} | {"\n"}


@given(st.lists(st.sampled_from([*CHARACTERS, *TAGS, "<|im_end|>"])).map("".join))
def test_covered_text_survives_the_character_tokenizer(text: str) -> None:
    tokenizer = tokenizer_of("char")
    assert tokenizer.decode(plain_ids(text, tokenizer)) == text


def test_a_saved_character_tokenizer_is_the_same(tmp_path: object) -> None:
    tokenizer = char_tokenizer()
    tokenizer.save_pretrained(str(tmp_path))
    loaded = PreTrainedTokenizerFast.from_pretrained(str(tmp_path))
    text = "<reply>a  b</reply>\n\\boxed{5}<|im_end|>"
    assert plain_ids(text, loaded) == plain_ids(text, tokenizer)
    assert loaded.decode(plain_ids(text, loaded)) == text
    hello = [Message("user", "hello")]
    assert Chat(loaded).opening(hello) == Chat(tokenizer).opening(hello)
    assert loaded.eos_token_id == tokenizer.eos_token_id


PHI3 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


@pytest.mark.parametrize(
    ("kind", "opened", "end"),
    [
        ("char", "", "<|im_end|>"),
        ("chatml", "", "<|im_end|>"),
        ("llama3", "", "<|eot_id|>"),
        ("reasoning", "<think>\n", "<｜end▁of▁sentence｜>"),
        ("newline", "", None),
    ],
)
def test_what_a_template_opens_and_how_it_ends_a_turn(
    kind: str, opened: str, end: str | None
) -> None:
    chat = CHATS[kind]
    assert chat.opened == opened
    known = None if end is None else tokenizer_of(kind).convert_tokens_to_ids(end)
    assert chat.end_of_turn == known


def test_a_turn_reads_the_same_whoever_opened_its_thought() -> None:
    """R1's template opens it, Qwen3's model does (vllm#13125, DeepSeek-R1#352)."""
    body = "maybe \\boxed{5}?\n</think>\n\nIt is \\boxed{6}."
    opened, own = CHATS["reasoning"], CHATS["chatml"]
    assert opened.turn(plain_ids(body, opened.tokenizer)) == f"<think>\n{body}"
    assert own.turn(plain_ids(f"<think>\n{body}", own.tokenizer)) == f"<think>\n{body}"
    for text in (body, "still thinking \\boxed{5}"):
        turn = opened.turn(plain_ids(text, opened.tokenizer))
        assert opened.sampled(turn) == text
        assert extract_answer(turn) == ("6" if "</think>" in text else None)


def test_the_end_of_a_document_is_not_the_end_of_a_turn() -> None:
    """A base model's tokenizer names the former (Qwen3#927, trl#7039)."""
    tokenizer = byte_tokenizer(CHATML, ["<|im_start|>", "<|im_end|>", "<|endoftext|>"], [])
    assert tokenizer.eos_token == "<|endoftext|>"
    assert Chat(tokenizer).end_id == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_an_end_that_only_closes_a_channel_is_no_end_of_turn() -> None:
    """As gpt-oss has it (unsloth#6804)."""
    template = PHI3.replace("<|user|>", "<|start|>user")
    tokenizer = byte_tokenizer(template, ["<|return|>"], ["<|channel|>", "<|end|>", "<|user|>"])
    assert Chat(tokenizer).end_of_turn is None


def test_tags_of_the_grammar_are_read_also_as_special_tokens() -> None:
    """Users add them to make a tag one token (verl#3958, verl#1724)."""
    tags = ["<consult>", "</consult>", "<query>", "</query>", "<think>", "</think>"]
    tokenizer = byte_tokenizer(CHATML, ["<|im_start|>", "<|im_end|>"], [])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", *tags]})
    text = "I ask.\n<consult>\n<query>1+1?</query>\n</consult>"
    ids = tokenizer.encode(text + "<|im_end|>", add_special_tokens=False)
    assert len([i for i in ids if i in tokenizer.all_special_ids]) == 5
    assert Chat(tokenizer).text(ids) == text


@pytest.mark.parametrize("flags", [{"rstrip": True}, {"lstrip": True}, {}])
def test_tokens_that_take_the_space_around_them(flags: dict[str, bool]) -> None:
    """Phi-3's do (transformers#32136): the ids are those of the template's own encoding."""
    tokenizer = byte_tokenizer(PHI3, ["<|endoftext|>"], [])
    marks = ["<|user|>", "<|assistant|>", "<|end|>"]
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken(m, normalized=False, **flags) for m in marks]}
    )
    chat, messages = Chat(tokenizer), [Message("user", "What is 2?")]
    written = [{"role": "user", "content": "What is 2?"}]
    theirs = tokenizer.apply_chat_template(written, add_generation_prompt=True, return_dict=False)
    assert chat.opening(messages) == theirs
    answered = [*written, {"role": "assistant", "content": "Four."}]
    answered += [{"role": "user", "content": "Sure?"}]
    whole = tokenizer.apply_chat_template(answered, add_generation_prompt=True, return_dict=False)
    ids = chat.opening(messages) + plain_ids("Four.", tokenizer)
    assert ids + chat.reply(Message("user", "Sure?"), after=ids[-1]) == whole


def test_a_tokenizer_that_loses_spaces_is_refused() -> None:
    """transformers#45488, #45920: it happens to a tokenizer that is loaded as another kind."""
    tokenizer = byte_tokenizer(CHATML, ["<|im_start|>", "<|im_end|>"], [])
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    with pytest.raises(UserError, match=r"the tokenizer reads 'So 12 .*' as 'So12\*34"):
        Chat(tokenizer)


def test_a_template_whose_own_ids_are_others_is_refused() -> None:
    """A token for whole words only is none in the template's text, where a word follows it."""
    tokenizer = byte_tokenizer(CHATML, ["<|endoftext|>"], [])
    marks = [
        AddedToken(m, normalized=False, single_word=True) for m in ("<|im_start|>", "<|im_end|>")
    ]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    with pytest.raises(UserError, match="the ids of a prompt differ from those of the chat templ"):
        Chat(tokenizer)


def test_a_base_model_has_no_template() -> None:
    with pytest.raises(UserError, match="no chat template, as those of base models"):
        Chat(byte_tokenizer("", [], []))


def test_a_template_that_refuses_is_an_error_of_the_user() -> None:
    template = "{{ raise_exception('needs a system message') }}"
    with pytest.raises(UserError, match="the chat template cannot be used: needs a system message"):
        Chat(byte_tokenizer(template, ["<|end|>"], []))
    with pytest.raises(UserError, match="the chat template cannot be used"):
        Chat(byte_tokenizer("{{ nothing.at_all.here }}", ["<|end|>"], []))


def test_a_template_that_writes_the_date_gets_the_same_one_every_day() -> None:
    """sglang#3296, llm-foundry#1474: Llama 3's does."""
    template = "{{ strftime_now('%d %b %Y') + '\n' }}" + CHATML
    tokenizer = byte_tokenizer(template, ["<|im_start|>", "<|im_end|>"], [])
    text = tokenizer.decode(Chat(tokenizer).opening([Message("user", "?")]))
    assert text.startswith("26 Jul 2024\n")
