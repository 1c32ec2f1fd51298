"""The grader of answers in words: F1 of the bags of words of answer and gold.

The measure of question answering (SQuAD, arXiv 1606.05250; HotpotQA, arXiv 1809.09600), which the
paper's reward is written with. For mathematics there is `Verifier`.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from dataclasses import dataclass

from eapo_env.answers import extract_answer
from eapo_env.verifier import Pairs, Status, Verdict

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_FONTS = re.compile(r"\\(?:text[a-z]*|math[a-z]*|mbox|emph|underline)\s*(?=\{)")
_DELIMITERS = re.compile(r"\$|\\[()]")
_SPACES = re.compile(r"\\[ ,;:!]|\\q?quad\b|~")
_PUNCTUATION = rf"[{re.escape(string.punctuation)}]"
_PUNCTUATION_BUT_OF_NUMBERS = re.compile(
    rf"(?!(?<=\d)[./](?=\d)|(?<![\w.])-(?=\.?\d)|(?<![\w.])\.(?=\d)){_PUNCTUATION}"
)
_WHOLE_ANSWERS = ("yes", "no", "noanswer")


@dataclass(frozen=True, slots=True)
class F1Grader:
    """Grades answers in words: correct if all words are those of the gold answer, else in part.

    A verdict's `score` is the F1, in [0, 1]. The answer is the final one of a response, as for
    mathematics: in a box, after `####` or `Answer:`.
    """

    def verify(self, pairs: Pairs) -> list[Verdict]:
        """Return one verdict per (response, gold answer) pair, in order."""
        return [_graded(response, gold) for response, gold in pairs]

    async def averify(self, pairs: Pairs) -> list[Verdict]:
        """Return what `verify` returns."""
        return self.verify(pairs)

    def close(self) -> None:
        """Do nothing: it holds nothing."""


def f1_score(answer: str, gold: str) -> float:
    r"""Return the F1 of two answers' bags of words, in [0, 1].

    Words are compared in lower case, without articles, punctuation and LaTeX's fonts and spaces
    (`\text{Paris}`). Where one of the two is "yes", "no" or "noanswer", only the same answer
    counts; so it does where one of the two is nothing but articles and punctuation, as the option
    `A`. Unlike SQuAD's measure, `3.5`, `1/2` and `-5` are not `35`, `12` and `5`.
    """
    words, gold_words = _words(answer), _words(gold)
    if not (words and gold_words):
        return float(_with_articles(answer) == _with_articles(gold))
    if any(" ".join(one) in _WHOLE_ANSWERS for one in (words, gold_words)):
        return float(words == gold_words)
    common = sum((Counter(words) & Counter(gold_words)).values())
    return 2 * common / (len(words) + len(gold_words))


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", _without_punctuation(text)).split()


def _with_articles(text: str) -> list[str]:
    return _without_punctuation(text).split() or [_unstyled(text).strip("{}.'\" ")]


def _without_punctuation(text: str) -> str:
    return _PUNCTUATION_BUT_OF_NUMBERS.sub("", _unstyled(text))


def _unstyled(text: str) -> str:
    plain = _SPACES.sub(" ", _FONTS.sub(" ", _DELIMITERS.sub("", text))).strip().lower()
    return re.sub(r"\A- (?=\.?\d)", "-", plain)


def _graded(response: str, gold: str) -> Verdict:
    answer = extract_answer(response)
    if answer is None:
        return Verdict(Status.NO_ANSWER)
    score = f1_score(answer, gold)
    return Verdict(Status.CORRECT) if score == 1.0 else Verdict(Status.WRONG, score)
