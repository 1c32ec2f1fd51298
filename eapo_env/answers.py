r"""The final answer a text commits to: the last complete `\boxed{...}`, or its `Answer:` line.

Three forms count, in this order:

1. the last `\boxed{...}` or `\fbox{...}` by brace count (`\boxed 204` too). A last box that never
   closes is no answer. Boxes joined only by `,`, `;`, `and`, `or` are one list;
2. the last line `Answer: ...` (`Final answer:`, bold, `$...$`, the value on the next line);
3. an explicit `the answer is ...` in the last sentence, when a number, a box of bold or a formula
   follows it directly. A number that merely occurs in prose is not an answer.

Text up to the last `</think>` never counts, nor does what follows a `<think>` that stays open;
only the last 20,000 characters are read. Every pattern here is anchored or has bounded repeats,
so the time is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

TAIL_CHARS = 20_000

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_BOX_OR_BRACE = re.compile(r"\\\\(?!boxed|fbox)|\\[{}]|(\\(?:boxed|fbox)\s{0,3}\{)|([{}])")
_BARE_BOX = re.compile(r"\s{1,3}([^\s{}$\\]{1,100})")
_JOINER = re.compile(
    r"(?:\s|[,;$.]|\\[()\[\],;!]|\\q?quad|\\text\s?\{|\}|\\ |\*|(?:and|or)\b"
    r"|for part \(\w\)){1,40}"
)
_ANSWER_LINE = re.compile(
    r"^[ \t*_#>~-]{0,12}(?:the[ ]{1,2})?(?:final[ ]{1,2}|correct[ ]{1,2})?answer[ \t*_]{0,6}"
    r"(?:(?:is[ ]{0,2})?[:=][ \t*_]{0,6}|(?=\$|\\\[|\\\(|\n))",
    re.IGNORECASE | re.MULTILINE,
)
_ANSWER_IS = re.compile(
    r"\banswer(?:[ ]to[ ]the[ ](?:problem|question))?[ ](?:is|equals)[: ]{1,3}(?:simply |just )?",
    re.IGNORECASE,
)
_CLAIM = re.compile(
    r"(?:\*\*(?P<bold>[^*\n]{1,200})\*\*|(?P<math>\$\$?[^$]{1,1000}\$\$?|\\\(.{1,1000}?\\\)|"
    r"\\\[.{1,1000}?\\\])|(?P<number>[-+]?\\?\$?\d[\d,]{0,60}(?:\.\d{1,60})?(?:/\d{1,60})?\\?%?))"
    r"(?P<rest>[^\n]{0,200})",
    re.DOTALL,
)
_CLOSING = re.compile(
    r"(?:\s|<\|[^|<>]{1,30}\|>(?:user|assistant)?|I hope (?:it|this) is correct\.?){1,20}\Z"
)
_DISPLAY = (("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"), ("$", "$"))


def extract_answer(response: str) -> str | None:
    r"""Return the final answer `response` commits to, or None when it commits to none.

    The text is returned as written, without its box, `$` or emphasis: `\boxed{\frac12}` gives
    `\frac12`. Never raises, whatever the text; linear in its length.
    """
    text = final_text(response)
    if "boxed" in text or "fbox" in text:
        first = _BOX.search(text)
        if first is not None:
            return _boxed(text, first.start())
    if "nswer" in text or "NSWER" in text:
        return _stated(text)
    return None


def final_text(response: str) -> str:
    """Return the part of `response` in which an answer counts: its end, outside reasoning tags."""
    end = response.rfind("</think>")
    text = response if end < 0 else response[end + len("</think>") :]
    opened = text.find("<think>")
    if opened >= 0:
        text = text[:opened]
    return text[-TAIL_CHARS:]


def _boxed(text: str, first: int) -> str | None:
    last = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    last = last if _BOX.match(text, last) else first
    boxes = list(_complete_boxes(text, last if last == first else first))
    if not boxes or boxes[-1][1] <= last:
        bare = _BARE_BOX.match(text, text.find("x", last) + (2 if text[last + 1] == "b" else 1))
        return None if bare is None else bare[1].rstrip(".,;:)")
    answers = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        if _JOINER.fullmatch(text, box[1], answers[-1][0]) is None:
            break
        answers.append(box)
    distinct = dict.fromkeys(_inside(text, *box) for box in reversed(answers))
    return ", ".join(distinct).strip() or None
