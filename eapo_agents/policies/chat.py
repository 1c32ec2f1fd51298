"""Chat tokenisation without re-tokenising: a token history that only grows.

Sampled ids are never re-tokenised, and a message of the environment is encoded once and appended:
the chat template is not applied to earlier turns again (templates of reasoning models drop their
reasoning). What a template writes between two messages is found by rendering it around sentinels.
Message contents are plain text: a special token spelled out in one stays text. A turn is read with
the `<think>` that the generation prompt opened: models that open it themselves and models for which
the template does write the same text.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from eapo_agents.policies.policy import Completion
from eapo_env.actions import CONSULT_CLOSE, CONSULT_OPEN, QUERY_CLOSE, QUERY_OPEN
from eapo_env.answers import extract_answer
from eapo_env.prompts import CUT_MARK, encodable
from eapo_env.types import Message
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_KEPT = frozenset((CONSULT_OPEN, CONSULT_CLOSE, QUERY_OPEN, QUERY_CLOSE, "<think>", "</think>"))
"""Tags that the environment reads, also where a tokenizer has them as special tokens."""
_CHANNEL = "<|channel|>"
_EXAMPLE = (
    f"So 12 * 34, in two parts:\n{CONSULT_OPEN}{QUERY_OPEN}10 * 34{QUERY_CLOSE}{CONSULT_CLOSE}\n"
    "\\boxed{408}"
)
_ANCHOR = "\x01"
"""A character that merges with no text."""
_OPENINGS = 256
"""How many prompts are remembered: the members of a group begin with the same one."""
_NOW = re.compile(r"strftime_now\(\s*(?P<quote>[\"'])(?P<format>[^\"']*)(?P=quote)\s*\)")
_DAY = date(2024, 7, 26)
"""Today, for templates that write the date, so that a run that goes on tomorrow reads the same
prompts: the day that Llama 3's template takes where there is no clock."""


def _on_the_day(now: re.Match[str]) -> str:
    """Return a template's text for the date, in place of its question for today's."""
    return repr(_DAY.strftime(now["format"]))


