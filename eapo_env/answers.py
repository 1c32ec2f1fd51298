r"""Extraction of the final answer: the last `\boxed{...}`, `#### ...` or `Answer: ...` that stands.

Four forms state an answer:

1. `\boxed{...}`, `\fbox{...}` or `\framebox{...}` by brace count (`\boxed 204` too); an empty one
   only mentions the form. A last box that never closes is no answer. Boxes joined only by `,`, `;`,
   `and`, `or` and labels are one list;
2. a line `#### ...` that holds a value, as in GSM8K;
3. a line `Answer: ...` (`Final answer:`, bold, `$...$`, the value on the next line);
4. an explicit `the answer is ...` in the last sentence, or behind a box, when a number, bold or a
   formula follows it directly. Any other number in prose is not an answer.

The last of them counts, unless the text around it denies it or takes it back (`retraction.py`).

Text up to the last `</think>` never counts, nor does what follows a `<think>` that stays open; of
an `<answer>...</answer>` only its inside counts, all of it if it holds none of these forms. Only
the last 20,000 characters are read. Every pattern here is anchored or has bounded repeats, so the
time is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from eapo_env.canonical import without_closing_marks
from eapo_env.retraction import NEXT_QUESTION, is_denied, is_taken_back, until_next_question
from eapo_env.sentences import (
    DENIAL,
    FORMULA,
    HEDGE,
    MATH,
    NUMBER,
    closing_number,
    sentence_around,
    sentence_claim,
    unwrapped,
)

TAIL_CHARS = 20_000

_BOX_NAMES = r"(?:boxed|fbox|framebox)"
_BOX = re.compile(rf"\\{_BOX_NAMES}(?![A-Za-z])")
_TOKEN = re.compile(
    rf"\\\\(?!{_BOX_NAMES})|\\[{{}}]|(?P<box>\\{_BOX_NAMES}\s{{0,4}}\{{)|(?P<open>\{{)|(?P<close>\}})"
    rf"|\\{_BOX_NAMES}(?![A-Za-z])(?:[ ]{{0,3}}(?P<bare>(?=[-+.\d\\(]|[A-Za-z](?![A-Za-z]))"
    r"[^\s{}$]{1,100}))?"
)
_JOINER = re.compile(
    r"(?:\s|[,;$，；、]|和|或|以及|\\[()\[\],; ]|\\q?quad|\\(?:text|mathrm) ?\{|\}|(?:and|or)\b"
    r"|for part \(\w\)|\([a-z\d]{1,3}\)|(?<![\w.])[a-h\d][.)]|(?:[Cc]ase|[Pp]art) \w{1,3}[:.]?"
    r"|(?<![A-Za-z])[A-Za-z](?:_\{?\w\}?)? ?=){1,40}"
)
_LABEL = re.compile(r"(?<![A-Za-z\\])([A-Za-z](?:_\{?\w\}?)?) ?= ?\$?\s?\Z")
_ELLIPSES = ("...", "…", "\\ldots", "\\dots", "\\cdots")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:(?:,|\{,\}|,\\!\s?)\d{3}){1,20}(?:\.\d{1,20})?")
_ANSWER_LINE = re.compile(
    r"[^\w\n$\\]{0,12}(?:\d{1,2}[.)][ \t*_]{0,6})?(?:(?:so|thus|hence|therefore|and),? )?"
    r"(?:the |my |your )?(?:final |correct )?ans(?:wer)?[ \t*_]{0,6}"
    r"(?:(?:is ?)?[:=：][ \t*_]{0,6}|(?=\$|\\\[|\\\(|\[ |\n))\s{0,4}"
    rf"(?P<claim>```\w{{0,10}}\s{{1,4}}[^\n]{{1,1000}}|{MATH}|[^\n]{{1,{TAIL_CHARS}}})",
    re.IGNORECASE,
)
_ANSWER_IN_CHINESE = re.compile(r"答案(?:应?[是为])?[ :：]{0,3}(?P<claim>[^\n。]{1,500})")
_ANSWER_IS = re.compile(
    r"(?:answer(?: choice| option)?(?: to the (?:problem|question))?"
    r"|(?<=correct )(?:option|choice)|(?<=right )(?:option|choice))"
    r" (?:is|equals)[: ]{1,3}(?:therefore |thus |simply |option |choice )?"
    rf"(?:\*\*(?P<bold>[^*\n]{{1,200}})\*\*|(?P<math>{MATH})"
    r"|(?P<number>[-+]?(?:\\?\$ ?)?\d(?:[\d,]{0,60}\d)?(?:\.\d{1,60})?(?:/\d{1,60})?(?: ?\\?%)?)"
    rf"|(?P<option>\([A-J]\) \$?{NUMBER}\$?)|(?P<choice>\(?[A-J]\)?)(?![A-Za-z]))"
    r"(?P<rest>.{0,200})",
    re.IGNORECASE | re.DOTALL,
)
_CLAIMS = ("bold", "math", "number", "option", "choice")
_SENTENCE_END = re.compile(
    r"(?![.,]?\d)(?: ?\(mod(?:ulo)? \d{1,9}\))?"
    r"(?:\s?[.!]?[*_]{0,3}\s{0,4}\Z|,? (?:because|since|as|which) [^\n.]{0,150}\.?\s{0,4}\Z)"
)
_END_TOKEN = (
    r"</?s>|<(?:end_of_turn|start_of_turn|eos|pad|bos|eot_id|unk|endoftext|turn\|)>"
    r"|<\|[^|<>]{1,30}\|>(?:user|assistant)?|<｜[^｜<>]{1,40}｜>|\[(?:EOS|PAD|SEP)\]"
)
_SHORT_CHARS = 200
_PROSE = re.compile(r"(?<![\\A-Za-z])(?!and |or )[A-Za-z]{2,20},? (?:[a-z]{2,20} )")
_LONE_NUMBER = re.compile(rf"[$*]{{0,2}}{NUMBER}\\?%?[$*]{{0,2}}\.?")
_CLOSING = re.compile(rf"(?:\s|{_END_TOKEN}|I hope (?:it|this) is correct\.?){{1,20}}\Z")
_MENTIONS = 50
_MENTIONED = ("nswer", "NSWER", "ns:", "NS:", "ption is", "hoice is")
_STATES_MORE = re.compile("nswer|NSWER|ns:|NS:|####|ption is|hoice is|答案")
_RESTATED = re.compile(
    r"answer (?:is|was|must be|should be|should have been|=)[: ]{1,3}(?:actually |really )?"
    rf"(?P<value>\*\*[^*\n]{{1,200}}\*\*|{MATH}|{NUMBER})(?=[.!,;\n]|\s*\Z)",
    re.IGNORECASE,
)
_PLAIN_BOX = re.compile(r"\\boxed\{([\w+-][\w+./-]{0,40})\}")
_MARKED = re.compile(r"^[ \t]{0,3}####(?!#)(?![^\n]{0,200}answer)(?P<claim>[^\n]{1,300})$",
                     re.IGNORECASE | re.MULTILINE)  # fmt: skip
_VALUE = re.compile(r"(?=.{0,100}[\d\\A-Za-z])(?!\d{1,2}[.:])(?:[^A-Za-z\n]|\\[A-Za-z]{1,20}"
                    r"|(?<![A-Za-z])[A-Za-z](?![A-Za-z])){1,200}(?: [a-z]{2,12}){0,2}")  # fmt: skip
_FENCE = re.compile(r"```\w{0,10}\s")
_MARK_WORDS = ("square", "qed", "QED", "Q.E.D")
_ASIDE = re.compile(
    r"(?P<value>[^A-Za-z\n]{1,100}|[^\n]{0,60}\$),? (?:as (?:required|desired|needed|claimed"
    r"|expected|stated)|which (?:is|equals|matches|agrees)[^\n]{0,150}"
    r"|by (?:symmetry|induction))\.?"
)


@dataclass(frozen=True, slots=True)
class _Box:
    """The last box of a text that stands, with those that form one list with it.

    Its content is None if the text denies every box.
    """

    content: str | None
    end: int


def extract_answer(response: str) -> str | None:
    r"""Return the final answer of a response, or None if it gives none.

    The text is returned as written, without its box, `$` or emphasis: `\boxed{\frac12}` gives
    `\frac12`. Never raises, whatever the text; linear in its length.
    """
    text, behind = _final_text(response)
    answer = _extracted(text)
    if answer is None and behind is not None and not _is_cut_off(text):
        answer = sentence_claim(text.strip(), HEDGE) or _cleaned(text)
    return None if answer and behind and is_taken_back(answer, behind) else answer


def solution_answer(solution: str) -> str | None:
    """Return the final answer of a trusted solution, or None if it gives none.

    Its last box counts whatever is said around it, unlike that of a response.
    """
    text = final_text(solution)
    box = _boxed(text, lambda *_: False)
    return extract_answer(solution) if box is None or _is_cut_off(text) else box.content


def _extracted(text: str) -> str | None:
    if "box" in text:
        lone = _lone_box(text)
        if lone is not None:
            return lone
        if _is_cut_off(text):
            return None
        box = _boxed(text)
        if box is not None:
            return _later(text[box.end :]) or box.content
    if "####" in text and (marked := _marked(text)):
        return marked
    return _stated(text)


def _lone_box(text: str) -> str | None:
    """Return the content of the one box of a text if it is plain and stands; a quick way."""
    last = max(0, text.rfind("box") - 1)
    box = _PLAIN_BOX.match(text, last)
    if box is None or text.find("box") != last + 1 or _STATES_MORE.search(text, box.end()):
        return None
    return None if is_denied(text, box.start(), box.end()) else box[1]


def final_text(response: str) -> str:
    """Return the part of a response in which answers count: its end, outside reasoning tags."""
    return _final_text(response)[0]


def _final_text(response: str) -> tuple[str, str | None]:
    """Return the text in which answers count, and what is behind it if it is in an `<answer>`."""
    end = response.rfind("</think>")
    text = response if end < 0 else response[end + len("</think>") :]
    opened = text.find("<think>")
    if opened >= 0:
        text = text[:opened]
    text = text[-TAIL_CHARS:]
    start = text.rfind("<answer>")
    if start < 0:
        return text, None
    inside, _, behind = text[start + len("<answer>") :].partition("</answer>")
    if not inside.strip():
        return text, None
    return inside[: _closing_start(inside)], behind


def closing_claim(response: str) -> str | None:
    """Return the answer implied by the last sentence of a response that states none, or None.

    Wider than `extract_answer`, for checking a response that is known to be final: the only
    formula of the last sentence, the number it ends with after `is`, `=` or similar, or a response
    that is only one short formula. A sentence with a negation or a hedge (`not`, `or`, `maybe`,
    ...) gives None, and so does a text whose last box never closes.
    """
    text, behind = _final_text(response)
    text = text[: _closing_start(text)].strip()
    if (
        not text
        or (behind and is_taken_back(text, behind))
        or _is_cut_off(text)
        or not _is_unboxed(text)
    ):
        return None
    last_line = text[text.rfind("\n") + 1 :].strip()
    if _LONE_NUMBER.fullmatch(last_line):
        return unwrapped(last_line)
    if len(text) <= _SHORT_CHARS and "\n" not in text and not _PROSE.search(text):
        whole = unwrapped(text)
        if not FORMULA.search(whole, 1) and not closing_number(whole):
            return whole or None
    return sentence_claim(text, HEDGE)


def _is_unboxed(text: str) -> bool:
    """Return whether no box of a text has been denied or is empty."""
    if not _BOX.search(text):
        return True
    box = _boxed(text)
    return box is not None and box.content is not None


def _is_cut_off(text: str) -> bool:
    """Return whether the last box of a text is opened and never closed."""
    last = max(text.rfind("\\boxed"), text.rfind("\\fbox"), text.rfind("\\framebox"))
    if last < 0:
        return False
    opening = _TOKEN.match(text, last)
    if opening is None or opening.lastgroup != "box":
        return False
    depth = 0
    for token in _TOKEN.finditer(text, last):
        depth += {"box": 1, "open": 1, "close": -1}.get(token.lastgroup or "", 0)
        if depth == 0:
            return False
    return True


def _boxed(text: str, denies: Callable[[str, int, int], bool] = is_denied) -> _Box | None:
    """Return the last box that stands, joined with the boxes that form a list with it.

    Args:
        text: any.
        denies: whether the text around a box, from its start to its end, denies it.

    Returns:
        None if no box holds anything.
    """
    boxes = [
        (start, end, inside)
        for start, end, content in _boxes(text)
        if (inside := unwrapped(_BOX.sub("", content))) and inside not in _ELLIPSES
    ]
    if not boxes:
        return None
    last_end = boxes[-1][1]
    while boxes and denies(text, *boxes[-1][:2]):
        boxes.pop()
    if not boxes:
        return _Box(None, last_end)
    first = len(boxes) - 1
    while first and _JOINER.fullmatch(text, boxes[first - 1][1], boxes[first][0]):
        first -= 1
    group = boxes[first:]
    answers = [
        re.sub(r"[{},\s]|\\!", "", inside) if _THOUSANDS.fullmatch(inside) else inside
        for _, _, inside in group
    ]
    names = [_LABEL.search(text, max(0, start - 12), start) for start, _, _ in group]
    if len({name[1] for name in names if name}) == len(group) > 1:
        answers = [f"{name[1]}={a}" for name, a in zip(names, answers, strict=True) if name]
    return _Box(", ".join(dict.fromkeys(answers)), group[-1][1])


def _later(behind: str) -> str | None:
    """Return the value of the last statement of an answer behind a box, or None."""
    if not _STATES_MORE.search(behind):
        return None
    behind = until_next_question(behind)
    claim = ("####" in behind and _marked(behind)) or _stated(behind) or _restated(behind)
    return claim if claim and _VALUE.fullmatch(claim) else None


def _restated(behind: str) -> str | None:
    """Return the last value that a text calls the answer (`Wait, the answer is 6.`), or None."""
    for found in reversed([*_RESTATED.finditer(behind)]):
        if not is_denied(behind, *found.span("value")):
            return unwrapped(found["value"])
    return None


def _boxes(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, content) of the outermost complete boxes."""
    found = _BOX.search(text)
    if found is None:
        return
    first = found.start()
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
    yield from inner


