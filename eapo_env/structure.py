r"""Equality of answers by structure: lists, sets, tuples, intervals, matrices, relations.

`equivalent` parses two canonical texts and compares their parts. The comparison of two scalars is
an argument: with `exact_scalar` (no sympy) the caller's process decides most answers; a worker
passes one that also proves symbolic equality. None means that this comparison cannot decide.

A list without brackets (`1, 2`), joined by commas, `and` or `or`, is unordered, like a set; a
tuple, an interval and a matrix are ordered. `x = 5` is compared by its value if the left side is a
mere name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import Literal

from eapo_env.equivalence import number, same_number
from eapo_env.notation import (
    FUNCTION_WORDS,
    IS_NAME,
    RELATION,
    TURNED,
    as_interval,
    bracketed,
    cells_of,
    items_of,
    names_of,
    relation_of,
    union_of,
    union_parts,
    unnamed,
    value_of,
    without_membership,
)

Factor = Literal["one", "positive", "any"]
Scalar = Callable[[str, str, Factor], bool | None]
"""(answer, gold, factor) -> whether they are equal up to a factor: 1, positive, or non-zero."""

_WORDS = re.compile(r"\A[A-Za-z][A-Za-z' .()-]{0,80}\Z")
_CHOICE = re.compile(r"\A[(\[]? ?([A-Ja-j]) ?[)\]]?\.?\Z")
_CHOSEN = re.compile(r"\A(?:option |choice )?(?:\(([A-J])\)|([A-J]) ?[).:]) ?\S")
_SEPARATING_SPACE = re.compile(r"(?<=[0-9]) (?=[0-9])|(?<=[A-Za-z]) (?=[A-Za-z])")
_SUBSCRIPT = re.compile(r"_\{(\w)\}")


def exact_scalar(answer: str, gold: str, factor: Factor = "one") -> bool | None:
    """Return whether two plain numbers are equal; None if either is not a plain number."""
    if factor != "one":
        return None
    a, g = number(answer), number(gold)
    if a is None or g is None:
        return None
    return same_number(a, g)


def equivalent(answer: str, gold: str, scalar: Scalar) -> bool | None:
    """Return whether two canonical texts are the same answer; None if `scalar` cannot decide."""
    if _same_text(answer, gold):
        return _says_something(gold)
    exact = exact_scalar(answer, gold)
    if exact is not None:
        return exact
    words = _same_words(answer, gold)
    if words is not None:
        return words
    return _same_structure(answer, gold, scalar)


def _same_text(answer: str, gold: str) -> bool:
    """Return whether two texts are equal up to spaces without meaning."""
    return answer == gold or _without_spaces(answer) == _without_spaces(gold)


def _without_spaces(text: str) -> str:
    text = _SEPARATING_SPACE.sub("\t", text).replace(" ", "").replace("\t", " ")
    return _SUBSCRIPT.sub(r"_\1", text)


def _says_something(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _same_words(answer: str, gold: str) -> bool | None:
    choice, chosen = _CHOICE.match(gold), _CHOICE.match(answer) or _CHOSEN.match(answer)
    if choice and chosen:
        return choice[1] == (chosen[1] or chosen[2 if chosen.re is _CHOSEN else 1])
    a, g = _is_words(answer), _is_words(gold)
    if not (a or g):
        return None
    if a and g:
        return _plain_words(answer) == _plain_words(gold)
    return None if RELATION.search(answer) or RELATION.search(gold) else False


def _is_words(text: str) -> bool:
    return (
        _WORDS.match(text) is not None
        and re.search(r"[A-Za-z]{3}", text) is not None
        and "(" not in text[1:]
        and not FUNCTION_WORDS.intersection(re.findall(r"[a-z]{2,5}", text.lower()))
        and re.fullmatch(r"[a-z]{3}|[A-Z]{3,4}", text) is None
    ) or text.lower() in ("yes", "no", "odd", "true", "false", "none", "even")


def _plain_words(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.lower().removeprefix("the ").removeprefix("an "))


def _same_structure(answer: str, gold: str, scalar: Scalar) -> bool | None:
    a_items, g_items = items_of(answer), items_of(gold)
    if len(a_items) == len(g_items) == 1:
        return _same_item(a_items[0], g_items[0], scalar)
    same = partial(_same_item, scalar=scalar)
    for items, lone, other in ((a_items, g_items, answer), (g_items, a_items, gold)):
        tuple_ = bracketed(unnamed(lone[0])) if len(lone) == 1 else None
        if tuple_ and tuple_[0] == "()" and len(tuple_[1]) == len(items) and "{" not in other[:2]:
            sides = (items, tuple_[1]) if other is answer else (tuple_[1], items)
            return _all(same(unnamed(a), unnamed(g)) for a, g in zip(*sides, strict=True))
    if len(a_items) != len(g_items):
        a_items, g_items = union_parts(a_items), union_parts(g_items)
        return len(a_items) == len(g_items) and _same_unordered(a_items, g_items, same)
    a_names, g_names = names_of(a_items), names_of(g_items)
    if a_names and g_names and set(a_names) == set(g_names):
        a_items = [a_items[a_names.index(name)] for name in g_names]
    if a_names or g_names:
        return _all(map(same, a_items, g_items))
    values = [unnamed(text) for text in a_items], [unnamed(text) for text in g_items]
    if not any(relation_of(text) for side in values for text in side):
        a_items, g_items = values
    return _same_unordered(a_items, g_items, same)


def _same_unordered(
    answer: Sequence[str], gold: Sequence[str], same: Callable[[str, str], bool | None]
) -> bool | None:
    left, undecided = list(gold), False
    for item in answer:
        outcomes = [same(item, other) for other in left]
        if True in outcomes:
            del left[outcomes.index(True)]
        elif None in outcomes:
            undecided = True
        else:
            return False
    return None if undecided else True


def _all(outcomes: Iterable[bool | None]) -> bool | None:
    undecided = False
    for outcome in outcomes:
        if outcome is False:
            return False
        undecided = undecided or outcome is None
    return None if undecided else True


def _same_item(answer: str, gold: str, scalar: Scalar) -> bool | None:
    answer, gold = without_membership(answer), without_membership(gold)
    if _same_text(answer, gold):
        return _says_something(gold)
    same = partial(_same_item, scalar=scalar)
    a_union, g_union = union_of(answer), union_of(gold)
    if len(a_union) > 1 or len(g_union) > 1:
        return len(a_union) == len(g_union) and _same_unordered(a_union, g_union, same)
    a_cells, g_cells = cells_of(unnamed(answer)), cells_of(unnamed(gold))
    if a_cells or g_cells:
        return _same_cells(a_cells, g_cells, same)
    answer, gold = as_interval(answer, gold), as_interval(gold, answer)
    a_parts, g_parts = bracketed(unnamed(answer)), bracketed(unnamed(gold))
    if a_parts and g_parts:
        if a_parts[0] != g_parts[0] or len(a_parts[1]) != len(g_parts[1]):
            return False
        return _all(same(a, g) for a, g in zip(a_parts[1], g_parts[1], strict=True))
    if a_parts or g_parts:
        return False
    return _same_relation(answer, gold, scalar)


def _same_cells(
    answer: list[list[str]] | None,
    gold: list[list[str]] | None,
    same: Callable[[str, str], bool | None],
) -> bool | None:
    if answer is None or gold is None or [*map(len, answer)] != [*map(len, gold)]:
        return False
    pairs = zip(chain(*answer), chain(*gold), strict=True)
    return _all(same(a, g) for a, g in pairs)


def _same_relation(answer: str, gold: str, scalar: Scalar) -> bool | None:
    a_relation, g_relation = relation_of(answer), relation_of(gold)
    if a_relation is None and g_relation is None:
        return _same_scalar(answer, gold, scalar)
    if a_relation and g_relation and a_relation[1] == g_relation[1] == "=":
        names = IS_NAME.match(a_relation[0]), IS_NAME.match(g_relation[0])
        if all(names):
            same_name = a_relation[0].strip() == g_relation[0].strip()
            letters = max(len(a_relation[0].strip()), len(g_relation[0].strip())) == 1
            if letters and not same_name:
                return False
            return _same_scalar(a_relation[2], g_relation[2], scalar)
    if a_relation and g_relation:
        return _same_sided(a_relation, g_relation, scalar)
    a, g = value_of(answer), value_of(gold)
    if relation_of(a) or relation_of(g):
        return False
    return _same_scalar(a, g, scalar)


def _same_sided(
    answer: tuple[str, str, str], gold: tuple[str, str, str], scalar: Scalar
) -> bool | None:
    """Compare two relations: the same difference of sides, up to a factor where that is sound."""
    if answer[1] != gold[1]:
        answer = (answer[2], TURNED.get(answer[1], answer[1]), answer[0])
    if answer[1] != gold[1]:
        return False
    if _all(_same_scalar(a, g, scalar) for a, g in ((answer[0], gold[0]), (answer[2], gold[2]))):
        return True
    factor: Factor = "any" if gold[1] in ("=", "\\ne", "\\equiv") else "positive"
    return scalar(f"({answer[0]})-({answer[2]})", f"({gold[0]})-({gold[2]})", factor)


def _same_scalar(answer: str, gold: str, scalar: Scalar) -> bool | None:
    answer, gold = unnamed(answer.strip()), unnamed(gold.strip())
    if not answer or not gold:
        return False
    if _same_text(answer, gold):
        return _says_something(gold)
    exact = exact_scalar(answer, gold)
    if exact is not None:
        return exact
    words = _same_words(answer, gold)
    return scalar(answer, gold, "one") if words is None else words
