r"""Answers in words: options of a multiple choice, no solution, yes and no, statements.

An answer that names several options equals none of them; it equals a gold answer that names the
same several. Two options that state their values must agree in both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from eapo_env.notation import FUNCTION_WORDS, RELATION
from eapo_env.quantities import number

_WORDS = re.compile(r"\A[A-Za-z][A-Za-z' .()-]{0,80}\Z")
_CHOICE = re.compile(r"\A(?:(?:[Oo]ption|[Cc]hoice|[Aa]nswer) )?[(\[]? ?([A-Ja-j]) ?[)\]]?[.:]?\Z")
_LABELLED = re.compile(
    r"\A(?:[Oo]ption |[Cc]hoice )?(?:\(([A-J])\)|([A-J]) ?[).:]) ?(?P<rest>\S.*)\Z", re.DOTALL
)
_OTHER_LABEL = re.compile(
    r"(?<![A-Za-z\\]) ?[([{]?(?<![A-Za-z\\])(?<!point )(?<!angle )(?<!line )(?<!set )"
    r"[A-J](?![A-Za-z'_^(=])(?! ?[=+<>-])|\([a-j]\)|(?<![A-Za-z\\(])[a-j]\)"
)
"""A further label in the text of an option: a capital by itself that is no named thing."""
_TAKEN_BACK = re.compile(
    r"\b(?:is|are|was|be|been|looks|seems)"
    r" (?:wrong|incorrect|false|not|rejected|excluded|ruled|impossible|eliminated)\b"
    r"|\A(?:wrong|incorrect|false|rejected|excluded|impossible|eliminated|fails?|no|not)\b"
    r"|\b(?:fails|cannot|can't|isn't|doesn't|don't|wouldn't|maybe|perhaps)\b"
    r"|\bor (?:something|another)"
    r"|\?\Z|\b(?:or|not|n't)\Z"
)
_NOTHING = re.compile(
    r"\A(?:\\emptyset|\\\{ ?\\\}|(?:there (?:is|are) )?no (?:real |such |valid )?"
    r"(?:solutions?|roots?|values?|answers?|numbers?|integers?)(?: exists?)?|none"
    r"|(?:the )?empty set|no such \w+(?: exists?)?)\Z",
    re.IGNORECASE,
)
_UNDEFINED = re.compile(r"\A(?:DNE|(?:the limit |it )?does(?: not|n't) exist)\Z", re.IGNORECASE)
_LONE_WORDS = frozenset(
    ("yes", "no", "odd", "true", "false", "none", "even", "both", "neither", "zero", "one", "two")
)
_SEPARATORS = re.compile(r"[ .()-]+")
_LIST = re.compile(r", ?(?:and )?| and ")
_WORD = re.compile(r"[A-Za-z]?[a-z]*'?[a-z]+|[A-Z]+|")
_SHORT_CAPITALS = re.compile(r"(?<![A-Za-z])[A-Z]{1,3}(?![A-Za-z]).|[A-Za-z]'(?![a-z])")
"""Names of points among words, whose case and primes count."""
_LABEL_OR_NUMERAL = r"(?:[A-J]|I{1,3}|IV|VI{0,3})"
_LABELS = re.compile(r"I{1,3}(?!V)|IV|VI{0,3}|[A-J]")
_SEVERAL = re.compile(
    rf"(?:\\\{{ ?)?\(?{_LABEL_OR_NUMERAL}\)?"
    rf"(?: ?(?:,|;|&)? ?(?:and )?(?<=[ ,;&])\(?{_LABEL_OR_NUMERAL}\)?){{1,9}}(?: ?\\\}})?"
)
_TOGETHER = re.compile(r"(?=[A-H]{2,8}\Z)A?B?C?D?E?F?G?H?")
"""Labels without anything between them, in order: an answer to a gold list of options."""
_PROPERTY = re.compile(r"\A(?P<name>[a-z]) is (?P<what>[a-z]{3,12})\Z")
"""A property of a variable, `n is odd`, which is also written `odd n`."""
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,20}[,.]? [A-Za-z]{2,20}(?![A-Za-z])")


def same_words(answer: str, gold: str) -> bool | None:
    """Compare options and words; None if neither side is made of them."""
    for kind in (_NOTHING, _UNDEFINED):
        nothing = kind.match(answer) is not None, kind.match(gold) is not None
        if any(nothing):
            return all(nothing)
    named = _options_in(answer), _options_in(gold)
    if any(len(labels) > 1 for labels in named) and (
        all(named) or any(map(_SEVERAL.fullmatch, (answer, gold)))
    ):
        return named[0] == named[1]
    options = _chosen(answer), _chosen(gold)
    if all(options):
        return options[0] == options[1]
    if (labelled := _LABELLED.match(answer)) and options[0] and not options[1]:
        return None if _is_words(labelled["rest"]) is False else (
            _plain_words(labelled["rest"]) == _plain_words(gold)
        )  # fmt: skip
    if _CHOICE.match(gold) and _LABELLED.match(answer):
        return False
    a, g = _listed(answer), _listed(gold)
    if a and g:
        return a == g
    if not (_is_words(answer) or _is_words(gold)):
        return None
    return None if RELATION.search(answer) or RELATION.search(gold) else False


def _listed(text: str) -> list[str]:
    """Return the items of a list of words in a fixed order, `Alice and Bob` as `Bob, Alice`.

    Empty if the text is no such list; words alone are a list of one item.
    """
    items = [item for item in _LIST.split(text) if item.strip()]
    if not (_is_words(text) or all(map(_is_words, items))):
        return []
    return sorted(map(_plain_words, items))


def labelled_options(items: Sequence[str]) -> dict[str, str]:
    """Return the items of a list by their labels, if each is another option; else nothing."""
    labelled = {label: item for item in items if (label := _chosen(item))}
    return labelled if len(labelled) == len(items) > 1 else {}


def values_of_option(answer: str, gold: str) -> tuple[str, str] | None:
    """Return the texts behind the label if both name the same option and say more; else None."""
    labelled = _LABELLED.match(answer), _LABELLED.match(gold)
    if not all(labelled) or _chosen(answer) is None or _chosen(answer) != _chosen(gold):
        return None
    a, g = (match["rest"].strip() for match in labelled if match)
    return a, g


def is_option(text: str) -> bool:
    """Return whether a text is the label of an option and nothing else."""
    return _CHOICE.match(text) is not None


def _options_in(text: str) -> frozenset[str]:
    """Return the labels of options, or numerals of statements, that a text lists; else none."""
    listed = _SEVERAL.fullmatch(text) or _TOGETHER.fullmatch(text)
    return frozenset(_LABELS.findall(text)) if listed else frozenset()


def _chosen(text: str) -> str | None:
    """Return the one option that a text names, with its text or without; else None."""
    if choice := _CHOICE.match(text):
        return choice[1]
    if len(repeated := _options_in(text)) == 1:
        return next(iter(repeated))
    labelled = _LABELLED.match(text)
    if labelled is None:
        return None
    rest = labelled["rest"].strip()
    if _OTHER_LABEL.search(rest) or _TAKEN_BACK.search(rest):
        return None
    return labelled[1] or labelled[2]


def unlabelled(text: str) -> str:
    """Return the text of an option without its label, if it names one option only."""
    labelled = _LABELLED.match(text)
    return labelled["rest"].strip() if labelled and _chosen(text) else text


def _is_words(text: str) -> bool:
    """Return whether a text is made of words, and not a product of letters or a function."""
    if text.lower() in _LONE_WORDS:
        return True
    if _WORDS.match(text) is None or "(" in text[1:]:
        return False
    words = _SEPARATORS.split(text.strip("(). "))
    lone = len(words) == 1
    return all(map(_WORD.fullmatch, words)) and (
        any(len(word) >= (5 if lone and not word.istitle() else 3) for word in words)
        and not FUNCTION_WORDS.intersection(word.lower() for word in words)
    )


def _plain_words(text: str) -> str:
    text = _PROPERTY.sub(r"\g<what> \g<name>", text)
    text = text.lower() if _SHORT_CAPITALS.search(text) is None else text
    for article in ("all ", "All ", "the ", "The ", "an ", "An ", "a ", "A "):
        text = text.removeprefix(article)
    return re.sub(r"[^A-Za-z]", "", text)


def is_prose_for_a_number(answer: str, gold: str) -> bool:
    """Return whether the gold is a plain number and the answer holds words: never equal.

    An answer that is not a number itself (unit and all) and has words beside each other says
    something else than a number.
    """
    if number(gold) is None or RELATION.search(answer) or "\\" in answer:
        return False
    prose = _PROSE.search(answer)
    return prose is not None and " and " not in answer and "," not in answer
