r"""Extraction of the final answer: the last complete `\boxed{...}`, `#### ...` or `Answer: ...`.

Four forms count, in this order:

1. the last `\boxed{...}` or `\fbox{...}` by brace count (`\boxed 204` too). A last box that never
   closes is no answer. Boxes joined only by `,`, `;`, `and`, `or` are one list;
2. `#### ...` as the last line, as in GSM8K. Text that follows it makes it a heading;
3. the last line `Answer: ...` (`Final answer:`, bold, `$...$`, the value on the next line);
4. an explicit `the answer is ...` in the last sentence, when a number, a box of bold or a formula
   follows it directly. Any other number in prose is not an answer.

Text up to the last `</think>` never counts, nor does what follows a `<think>` that stays open;
only the last 20,000 characters are read. Every pattern here is anchored or has bounded repeats,
so the time is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

TAIL_CHARS = 20_000

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_TOKEN = re.compile(
    r"\\\\(?!boxed|fbox)|\\[{}]|(?P<box>\\(?:boxed|fbox)\s{0,4}\{)|(?P<open>\{)|(?P<close>\})"
    r"|\\(?:boxed|fbox)(?![A-Za-z])(?:\s{1,3}(?P<bare>[^\s{}$\\]{1,100}))?"
)
_JOINER = re.compile(
    r"(?:\s|[,;$]|\\[()\[\],; ]|\\q?quad|\\(?:text|mathrm) ?\{|\}|(?:and|or)\b"
    r"|for part \(\w\)){1,40}"
)
_MATH = r"\$\$[^$]{1,1000}\$\$|\$[^$]{1,1000}\$|\\\([^$]{1,1000}?\\\)|\\\[[^$]{1,1000}?\\\]"
_ANSWER_LINE = re.compile(
    r"[ \t*_#>~-]{0,12}(?:the |my |your )?(?:final |correct )?answer[ \t*_]{0,6}"
    r"(?:(?:is ?)?[:=][ \t*_]{0,6}|(?=\$|\\\[|\\\(|\[ |\n))\s{0,4}"
    rf"(?P<claim>{_MATH}|[^\n]{{1,{TAIL_CHARS}}})",
    re.IGNORECASE,
)
_ANSWER_IS = re.compile(
    r"answer(?: to the (?:problem|question))? (?:is|equals)[: ]{1,3}(?:therefore |thus |simply )?"
    rf"(?:\*\*(?P<bold>[^*\n]{{1,200}})\*\*|(?P<math>{_MATH})"
    r"|(?P<number>[-+]?(?:\\?\$ ?)?\d[\d,]{0,60}(?:\.\d{1,60})?(?:/\d{1,60})?(?: ?\\?%)?)"
    r"|(?P<choice>\(?[A-J]\)?)(?![A-Za-z]))"
    r"(?P<rest>.{0,200})",
    re.IGNORECASE | re.DOTALL,
)
_SENTENCE_END = re.compile(
    r"(?![.,]?\d)(?:\s?[.!]?\s{0,4}\Z| (?:because|since|as) [^\n.]{0,150}\.?\Z)"
)
_CLOSING = re.compile(
    r"(?:\s|<\|[^|<>]{1,30}\|>(?:user|assistant)?|I hope (?:it|this) is correct\.?){1,20}\Z"
)
_MENTIONS = 50
_FORMULA_CHARS, _SENTENCE_CHARS = 200, 600
_FORMULA = re.compile(_MATH)
_AFTER_FORMULA = re.compile(
    r" ?(?:\\?%|percent|\^?\\circ|degrees|(?:[a-z]{2,12} ?){1,3})?[ .!]{0,3}"
)
_SENTENCE = re.compile(
    r"(?<=[.!?])\s{1,10}(?=[A-Z])|\n| (?=(?:Therefore|Thus|Hence|So),? )| (?=which is )"
)
_PROSE = re.compile(r"(?<![\\A-Za-z])(?!and |or )[A-Za-z]{2,20},? (?:[a-z]{2,20} )")
_LONE_NUMBER = re.compile(
    r"[$*]{0,2}[-+]?\d[\d,]{0,60}(?:\.\d{1,60})?(?:/\d{1,60})?\\?%?[$*]{0,2}\.?"
)
_CLOSING_NUMBER = re.compile(
    r"(?:\b(?:is|are|be|by|equals|get|gives|obtain|have|to|was)|=|:) ?"
    r"\*{0,2}([-+]?(?:\\?\$ ?)?\d[\d,]{0,60}(?:\.\d{1,60})?(?:/\d{1,60})?(?: ?\\?%)?)"
    r"[*€£¥$]{0,2}(?: [a-z]{2,12}){0,2}(?: because [^\n.]{0,150})?[.!]?\Z"
)
_HEDGE = re.compile(
    r"\b(?:not|or|nor|never|no|maybe|perhaps|probably|possibly|guess|if|unless|wrong|incorrect"
    r"|might|could|would|may|unlikely|suppose|assume|assuming|either|between|try|check|but|although"
    r"|rather|instead|cannot|unsure|think|mistake|error was|wait|hmm)\b|n't|\?",
    re.IGNORECASE,
)
_MARKED = re.compile(r"[ \t]{0,3}####(?!#)(?!.*answer)(?P<claim>.*)", re.IGNORECASE)
_WRAPPERS = (("**", "**"), ("`", "`"), ("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"), ("$", "$"))


def extract_answer(response: str) -> str | None:
    r"""Return the final answer of a response, or None if it gives none.

    The text is returned as written, without its box, `$` or emphasis: `\boxed{\frac12}` gives
    `\frac12`. Never raises, whatever the text; linear in its length.
    """
    text = final_text(response)
    if "boxed" in text or "fbox" in text:
        last = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
        if last >= 0 and _BOX.match(text, last):
            return _boxed(text, last)
    if "####" in text and (marked := _marked(text)):
        return marked
    if "nswer" in text or "NSWER" in text:
        return _stated(text)
    return None


def final_text(response: str) -> str:
    """Return the part of a response in which answers count: its end, outside reasoning tags."""
    end = response.rfind("</think>")
    text = response if end < 0 else response[end + len("</think>") :]
    opened = text.find("<think>")
    if opened >= 0:
        text = text[:opened]
    return text[-TAIL_CHARS:]


def closing_claim(response: str) -> str | None:
    """Return the answer implied by the last sentence of a response that states none, or None.

    Wider than `extract_answer`, for checking a response that is known to be final: the only
    formula of the last sentence, the number it ends with after `is`, `=` or similar, or a response
    that is only one short formula. A sentence with a negation or a hedge (`not`, `or`, `maybe`,
    ...) gives None.
    """
    text = final_text(response)
    text = text[: _closing_start(text)].strip()
    if not text:
        return None
    last_line = text[text.rfind("\n") + 1 :].strip()
    if _LONE_NUMBER.fullmatch(last_line):
        return unwrapped(last_line)
    if len(text) <= _FORMULA_CHARS and "\n" not in text and not _PROSE.search(text):
        whole = unwrapped(text)
        if not _FORMULA.search(whole, 1):
            return whole or None
    sentence = _SENTENCE.split(text[-_SENTENCE_CHARS:])[-1]
    if _HEDGE.search(sentence):
        return None
    formulas = [*_FORMULA.finditer(sentence)]
    if len(formulas) == 1 and _AFTER_FORMULA.fullmatch(sentence, formulas[0].end()):
        unit = sentence[formulas[0].end() :].strip(" .!")
        return f"{unwrapped(formulas[0][0])} {unit}".strip() or None
    number = _CLOSING_NUMBER.search(sentence) if not formulas else None
    return number[1] if number else None


def unwrapped(text: str) -> str:
    r"""Return `text` without surrounding space, `$`, `\(`, `\[` or `**`, however nested."""
    text = text.strip()
    for opener, closer in _WRAPPERS:
        if text.startswith(opener) and text.endswith(closer) and len(text) > len(opener + closer):
            text = text[len(opener) : -len(closer)].strip()
    return text


def _boxed(text: str, last: int) -> str | None:
    """Return the content of the last box, joined with the boxes that form one list with it."""
    answers: list[str] = []
    edge, closed = 0, False
    for start, end, content in _boxes(text, last):
        if answers and _JOINER.fullmatch(text, edge, start) is None:
            answers.clear()
        answers.append(unwrapped(_BOX.sub("", content)))
        edge, closed = end, end > last
    if not closed:
        return None
    return ", ".join(dict.fromkeys(answers)) or None


def _boxes(text: str, last: int) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, content) of the outermost complete boxes, up to the one at `last`."""
    first = min(i for i in (text.find("\\boxed"), text.find("\\fbox")) if i >= 0)
    stack: list[tuple[int, int, int]] = []
    inner: list[tuple[int, int, str]] = []
    depth = 0
    for token in _TOKEN.finditer(text, first):
        kind = token.lastgroup
        if kind == "box":
            stack.append((depth, token.start(), token.end()))
            depth += 1
        elif kind == "open":
            depth += 1
        elif kind == "close":
            depth -= 1
            if stack and stack[-1][0] >= depth:
                _, start, inside = stack.pop()
                content = text[inside : token.start()]
                while inner and inner[-1][0] > start:
                    nested_start, nested_end, nested = inner.pop()
                    if text[nested_start:nested_end] == content.strip():
                        content = nested
                inner.append((start, token.end(), content))
        elif kind == "bare" and not stack:
            inner.append((token.start(), token.end(), token["bare"].rstrip(".,;:)")))
        if not stack and token.end() > last:
            break
    yield from inner


