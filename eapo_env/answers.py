r"""Extraction of the final answer: the last complete `\boxed{...}`, `#### ...` or `Answer: ...`.

Four forms count, in this order:

1. the last `\boxed{...}`, `\fbox{...}` or `\framebox{...}` by brace count (`\boxed 204` too); an
   empty one only mentions the form. A last box that never closes is no answer. Boxes joined only by
   `,`, `;`, `and`, `or` and labels are one list. An `Answer: ...` line after the box replaces it;
2. the last line `#### ...` that holds a value, as in GSM8K;
3. the last line `Answer: ...` (`Final answer:`, bold, `$...$`, the value on the next line);
4. an explicit `the answer is ...` in the last sentence, when a number, a box of bold or a formula
   follows it directly. Any other number in prose is not an answer.

Text up to the last `</think>` never counts, nor does what follows a `<think>` that stays open; of
an `<answer>...</answer>` only its inside counts, all of it if it holds none of these forms. Only
the last 20,000 characters are read. Every pattern here is anchored or has bounded repeats, so the
time is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

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
_MATH = r"\$\$[^$]{1,1000}\$\$|\$[^$]{1,1000}\$|\\\([^$]{1,1000}?\\\)|\\\[[^$]{1,1000}?\\\]"
_NUMBER = r"[-+]?(?:\\?[$€£¥] ?)?\d(?:[\d,]{0,60}\d)?(?:\.\d{1,60})?(?:/\d{1,60})?"
_ANSWER_LINE = re.compile(
    r"[^\w\n$\\]{0,12}(?:\d{1,2}[.)][ \t*_]{0,6})?(?:(?:so|thus|hence|therefore|and),? )?"
    r"(?:the |my |your )?(?:final |correct )?ans(?:wer)?[ \t*_]{0,6}"
    r"(?:(?:is ?)?[:=：][ \t*_]{0,6}|(?=\$|\\\[|\\\(|\[ |\n))\s{0,4}"
    rf"(?P<claim>```\w{{0,10}}\s{{1,4}}[^\n]{{1,1000}}|{_MATH}|[^\n]{{1,{TAIL_CHARS}}})",
    re.IGNORECASE,
)
_ANSWER_IN_CHINESE = re.compile(r"答案(?:应?[是为])?[ :：]{0,3}(?P<claim>[^\n。]{1,500})")
_ANSWER_IS = re.compile(
    r"answer(?: to the (?:problem|question))? (?:is|equals)[: ]{1,3}(?:therefore |thus |simply )?"
    rf"(?:\*\*(?P<bold>[^*\n]{{1,200}})\*\*|(?P<math>{_MATH})"
    r"|(?P<number>[-+]?(?:\\?\$ ?)?\d(?:[\d,]{0,60}\d)?(?:\.\d{1,60})?(?:/\d{1,60})?(?: ?\\?%)?)"
    rf"|(?P<option>\([A-J]\) \$?{_NUMBER}\$?)|(?P<choice>\(?[A-J]\)?)(?![A-Za-z]))"
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
_CLOSING = re.compile(rf"(?:\s|{_END_TOKEN}|I hope (?:it|this) is correct\.?){{1,20}}\Z")
_MENTIONS = 50
_FORMULA_CHARS, _SENTENCE_CHARS = 200, 600
_FORMULA = re.compile(_MATH)
_AFTER_FORMULA = re.compile(
    r" ?(?:\\?%|percent|\^?\\circ|degrees|(?:[a-z]{2,12} ?){1,3})?[ .!]{0,3}"
)
_SENTENCE = re.compile(
    r"(?<=[.!?])\s{1,10}(?=[A-Z])|\n| (?=(?:Therefore|Thus|Hence|So),? )| (?=which is )"
)
_SENTENCE_HINTS = ("\n", ". ", "! ", "? ", " Th", " So", " Hence", " which is ")
"""One of these is in every text that `_SENTENCE` splits; looking for them is quicker."""
_PROSE = re.compile(r"(?<![\\A-Za-z])(?!and |or )[A-Za-z]{2,20},? (?:[a-z]{2,20} )")
_LONE_NUMBER = re.compile(rf"[$*]{{0,2}}{_NUMBER}\\?%?[$*]{{0,2}}\.?")
_CLOSING_NUMBER = re.compile(
    r"(?:\b(?:is|are|be|by|equals?|gets?|gives?|obtains?|ha(?:s|ve)|was|were|costs?|pays?|earns?"
    r"|makes?|takes?|needs?|spends?|spent|leaves?|left|total(?:s|ing)?|becomes?|saves?|owes?"
    r"|contains?|remain(?:s|ing)?"
    r"|(?:equal|comes?|amounts?|adds? up|sums?|simplifies|reduces|evaluates|rounds?|leads?) to)"
    r"|=|:) ?(?:therefore |thus |then |only |exactly |now |just |a )?"
    rf"\*{{0,2}}({_NUMBER}(?: ?\\?%| (?:hundred|thousand|million|billion|trillion|dozen)s?\b)?)"
    r"(?:[*€£¥$]{0,2}|[a-z]{1,3}[²³]?)(?: [a-z]{2,12}){0,2}"
    r"(?: because [^\n.]{0,150}|,? (?:altogether|in total|in all))?[.!]?\Z"
)
_HEDGE = re.compile(
    r"\b(?:not|or|nor|never|no|maybe|perhaps|probably|possibly|guess|if|unless|wrong|incorrect"
    r"|might|could|would|may|unlikely|suppose|assume|assuming|either|between|try|check|but|although"
    r"|rather|instead|cannot|unsure|think|mistake|error was|wait|hmm|reject(?:s|ed)?|contradicts?"
    r"|contradiction|false|let|at (?:most|least)|(?:less|greater|more|fewer|larger|smaller) than"
    r"|about|approximately|roughly|nearly|almost|close to|up to|doubt|nobody|unless|untrue|fails?"
    r"|impossible|discard|exclude|except|disprove)\b|n't|\?",
    re.IGNORECASE,
)
_DENIAL = re.compile(
    r"\b(?:not|or|nor|never|no|maybe|perhaps|probably|guess|wrong|incorrect|either|between|cannot"
    r"|unsure|unlikely|think|mistake|wait|hmm|instead|rather|doubt|false|untrue|nobody|unless|naive"
    r"|fails?|impossible|incorrect)\b|n't|\?",
    re.IGNORECASE,
)
"""What takes back an answer line; `could` and `if` may belong to its words."""
_VERDICT = re.compile(
    r" (?:is|are) (?:the|our|my|your) (?:final |correct |only )?(?:solution|answer|result)s?\.?\Z"
)
_STATES = re.compile(r"(?:\b(?:is|are|equals?|be|get|obtain)|=|:) ?\Z")
_THERE_ARE = re.compile(
    rf"\b[Tt]here (?:is|are|will be)(?: exactly| only| a total of)? ({_NUMBER})"
    r"(?![^.]*\d)(?= [a-z])"
)
_CLOSING_CHARS, _NUMBER_CHARS = 100, 50
_LAST_DIGIT = re.compile(r"\d(?=\D*\Z)")
_PLAIN_BOX = re.compile(r"\\boxed\{([\w+-][\w+./-]{0,40})\}")
_MARKED = re.compile(r"^[ \t]{0,3}####(?!#)(?![^\n]{0,200}answer)(?P<claim>[^\n]{1,300})$",
                     re.IGNORECASE | re.MULTILINE)  # fmt: skip
_VALUE = re.compile(r"(?=.{0,100}[\d\\A-Za-z])(?!\d{1,2}[.:])(?:[^A-Za-z\n]|\\[A-Za-z]{1,20}"
                    r"|(?<![A-Za-z])[A-Za-z](?![A-Za-z])){1,200}(?: [a-z]{2,12}){0,2}")  # fmt: skip
_NEXT_QUESTION = re.compile(r"\n\s{0,4}(?:Question|Q|Problem)\s?\d{0,3}:")
_FENCE = re.compile(r"```\w{0,10}\s")
_WRAPPERS = (
    ("**", "**"),
    ("```", "```"),
    ("`", "`"),
    ("$$", "$$"),
    ("\\[", "\\]"),
    ("\\(", "\\)"),
    ("$", "$"),
)
_MARKS_CHARS = 40
_MARK_WORDS = ("square", "qed", "QED", "Q.E.D")
_MARKS_AT_END = re.compile(
    r"(?:\s|[∎□■✓✔✅。]|\\(?:blacksquare|square|qed)(?![a-z])|Q\.?E\.?D\.?)+\Z"
)
_ASIDE = re.compile(
    r"(?P<value>[^A-Za-z\n]{1,100}|[^\n]{0,60}\$),? (?:as (?:required|desired|needed|claimed"
    r"|expected|stated)|which (?:is|equals|matches|agrees)[^\n]{0,150}"
    r"|by (?:symmetry|induction))\.?"
)


@dataclass(frozen=True, slots=True)
class _Box:
    """The last box of a text with those that form one list with it."""

    content: str
    start: int
    end: int


def extract_answer(response: str) -> str | None:
    r"""Return the final answer of a response, or None if it gives none.

    The text is returned as written, without its box, `$` or emphasis: `\boxed{\frac12}` gives
    `\frac12`. Never raises, whatever the text; linear in its length.
    """
    text, is_tagged = _final_text(response)
    answer = _extracted(text)
    if answer is None and is_tagged and not _is_cut_off(text):
        answer = _sentence_claim(text.strip(), _HEDGE) or _cleaned(text)
    return answer


def _extracted(text: str) -> str | None:
    if "box" in text:
        lone = _lone_box(text)
        if lone is not None:
            return lone
        if _is_cut_off(text):
            return None
        box = _boxed(text)
        if box is not None:
            return _replaced(text, box) or box.content
    if "####" in text and (marked := _marked(text)):
        return marked
    return _stated(text)


def _lone_box(text: str) -> str | None:
    """Return the content of the one box of a text if it is plain and nothing replaces it."""
    last = max(0, text.rfind("box") - 1)
    box = _PLAIN_BOX.match(text, last)
    if box is None or text.find("box") != last + 1 or "nswer" in text or "NSWER" in text:
        return None
    return box[1]


def final_text(response: str) -> str:
    """Return the part of a response in which answers count: its end, outside reasoning tags."""
    return _final_text(response)[0]


def _final_text(response: str) -> tuple[str, bool]:
    """Return the text in which answers count, and whether it is the inside of an `<answer>`."""
    end = response.rfind("</think>")
    text = response if end < 0 else response[end + len("</think>") :]
    opened = text.find("<think>")
    if opened >= 0:
        text = text[:opened]
    text = text[-TAIL_CHARS:]
    start = text.rfind("<answer>")
    if start < 0:
        return text, False
    closed = text.find("</answer>", start)
    inside = text[start + len("<answer>") : closed if closed >= 0 else len(text)]
    if not inside.strip():
        return text, False
    return inside[: _closing_start(inside)], True


def closing_claim(response: str) -> str | None:
    """Return the answer implied by the last sentence of a response that states none, or None.

    Wider than `extract_answer`, for checking a response that is known to be final: the only
    formula of the last sentence, the number it ends with after `is`, `=` or similar, or a response
    that is only one short formula. A sentence with a negation or a hedge (`not`, `or`, `maybe`,
    ...) gives None, and so does a text whose last box never closes.
    """
    text = final_text(response)
    text = text[: _closing_start(text)].strip()
    if not text or _is_cut_off(text) or (_BOX.search(text) and _boxed(text) is None):
        return None
    last_line = text[text.rfind("\n") + 1 :].strip()
    if _LONE_NUMBER.fullmatch(last_line):
        return unwrapped(last_line)
    if len(text) <= _FORMULA_CHARS and "\n" not in text and not _PROSE.search(text):
        whole = unwrapped(text)
        if not _FORMULA.search(whole, 1) and not _CLOSING_NUMBER.search(whole):
            return whole or None
    return _sentence_claim(text, _HEDGE)


def _sentence_claim(text: str, hedge: re.Pattern[str]) -> str | None:
    """Return the value that the last sentence of a text commits to, or None."""
    sentence = text[-_SENTENCE_CHARS:]
    if any(hint in sentence for hint in _SENTENCE_HINTS):
        sentence = _SENTENCE.split(sentence)[-1]
    if sentence.rstrip(".").endswith(("solution", "answer", "result", "solutions", "answers")):
        sentence = _VERDICT.sub("", sentence)
    claim = _formula_at_end(sentence) if "$" in sentence or "\\" in sentence else None
    if claim is None:
        digits = _LAST_DIGIT.search(sentence, max(0, len(sentence) - _CLOSING_CHARS))
        if digits is None:
            return None
        start = max(0, digits.start() - _NUMBER_CHARS)
        number = _CLOSING_NUMBER.search(sentence, start) or (
            _THERE_ARE.search(sentence) if "here " in sentence else None
        )
        claim = number[1] if number else None
    return None if claim is None or hedge.search(sentence) else claim


def _formula_at_end(sentence: str) -> str | None:
    """Return a sentence's only formula, or the last one after `is` or similar, with its unit."""
    formulas = [*_FORMULA.finditer(sentence)]
    if len(formulas) > 1 and _STATES.search(sentence, 0, formulas[-1].start()):
        formulas = formulas[-1:]
    if len(formulas) != 1 or not _AFTER_FORMULA.fullmatch(sentence, formulas[0].end()):
        return None
    unit = sentence[formulas[0].end() :].strip(" .!")
    return f"{unwrapped(formulas[0][0])} {unit}".strip() or None