def _marked(text: str) -> str | None:
    """Return the value of the last line `#### ...` that holds one; a heading in words is none."""
    text = text[: _closing_start(text)].rstrip()
    claim, end, runs_on = None, 0, NEXT_QUESTION.search(text)
    for line in _MARKED.finditer(text):
        if runs_on and claim is not None and line.start() > runs_on.start():
            break
        value = _cleaned(line["claim"])
        if value is None:
            continue
        if line.end() == len(text) or _VALUE.fullmatch(value):
            claim = value
            end = line.end()
    if claim is None or text.endswith(claim):
        return claim
    return None if _last_stated_after_mark(text) or is_taken_back(claim, text[end:]) else claim


def _last_stated_after_mark(text: str) -> bool:
    """Return whether an `Answer:` stands after the last line `#### ...`."""
    after = text[text.rfind("####") :]
    return "nswer" in after or "NSWER" in after


def _cleaned(claim: str) -> str | None:
    """Return the value of an answer line without emphasis, closing marks and asides; or None."""
    claim = claim.strip()
    if fence := _FENCE.match(claim):
        claim = claim[fence.end() :].removesuffix("```")
    claim = claim.strip(" \t\n*_")
    if not claim[-1:].isalnum() or claim.endswith(_MARK_WORDS):
        claim = without_closing_marks(claim)
    claim = unwrapped(claim.removesuffix(".").rstrip(" *_"))
    if aside := _ASIDE.fullmatch(claim):
        claim = unwrapped(aside["value"].rstrip(" ,"))
    if claim[:1].isalpha() and _PROSE.search(claim + " "):
        claim = sentence_claim(claim, DENIAL) or claim
    return claim or None