class Chat:
    """A tokenizer's chat template: messages to token ids.

    Raises:
        UserError: the tokenizer has no chat template, or one that loses or refuses a message; it
            does not give back what it encodes; or the template's own ids are others.
    """

    opened: str
    """What the generation prompt leaves open: `<think>` and the space after it, or nothing."""
    end_of_turn: int | None
    """The id with which the template ends a turn; None if it writes none, or one a channel."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._opening_ids = lru_cache(_OPENINGS)(self._encoded_opening)
        added = {
            str(token): token
            for token in tokenizer.added_tokens_decoder.values()
            if token.special or not _is_plain(str(token))
        }
        longest_first = sorted(map(re.escape, added), key=len, reverse=True)
        self._added = re.compile(f"({'|'.join(longest_first) or '(?!)'})")
        self._anchor = self._anchor_after(next(iter(added), ""))
        probe = (Message("user", "?"), Message("assistant", "!"), Message("user", "?"))
        frame = self._frame(probe)
        _, _, self._before_reply, self._after_reply = frame
        thought = self._after_reply.rfind("<think>")
        is_open = thought >= 0 and "</think>" not in self._after_reply[thought:]
        self.opened = self._after_reply[thought:] if is_open else ""
        ends = self._added.findall(self._before_reply)
        self.end_of_turn = (
            tokenizer.convert_tokens_to_ids(ends[0]) if ends and _CHANNEL not in added else None
        )
        self._strips_left = {token for token, how in added.items() if how.lstrip}
        self._strips_right = {token for token, how in added.items() if how.rstrip}
        written = {token for gap in frame for token in self._added.findall(gap)}
        # Some templates use added tokens not flagged special, which tokenizers always recognise in
        # plain text: contents are split inside them.
        loose = [token for token in written if not added[token].special]
        inside = [f"(?<={re.escape(token[0])})(?={re.escape(token[1:])})" for token in loose]
        self._inside_loose = re.compile("|".join(inside) or "(?!)")
        self._control_ids = frozenset(
            tokenizer.convert_tokens_to_ids([*written, *tokenizer.all_special_tokens])
        )
        unread = [token for token in tokenizer.all_special_tokens if token not in _KEPT]
        self._unread_ids = frozenset(tokenizer.convert_tokens_to_ids(unread))
        self._check()

    def _encoded_opening(self, messages: tuple[Message, ...]) -> Sequence[int]:
        first, *gaps = self._frame(messages)
        contents = [message.content for message in messages]
        return self._encode(first, zip(contents, gaps, strict=True))

    def _check(self) -> None:
        """Raise a UserError if the tokenizer or the template reads an example otherwise."""
        whole = self.tokenizer.encode(_EXAMPLE, add_special_tokens=False)
        for ids in (plain_ids(_EXAMPLE, self.tokenizer), whole):  # tags spelled out, and as tokens
            if (read := self.text(ids)) != _EXAMPLE:
                raise UserError(f"the tokenizer reads {_EXAMPLE!r} as {read!r}; use its own files")
        if self.opened and extract_answer(self.turn(plain_ids("\\boxed{408}", self.tokenizer))):
            raise UserError("the chat template opens a thought, and what is in it counts as answer")
        messages = (Message("user", "6 * 7?"), Message("assistant", "42"), Message("user", "1?"))
        templates = self._template_ids(messages)
        later = self.reply(messages[-1], after=-1)
        for own, expected in (
            (self.opening(messages), templates),
            (later, templates[-len(later) :]),
        ):
            if own != expected:
                raise UserError(
                    "the ids of a prompt differ from those of the chat template:"
                    f" {self.tokenizer.decode(own)!r} and {self.tokenizer.decode(expected)!r}"
                )

    def opening(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids of a prompt: the messages, then the generation prompt.

        Raises:
            UserError: the template refuses the messages.
        """
        return list(self._opening_ids(tuple(messages)))

    def reply(self, message: Message, *, after: int) -> list[int]:
        """Return the ids after a turn of the policy: end of turn, message, generation prompt.

        `after` is the last sampled id: a sampled end of turn is not repeated; a turn that ended by
        a limit or a stop text gets one.
        """
        ids = self._encode(self._before_reply, [(message.content, self._after_reply)])
        ended = ids[:1] == [after] and after in self._control_ids
        return ids[1:] if ended else ids

    @property
    def has_system_role(self) -> bool:
        """Whether the template takes a system message, and writes it."""
        messages = [{"role": "system", "content": _EXAMPLE}, {"role": "user", "content": "?"}]
        try:
            return _EXAMPLE in self._rendered(messages)
        except UserError:
            return False

    @property
    def end_id(self) -> int:
        """The id that ends a last turn: the template's end, or else the tokenizer's.

        Raises:
            UserError: there is neither.
        """
        end = self.tokenizer.eos_token_id if self.end_of_turn is None else self.end_of_turn
        if end is None:
            raise UserError("neither the chat template nor the tokenizer has an end of turn")
        return int(end)

    def turn(self, token_ids: Sequence[int]) -> str:
        """Return the text of a whole turn, as the environment reads it.

        It begins with the `<think>` that the generation prompt opened, if it did.
        """
        return self.opened + self.text(token_ids)

    def text(self, token_ids: Sequence[int]) -> str:
        """Return the text of sampled ids without special tokens, but with the grammar's tags."""
        read = [token for token in token_ids if token not in self._unread_ids]
        return str(self.tokenizer.decode(read, clean_up_tokenization_spaces=False))

    def until_stop(self, completion: Completion, stop: Sequence[str]) -> Completion:
        """Return the completion up to the first id with which its text contains a stop text.

        An engine may return more: one that resumes an interrupted request does not see a stop text
        that began before the interruption.
        """
        ids = completion.token_ids

        def stopped(length: int) -> bool:
            text = self.text(ids[:length])
            return any(mark in text for mark in stop)

        if not stopped(len(ids)):
            return completion
        length = len(ids)
        if stopped(length - 1):
            length = bisect_left(range(length), True, key=stopped)
        logprobs = completion.logprobs[:length]
        return replace(completion, token_ids=ids[:length], logprobs=logprobs, finish="stop")

    def sampled(self, turn: str) -> str:
        """Return what the policy itself wrote of a turn: without what the prompt had opened."""
        return turn.removeprefix(self.opened)

    def _frame(self, messages: Sequence[Message]) -> list[str]:
        """Return what the template writes before, between and after the messages' contents."""
        sentinels = [f"EAPO-MESSAGE-{number}." for number in range(len(messages))]
        rendered = self._rendered(
            [
                {"role": message.role, "content": sentinel}
                for message, sentinel in zip(messages, sentinels, strict=True)
            ]
        )
        frame = re.split("|".join(map(re.escape, sentinels)), rendered)
        if re.findall(r"EAPO-MESSAGE-\d+\.", rendered) != sentinels:
            raise UserError(f"the chat template does not write each message once: {rendered!r}")
        return frame

    def _template_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the template's own ids of messages that hold no control token."""
        rendered = self._rendered([{"role": m.role, "content": m.content} for m in messages])
        ids: list[int] = self.tokenizer.encode(rendered, add_special_tokens=False)
        return ids

    def _rendered(self, messages: list[dict[str, str]]) -> str:
        """Return the template's text, generation prompt included.

        Raises:
            UserError: there is no template, or it refuses the messages.
        """
        if not self.tokenizer.chat_template:
            raise UserError(
                "the tokenizer has no chat template, as those of base models: use an instruct"
                " model, or write a template to chat_template.jinja in the model's folder"
            )
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    messages,
                    chat_template=_NOW.sub(_on_the_day, self.tokenizer.get_chat_template()),
                    tokenize=False,
                    add_generation_prompt=True,
                )
            )
        except (ValueError, TemplateError) as error:
            raise UserError(f"the chat template cannot be used: {error}") from error

    def _encode(self, first: str, rest: Iterable[tuple[str, str]]) -> list[int]:
        """Return the ids of a frame's pieces (first, then each after a content) and contents.

        Only the frame can hold control tokens. All text between two of them is encoded as one, as
        the template's own encoding would.
        """
        runs = self._added.split(first)  # plain text and added tokens by turns
        for content, gap in rest:
            head, *tails = self._inside_loose.split(content)
            runs[-1] += head
            for tail in tails:
                runs += ["", tail]
            plain, *others = self._added.split(gap)
            runs[-1] += plain
            runs += others
        tokens, plains = ["", *runs[1::2], ""], runs[::2]
        ids: list[int] = []
        for before, plain, after in zip(tokens[:-1], plains, tokens[1:], strict=True):
            text = plain.lstrip() if before in self._strips_right else plain
            text = text.rstrip() if after in self._strips_left else text
            ids += self._later_ids(text) if before else plain_ids(text, self.tokenizer)
            ids += [self.tokenizer.convert_tokens_to_ids(after)] if after else []
        return ids

    def _anchor_after(self, added: str) -> str:
        """Return what stands for an added token before a text; nothing where the ids are the same.

        Tokenizers like Llama 2's put a space before the first text alone, not after each token.
        """
        later = self.tokenizer.encode(f"{added}6", add_special_tokens=False)[1:]
        return _ANCHOR if added and plain_ids("6", self.tokenizer) != later else ""

    def _later_ids(self, text: str) -> list[int]:
        """Return the ids of a text that follows an added token."""
        if not (text and self._anchor):
            return plain_ids(text, self.tokenizer)
        start = len(plain_ids(self._anchor, self.tokenizer))
        return plain_ids(self._anchor + text, self.tokenizer)[start:]