def unwrapped(text: str) -> str:
    r"""Return `text` without surrounding space, `$`, `\(`, `\[` or `**`, however nested."""
    text = text.strip()
    for opener, closer in _WRAPPERS:
        if text.startswith(opener) and text.endswith(closer) and len(text) > len(opener + closer):
            text = text[len(opener) : -len(closer)].strip()
    return text


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


def _boxed(text: str) -> _Box | None:
    """Return the last box that holds something, joined with the boxes that form a list with it."""
    boxes: list[tuple[int, int, str]] = []
    for start, end, content in _boxes(text):
        inside = unwrapped(_BOX.sub("", content))
        if not inside or inside in _ELLIPSES:
            continue
        if boxes and _JOINER.fullmatch(text, boxes[-1][1], start) is None:
            boxes.clear()
        if _THOUSANDS.fullmatch(inside):
            inside = re.sub(r"[{},\s]|\\!", "", inside)
        boxes.append((start, end, inside))
    if not boxes:
        return None
    answers = [inside for _, _, inside in boxes]
    names = [_LABEL.search(text, max(0, start - 12), start) for start, _, _ in boxes]
    if len({name[1] for name in names if name}) == len(boxes) > 1:
        answers = [f"{name[1]}={a}" for name, a in zip(names, answers, strict=True) if name]
    return _Box(", ".join(dict.fromkeys(answers)), boxes[0][0], boxes[-1][1])


