r"""Whether a response stands by an answer that it marks.

A marked answer does not count if the words directly before it deny it (`It is not \boxed{5}`),
suppose it (`If the answer is \boxed{5}`) or give it to somebody else (`Bob says it is \boxed{5}`),
or if those behind it take it back: a question mark, a predicate that denies it (`\boxed{5} is
wrong`), or a later sentence that calls it wrong (`Wait, that is wrong.`) or has another value in
its place (`Sorry, 6.`). Other text behind an answer is chatter.
"""

from __future__ import annotations

import re

from eapo_env.sentences import MATH, NUMBER

_BEFORE_CHARS, _BEHIND_CHARS = 120, 2_000
_DENYING = (
    "not|never|cannot|neither|nor|than|unlike|suppose|supposing|assume|assuming|say|says|said"
    "|doubt|doubts|deny|denies|denied|claims|claimed|thinks|believes|believed|guesses|guessed"
)
_SUPPOSING = "if|unless|whether"
_MISTAKEN = "wrong|incorrect|false|mistaken|erroneous|naive|tempting|rejected|invalid"
_DENIES = frozenset(f"{_DENYING}|{_SUPPOSING}|{_MISTAKEN}|of|thought".split("|"))
_NOUN = "answer|result|value|solution|option|choice"
_FILLING = (
    f"that|this|it|the|a|an|my|our|final|correct|right|true|actual|{_NOUN}|is|are|was|were|be|been"
    "|equal|equals|to|as|simply|just|really|it's|that's"
)
_FILLS = frozenset(_FILLING.split("|"))
_FILLER = rf"(?:[,:]? (?:{_FILLING})(?![a-z]))"
# "The statement that is not true is \boxed{D}", "The number he said is \boxed{7}"
_NO_CLAUSE = r"(?!(?:not (?:true|correct|right)|said|says?|claims|claimed) (?:is|are|was|were)\b)"
_DENIED_BEFORE = re.compile(
    rf"(?:(?:\b{_NO_CLAUSE}(?:{_DENYING}|instead of)(?!,)(?<!\bi said)(?<!we said)|n't"
    r"|(?<!second )(?<!some )\bthought(?= (?:that|the|this|it|my)\b)"
    r"|(?:\A|[.,;:!?\n] ?|\b(?:so|but|and|hence|thus) )(?:the|this|that|my|one|an?)"
    rf"(?: [a-z]{{2,12}})? (?:{_MISTAKEN})){_FILLER}{{0,9}}"
    r"|≠|\\neq?|\\(?:sout|[bx]?cancel) ?\{"
    rf"|\b(?:{_SUPPOSING}){_FILLER}{{0,4}} (?:{_NOUN}|it|this|that){_FILLER}{{0,5}})"
    r"[\s$*(\\\[:,]{0,8}\Z|~~\$?\Z",
    re.IGNORECASE,
)
_NO_COMPLEMENT = r"(?!-| (?:to|for|with|in|at|that|by|when|if)\b)"  # "impossible to do better"
_WRONG = (
    rf"(?:(?:wrong|incorrect|false|untrue|mistaken|erroneous|invalid|rejected|nonsense"
    rf"|a mistake|an error)\b|impossible\b{_NO_COMPLEMENT})"
)
_RIGHT = (
    rf"(?:quite |really |actually )?(?:(?:right|correct|valid|true|possible|allowed)\b"
    rf"{_NO_COMPLEMENT}|it\b|(?:the |my |our |an? )?(?:final |correct |right )?(?:{_NOUN}))"
)
_IS_NOT = r"(?:'s| is| are| was| were)(?: not|n't| never)"
_DOES_NOT = r"(?: (?:does|do|did|could|can|would)(?: not|n't)| cannot| can't)"
_EVALUATION = (
    r"(?:(?:'s| is| are| was| were| seems| looks| must be| has to be| would be)(?: [a-z]{2,12})?"
    rf" {_WRONG}|{_IS_NOT} {_RIGHT}| fails\b| contradicts\b"
    rf"|{_DOES_NOT} (?:(?:work|hold)\b{_NO_COMPLEMENT}|satisfy|fit|solve|match"
    r"|be (?:right|correct|true)))"
)
_DENIED_BEHIND = re.compile(
    rf"(?:\s?[$*)\]}}\\]){{0,6}}(?:\s?\?|,? (?:which|(?:and|but) (?:that|this|it)){_EVALUATION}"
    rf"|{_EVALUATION}|{_IS_NOT}|{_DOES_NOT}| ?\({_WRONG}|\s?[✗✘❌]"
    r"|[.!,]?[\s$*)]{0,6}(?:[Nn]o|Nope)(?:[.,!;:]| wait))"
)
_START = r"(?:(?:\A|(?<=[.!?\n$]))[\s*]{0,6}|, (?=but ))"
_SUBJECT = (
    rf"(?:[Tt]hat|[Tt]his|[Ii]t|(?:[Tt]he|[Mm]y|[Tt]his|[Tt]hat) (?:final |above )?(?:{_NOUN}))"
)
_OPENERS = (
    r"(?:(?:[Bb]ut|[Hh]owever|[Ww]ait|[Hh]mm|[Nn]o|[Aa]ctually|[Oo]ops|[Ss]orry|[Aa]nd|[Ss]o"
    r"|I think)[,.:!]? ){0,3}"
)
_LATER_DENIAL = re.compile(
    rf"{_START}{_OPENERS}(?:{_SUBJECT}{_EVALUATION}|I(?:'m| am| was) (?:wrong|mistaken)"
    r"|I (?:have )?made an? (?:[a-z]{2,12} )?(?:mistake|error)|I take (?:that|it|this) back"
    r"|(?:[Ss]cratch|[Ii]gnore|[Dd]isregard|[Ff]orget) (?:that|this|it|the above))"
)
_OTHER_VALUE = re.compile(
    rf"{_START}(?:(?:[Ww]ait|[Aa]ctually|[Hh]mm|[Nn]o|[Oo]ops|[Ss]orry|[Cc]orrection|[Rr]ather"
    rf"|[Ee]dit|[Oo]n second thought|I mean)[,.:;! -]{{1,3}}){{1,3}}"
    rf"(?:{_SUBJECT}(?:'s| is| was| should be| must be)? ?)?"
    rf"(?P<value>{MATH}|{NUMBER})(?=[.!]?(?:\s|\Z))"
    rf"|{_START}{_SUBJECT} should (?:be|have been) (?P<other>{MATH}|{NUMBER})"
)
_SAYS_MORE = re.compile(r"[^\W\d_]|[?✗✘❌]")
NEXT_QUESTION = re.compile(
    r"\n\s{0,4}(?:Question|Q|Problem|Human|User)\s?\d{0,3}:|</?\|?[a-z_]{1,20}\|?>"
)


