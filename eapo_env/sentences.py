r"""What one sentence claims: `So the order costs $31.` claims 31, `It fails for $n=5$` nothing.

A formula counts if it is what the sentence states: it follows `is`, `gives` or another such verb,
or words that only lead to it (`Hence we get $x=5$`). A number counts at the end of a sentence,
behind such a verb, with at most its unit behind it. A sentence that denies, supposes, compares
(`5 fewer apples`) or bounds (`the lower bound is 5`) claims nothing.
"""

from __future__ import annotations

import re

from eapo_env.units import ATTACHED, scale

MATH = r"\$\$[^$]{1,1000}\$\$|\$[^$]{1,1000}\$|\\\([^$]{1,1000}?\\\)|\\\[[^$]{1,1000}?\\\]"
NUMBER = r"[-+]?(?:\\?[$€£¥] ?)?\d(?:[\d,]{0,60}\d)?(?:\.\d{1,60})?(?:/\d{1,60})?"
FORMULA = re.compile(MATH)
_WRAPPERS = (
    ("**", "**"),
    ("```", "```"),
    ("`", "`"),
    ("$$", "$$"),
    ("\\[", "\\]"),
    ("\\(", "\\)"),
    ("$", "$"),
)
SENTENCE_CHARS = 600
_AFTER_FORMULA = re.compile(
    r" ?(?:\\?%|percent|\^?\\circ|degrees|(?:[a-z]{2,12} ?){1,3})?[ .!]{0,3}"
)
SENTENCE = re.compile(
    r"(?<=[.!?])\s{1,10}(?=[A-Z])|\n| (?=(?:Therefore|Thus|Hence|So),? )| (?=which is )"
)
_SENTENCE_HINTS = ("\n", ". ", "! ", "? ", " Th", " So", " Hence", " which is ")
"""One of these is in every text that `SENTENCE` splits; looking for them is quicker."""
_VERB = (
    r"(?:is|are|be|by|equals?|gets?|gives?|giving|yields?|obtains?|ha(?:s|ve)|was|were|costs?|pays?"
    r"|earns?|makes?|takes?|needs?|spends?|spent|leaves?|left|total(?:s|ing)?|becomes?|saves?|owes?"
    r"|contains?|remain(?:s|ing)?"
    r"|(?:equal|comes?|amounts?|adds? up|sums?|simplifies|reduces|evaluates|rounds?|leads?) to)"
)
_STATES = re.compile(rf"(?:\b{_VERB}|=|:) ?(?:therefore |thus |then |exactly |simply |the )?\Z")
_LEADING_WORDS = (
    r"(?:(?:so|hence|thus|therefore|then|and|that|we|have|find|get|obtain|conclude|see|finally|this|it"
    r"|which|gives|giving|yields|follows|means|shows|proves|implies|now|in|conclusion|the|answer"
    r"|solution|result|value)[,:]? ?){0,9}"
)
_LEADS_TO = re.compile(rf"(?:.*,)?{_LEADING_WORDS}", re.IGNORECASE | re.DOTALL)
_CONCLUDES = re.compile(
    r"[,;.]? ?(?=[^$]{0,60}\b(?:so|hence|thus|therefore|which|implies|gives|means)\b)"
    rf"{_LEADING_WORDS}",
    re.IGNORECASE,
)
"""What stands between a reason and a conclusion that are both formulas."""
_VERDICT = re.compile(
    r" (?:is|are) (?:the|our|my|your) (?:final |correct |only )?(?:solution|answer|result)s?\.?\Z"
)
_TWO_CLAIMS = re.compile(
    rf"\b{_VERB} (?:{MATH}|{NUMBER})[^$\d.]{{0,60}}\b(?:and|while|but)\b[^$\d.,]{{0,60}}\Z"
)
"""What stands before the second of two values that a sentence states."""
_OPTION_IS_RIGHT = re.compile(
    r"(?:\A|\b(?:so|thus|hence|therefore),? )(?:option|choice|answer) \(?(?P<option>[A-J])\)? is"
    r" (?:the )?(?:correct|right)(?: one| answer| option| choice)?[.!]?\Z",
    re.IGNORECASE,
)
_TAIL = r"(?: because [^\n.]{0,150}|,? (?:altogether|in total|in all))?[.!]?\Z"
_STATED = rf"(?:\b{_VERB}|=|:) ?(?:therefore |thus |then |only |exactly |now |just |a )?"
_VALUE = rf"(?P<value>{NUMBER}(?: ?\\?%)?)(?P<marks>[€£¥$]?|[A-Za-z]{{1,3}}[²³]?)"
_SET_OFF = re.compile(
    rf"{_STATED}(?:(?P<bold>\*\*)|(?=\\?[$€£¥])){_VALUE}(?P<words>(?: [A-Za-z²³]{{1,12}}){{0,2}})"
    r"(?(bold)\*\*)(?: [a-z']{1,12}){0,9}[.!]?\Z"
)
"""A bold number or an amount of money, which any words may follow."""
_CLOSING_NUMBER = re.compile(
    rf"{_STATED}\*{{0,2}}{_VALUE}\*{{0,2}}(?P<words>(?: [a-z]{{2,12}}){{0,2}}){_TAIL}"
)
_THERE_ARE = re.compile(
    rf"\b[Tt]here (?:is|are|will be)(?: exactly| only| a total of)? (?P<value>{NUMBER})"
    r"(?![^.]*\d)(?P<marks>)(?P<words> [a-z]{2,20})"
)
_COMPARES = re.compile(r"\b(?:less|fewer|more)\b")
"""What makes the value before it a difference (`5 fewer apples`)."""
_CLOSING_CHARS, _NUMBER_CHARS = 100, 50
_LAST_DIGIT = re.compile(r"\d(?=\D*\Z)")
_DENYING = (
    r"not|or|nor|never|no|maybe|perhaps|probably|guess|wrong|incorrect|either|between|cannot|unsure"
    r"|unlikely|think|mistake|wait|hmm|instead|rather|doubt|false|untrue|nobody|unless|naive"
    r"|fails?|impossible"
)
DENIAL = re.compile(rf"\b(?:{_DENYING})\b|n't|\?", re.IGNORECASE)
"""What takes back an answer line; `could` and `if` may belong to its words."""
HEDGE = re.compile(
    rf"\b(?:{_DENYING}|possibly|if|might|could|would|may|suppose|assum(?:e|ing)|try|check|but"
    r"|although|error was|rejects?|rejected|contradicts?|contradiction|let|given|bound|estimate"
    r"|(?:possible|previous|(?!assistant)\w{1,20}'s) answer"
    r"|at (?:most|least)|(?:less|greater|more|fewer|larger|smaller) than"
    r"|about|approximately|roughly|nearly|almost|close to|up to|discard|exclude|except|disprove)\b"
    r"|n't|\?",
    re.IGNORECASE,
)
"""What keeps a closing sentence from being a claim."""