def _replaced(text: str, box: _Box) -> str | None:
    """Return the value of an `Answer:` line after a box that is not in such a line itself."""
    after = text[box.end :]
    if "nswer" not in after and "NSWER" not in after:
        return None
    line = text[text.rfind("\n", 0, box.start) + 1 : box.start]
    if "nswer" in line or "NSWER" in line:
        return None
    stated = _stated(after)
    return stated if stated and _VALUE.fullmatch(stated) else None


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
    claim, runs_on = None, _NEXT_QUESTION.search(text)
    for line in _MARKED.finditer(text):
        if runs_on and claim is not None and line.start() > runs_on.start():
            break
        value = _cleaned(line["claim"])
        if value is None:
            continue
        if line.end() == len(text) or _VALUE.fullmatch(value):
            claim = value
    if claim is not None and not text.endswith(claim) and _last_stated_after_mark(text):
        return None
    return claim


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
        marks = _MARKS_AT_END.search(claim, max(0, len(claim) - _MARKS_CHARS))
        claim = claim[: marks.start()] if marks else claim
    claim = unwrapped(claim.removesuffix(".").rstrip(" *_"))
    if aside := _ASIDE.fullmatch(claim):
        claim = unwrapped(aside["value"].rstrip(" ,"))
    if claim[:1].isalpha() and _PROSE.search(claim + " "):
        claim = _sentence_claim(claim, _DENIAL) or claim
    return claim or None