def until_next_question(text: str) -> str:
    """Return the part of a text before another question or an end token begins."""
    found = NEXT_QUESTION.search(text)
    return text[: found.start()] if found else text


def is_denied(text: str, start: int, end: int) -> bool:
    """Return whether the text around an answer from `start` to `end` denies it; constant time."""
    before = text[max(0, start - _BEFORE_CHARS) : start]
    if _may_deny(before) and _DENIED_BEFORE.search(before):
        return True
    return is_taken_back(text[start:end], text[end : end + _BEHIND_CHARS])


def _may_deny(before: str) -> bool:
    """Return whether the last word that says something can deny what follows; a quick way."""
    if before.rstrip(" $").endswith(("~~", "{", "\\ne", "\\neq", "≠")):
        return True
    for word in reversed(before.lower().split()):
        plain = word.strip("$*([\\:,")
        if plain and plain not in _FILLS:
            return plain in _DENIES or plain.endswith("n't")
    return False


def is_taken_back(answer: str, behind: str) -> bool:
    """Return whether the text behind an answer takes it back."""
    if not _SAYS_MORE.search(behind):
        return False
    behind = until_next_question(behind)
    if _DENIED_BEHIND.match(behind) or _LATER_DENIAL.search(behind):
        return True
    other = _OTHER_VALUE.search(behind)
    return other is not None and (other["value"] or other["other"]).strip("$ .") not in answer