def _stated(text: str) -> str | None:
    """Return the value of the last `Answer:` line or of a closing `the answer is ...`."""
    text = text[: _closing_start(text)]
    position = len(text)
    words = [word for word in _MENTIONED if word in text]
    for _ in range(_MENTIONS):
        position = max([text.rfind(word, 0, position) for word in words], default=-1)
        if position < 0:
            break
        for start in (text.rfind("\n", 0, position) + 1, text.rfind(". ", 0, position) + 2):
            line = _ANSWER_LINE.match(text, start)
            if line is not None and line.start("claim") > position:
                claim = _cleaned(line["claim"])
                return None if claim and is_taken_back(claim, text[line.end() :]) else claim
        sentence = _ANSWER_IS.match(text, position - 1) if position else None
        if (
            sentence is not None
            and _SENTENCE_END.match(sentence["rest"])
            and not DENIAL.search(sentence_around(text, position))
        ):
            name = next(name for name in _CLAIMS if sentence[name])
            return (
                None if is_denied(text, *sentence.span(name)) else unwrapped(sentence[name]) or None
            )
    in_chinese = text.rfind("答案")
    if in_chinese >= 0 and (found := _ANSWER_IN_CHINESE.match(text, in_chinese)):
        return _cleaned(found["claim"])
    return None


def _closing_start(text: str) -> int:
    """Return where closing phrases and special tokens at the end of `text` begin."""
    end = text[-40:].rstrip()
    if not end.endswith(("correct.", "correct", ">", "|>user", "|>assistant", "]")):
        return len(text)
    start = max(0, len(text) - 200)
    closing = _CLOSING.search(text, start)
    return closing.start() if closing else len(text)