def _stated(text: str) -> str | None:
    """Return the value of the last `Answer:` line or of a closing `the answer is ...`."""
    text = text[: _closing_start(text)]
    position = len(text)
    words = [word for word in ("nswer", "NSWER", "ns:", "NS:") if word in text]
    for _ in range(_MENTIONS):
        position = max([text.rfind(word, 0, position) for word in words], default=-1)
        if position < 0:
            break
        for start in (text.rfind("\n", 0, position) + 1, text.rfind(". ", 0, position) + 2):
            line = _ANSWER_LINE.match(text, start)
            if line is not None and line.start("claim") > position:
                return _cleaned(line["claim"])
        sentence = _ANSWER_IS.match(text, position - 1) if position else None
        if (
            sentence is not None
            and _SENTENCE_END.match(sentence["rest"])
            and not _DENIAL.search(_sentence_around(text, position))
        ):
            claim = next(filter(None, sentence.group(*_CLAIMS)), "")
            return unwrapped(claim) or None
    in_chinese = text.rfind("答案")
    if in_chinese >= 0 and (found := _ANSWER_IN_CHINESE.match(text, in_chinese)):
        return _cleaned(found["claim"])
    return None


def _sentence_around(text: str, position: int) -> str:
    """Return the text from the start of the sentence at a position on."""
    before = text[max(0, position - _SENTENCE_CHARS) : position]
    return _SENTENCE.split(before)[-1] + text[position : position + _SENTENCE_CHARS]


def _closing_start(text: str) -> int:
    """Return where closing phrases and special tokens at the end of `text` begin."""
    end = text[-40:].rstrip()
    if not end.endswith(("correct.", "correct", ">", "|>user", "|>assistant", "]")):
        return len(text)
    start = max(0, len(text) - 200)
    closing = _CLOSING.search(text, start)
    return closing.start() if closing else len(text)