def _marked(text: str) -> str | None:
    """Return the value of a last line `#### ...`; an `Answer:` in it is left to `_stated`."""
    text = text[: _closing_start(text)].rstrip()
    line = _MARKED.fullmatch(text, text.rfind("\n") + 1)
    return _cleaned(line["claim"]) if line else None


def _cleaned(claim: str) -> str | None:
    """Return the value of an answer line without emphasis and full stop; None if it is empty."""
    return unwrapped(claim.strip(" \t*_").removesuffix(".").rstrip(" *_")) or None


def _stated(text: str) -> str | None:
    """Return the value of the last `Answer:` line or of a closing `the answer is ...`."""
    text = text[: _closing_start(text)]
    position = len(text)
    for _ in range(_MENTIONS):
        position = max(text.rfind("nswer", 0, position), text.rfind("NSWER", 0, position))
        if position < 0:
            return None
        line = _ANSWER_LINE.match(text, text.rfind("\n", 0, position) + 1)
        if line is not None and line.start("claim") > position:
            return _cleaned(line["claim"])
        sentence = _ANSWER_IS.match(text, position - 1) if position else None
        if sentence is not None and _SENTENCE_END.match(sentence["rest"]):
            claim = next(filter(None, sentence.group("bold", "math", "number", "choice")), "")
            return unwrapped(claim) or None
    return None


def _closing_start(text: str) -> int:
    """Return where closing phrases and special tokens at the end of `text` begin."""
    end = text[-40:].rstrip()
    if not end.endswith(("correct.", "correct", "|>", "|>user", "|>assistant")):
        return len(text)
    start = max(0, len(text) - 200)
    closing = _CLOSING.search(text, start)
    return closing.start() if closing else len(text)