@dataclass(frozen=True, slots=True)
class TokenHistory:
    """The token ids of an episode so far; immutable, each step returns a longer one.

    Args:
        token_ids: prompt, turns of the policy and messages of the environment, in order.
        mask: True exactly on the ids the policy sampled, a sampled end of turn included.
        logprobs: the sampler's log-probabilities (nats); 0 where the mask is False.
    """

    token_ids: tuple[int, ...]
    mask: tuple[bool, ...]
    logprobs: tuple[float, ...]

    @classmethod
    def open(cls, messages: Sequence[Message], chat: Chat) -> TokenHistory:
        """Return the history of an episode before its first turn: the opening prompt."""
        return cls((), (), ())._read(chat.opening(messages))

    def sampled(self, completion: Completion) -> TokenHistory:
        """Return the history after a turn of the policy, its ids exactly as they were sampled."""
        return TokenHistory(
            self.token_ids + completion.token_ids,
            self.mask + (True,) * len(completion.token_ids),
            self.logprobs + completion.logprobs,
        )

    def extend(self, message: Message, chat: Chat) -> TokenHistory:
        """Return the history after a message of the environment: the next turn's prompt."""
        return self._read(chat.reply(message, after=self.token_ids[-1]))

    @property
    def num_policy_tokens(self) -> int:
        """The number of sampled ids."""
        return sum(self.mask)

    def _read(self, ids: Sequence[int]) -> TokenHistory:
        return TokenHistory(
            self.token_ids + tuple(ids),
            self.mask + (False,) * len(ids),
            self.logprobs + (0.0,) * len(ids),
        )


def _is_plain(token: str) -> bool:
    """Return whether an added token that is not special is text like any other.

    Gemma has such tokens for runs of newlines and spaces, which contents hold as templates do.
    """
    return len(token) == 1 or not token.strip()


def plain_ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids of any text, without special tokens."""
    if not text:
        return []
    ids: list[int] = tokenizer.encode(
        encodable(text), add_special_tokens=False, split_special_tokens=True
    )
    return ids


def cut_tokens(text: str, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> str:
    """Return at most the first `max_tokens` tokens of a text, with a visible mark where it was cut.

    Only the first 64 * max_tokens characters are tokenised, so that a hostile text costs no time.

    Raises:
        ValueError: `max_tokens` is negative.
    """
    if max_tokens < 0:
        raise ValueError(f"max_tokens must not be negative: {max_tokens}")
    head = encodable(text[: 64 * max_tokens])
    encoding = tokenizer(
        head, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
    )
    ends = [end for _, end in encoding["offset_mapping"]]
    if len(ends) <= max_tokens:
        return head if len(head) == len(text) else head + CUT_MARK
    return head[: ends[max_tokens - 1] if max_tokens else 0] + CUT_MARK
