"""The action grammar: parse a completion into consult, answer or malformed; never an error.

    <consult>
    <query>first question</query>
    <query>second question</query>
    </consult>

consults; a final answer (`answers.extract_answer`) answers; anything else is malformed. Tags are
plain text, because LaTeX backslashes break JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from eapo_env.answers import extract_answer

CONSULT_OPEN, CONSULT_CLOSE = "<consult>", "</consult>"
QUERY_OPEN, QUERY_CLOSE = "<query>", "</query>"


@dataclass(frozen=True, slots=True)
class Consult:
    """The action of asking experts: the questions in order, none of them empty."""

    queries: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """The action of giving a final answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """A completion that is neither; it uses up the turn."""

    reason: str


Action = Consult | Answer | Malformed


def parse_action(completion: str, *, experts: bool = True) -> Action:
    """Return the action of a completion; never raises.

    The first complete consult block decides, wherever it is, because it ends the turn: policies
    stop there, and the rest is dropped. Without one, the final answer decides, unless a consult
    block was opened after the reasoning and never closed.

    Args:
        completion: what the policy wrote.
        experts: whether experts can be consulted; False reads consult tags as plain text (turn
            budget 1, or rules without experts).
    """
    if experts and CONSULT_OPEN in completion:
        block = _first_block(completion)
        if block is not None:
            return _parse_block(block)
        if CONSULT_OPEN in completion.rpartition("</think>")[2]:
            return Malformed("a consult block is not closed")
    answer = extract_answer(completion)
    return Malformed("no answer and no consult block") if answer is None else Answer(answer)


def render_consult(action: Consult) -> str:
    """Return the consult block that `parse_action` parses into this action."""
    queries = "".join(f"{QUERY_OPEN}{query}{QUERY_CLOSE}\n" for query in action.queries)
    return f"{CONSULT_OPEN}\n{queries}{CONSULT_CLOSE}"


def end_of_turn(completion: str) -> str:
    """Return the completion up to the end of its first consult block, or all of it."""
    start = completion.find(CONSULT_OPEN)
    end = completion.find(CONSULT_CLOSE, start) if start >= 0 else -1
    return completion if end < 0 else completion[: end + len(CONSULT_CLOSE)]


def _first_block(completion: str) -> str | None:
    start = completion.find(CONSULT_OPEN)
    end = completion.find(CONSULT_CLOSE, start)
    return None if end < 0 else completion[start + len(CONSULT_OPEN) : end]


def _parse_block(block: str) -> Action:
    queries = tuple(text for text in map(str.strip, _queries(block)) if text)
    return Consult(queries) if queries else Malformed("a consult block without a query")


def _queries(block: str) -> Iterator[str]:
    # Not a regex: one with a lazy middle takes quadratic time on tags that are never closed.
    start = block.find(QUERY_OPEN)
    while start >= 0 and (end := block.find(QUERY_CLOSE, start)) >= 0:
        yield block[start + len(QUERY_OPEN) : end]
        start = block.find(QUERY_OPEN, end)