def unwrapped(text: str) -> str:
    r"""Return `text` without surrounding space, `$`, `\(`, `\[` or `**`, however nested."""
    text = text.strip()
    for opener, closer in _WRAPPERS:
        if text.startswith(opener) and text.endswith(closer) and len(text) > len(opener + closer):
            text = text[len(opener) : -len(closer)].strip()
    return text


def sentence_claim(text: str, hedge: re.Pattern[str]) -> str | None:
    """Return the value that the last sentence of a text commits to, or None.

    A sentence in which `hedge` is found commits to none.
    """
    sentence = text[-SENTENCE_CHARS:]
    if any(hint in sentence for hint in _SENTENCE_HINTS):
        sentence = SENTENCE.split(sentence)[-1]
    is_verdict = sentence.rstrip(".").endswith(
        ("solution", "answer", "result", "solutions", "answers")
    )
    if is_verdict:
        sentence = _VERDICT.sub("", sentence)
    claim = _formula_at_end(sentence) if "$" in sentence or "\\" in sentence else None
    if claim is None:
        claim = closing_number(sentence)
    if claim is None and (option := _OPTION_IS_RIGHT.search(sentence)):
        claim = option["option"]
    return None if claim is None or hedge.search(sentence) else claim


def closing_number(sentence: str) -> str | None:
    """Return the number that a sentence ends with, behind a verb that states it, or None.

    A number word behind it (`5 million`) belongs to it. A number within a formula is none.
    """
    digits = _LAST_DIGIT.search(sentence, max(0, len(sentence) - _CLOSING_CHARS))
    if digits is None or any(f.end() > digits.start() for f in FORMULA.finditer(sentence)):
        return None
    start = max(0, digits.start() - _NUMBER_CHARS)
    found = _SET_OFF.search(sentence, start) or _CLOSING_NUMBER.search(sentence, start)
    if found is None and "here " in sentence:
        found = _THERE_ARE.search(sentence)
    if found is None or _COMPARES.search(sentence, found.start("value")):
        return None
    if _TWO_CLAIMS.search(sentence, 0, found.start() + 1):
        return None
    marks, words = found["marks"], found["words"].split()
    if marks[:1].isalpha() and marks.rstrip("²³") not in ATTACHED:
        return None
    is_scaled = words and scale(words[0]) is not None
    return f"{found['value']} {words[0]}" if is_scaled else str(found["value"])


def sentence_around(text: str, position: int) -> str:
    """Return the text from the start of the sentence at a position on."""
    before = text[max(0, position - SENTENCE_CHARS) : position]
    return SENTENCE.split(before)[-1] + text[position : position + SENTENCE_CHARS]


def _formula_at_end(sentence: str) -> str | None:
    """Return the formula that a sentence states, with its unit; of several the concluding one."""
    formulas = [*FORMULA.finditer(sentence)]
    if not formulas or not _AFTER_FORMULA.fullmatch(sentence, formulas[-1].end()):
        return None
    start, end = formulas[-1].span()
    if _COMPARES.search(sentence, end):
        return None
    if len(formulas) == 1:
        leads = _LEADS_TO.fullmatch(sentence, 0, start)
    else:
        leads = _CONCLUDES.fullmatch(sentence, formulas[-2].end(), start)
    if not (leads or _STATES.search(sentence, 0, start)) or _TWO_CLAIMS.search(sentence, 0, start):
        return None
    unit = sentence[end:].strip(" .!")
    return f"{unwrapped(formulas[-1][0])} {unit}".strip() or None
