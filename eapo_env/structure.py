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
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Literal

from eapo_env.matching import all_same, same_unordered
from eapo_env.notation import (
    IS_NAME,
    POINT,
    RELATION,
    TURNED,
    are_numbered,
    bare,
    bracketed,
    cells_of,
    claimed_value,
    exact_and_approximate,
    has_variables,
    in_usual_order,
    items_of,
    label_of,
    names_of,
    relation_of,
    residue_of,
    tuple_of_names,
    union_of,
    union_parts,
    unnamed,
    value_of,
    without_membership,
    without_modulus,
)
from eapo_env.quantities import number, same_number, time_of_day
from eapo_env.real_sets import is_compound, real_set, same_set
from eapo_env.words import (
    is_option,
    is_prose_for_a_number,
    labelled_options,
    same_words,
    unlabelled,
    values_of_option,
)

Factor = Literal["one", "positive", "any"]
Scalar = Callable[[str, str, Factor], bool | None]
"""(answer, gold, factor) -> whether they are equal up to a factor: 1, positive, or non-zero."""

_SEPARATING_SPACE = re.compile(r"(?<=[0-9]) (?=[0-9])|(?<=[A-Za-z]) (?=[A-Za-z])")
_SUBSCRIPT = re.compile(r"_\{(\w)\}")
_BASE = re.compile(r"\A\(?([0-9A-Z]+)\)?_\{?(\w+)\}?\Z")
_CHOOSE = re.compile(
    r"\A(?:C ?\( ?(?P<n>[\w+-]+) ?, ?(?P<k>[\w+-]+) ?\)"
    r"|(?:\{\})?[_^](?:(?P<n1>\w)|\{(?P<n2>\w+)\}) ?C ?_(?:(?P<k1>\w)|\{(?P<k2>\w+)\})"
    r"|C_(?:(?P<n3>\w)|\{(?P<n4>\w+)\})\^(?:(?P<k3>\w)|\{(?P<k4>\w+)\}))\Z"
)
_CHOOSE_GROUPS = (("n", "n1", "n2", "n3", "n4"), ("k", "k1", "k2", "k3", "k4"))
_DOMAIN = re.compile(
    r"\A(?P<body>.+?),? ?(?:where |for |with )?(?P<name>[a-z]) ?\\in ?"
    r"(?P<set>\\mathbb ?\{?[ZN]\}?.*)\Z",
    re.DOTALL,
)
_FUNCTION_OF = re.compile(r"\A(?P<function>[A-Za-z](?:_\w)?) ?\( ?(?P<variable>[a-z]) ?\)\Z")
_PIECES = re.compile(r"\\[A-Za-z]{1,30}|[^\\]|\\")
_LETTERS = re.compile(r"\\[A-Za-z]{1,30}|[A-Za-z]{4,}|[A-Za-z]")


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
    labels = label_of(answer), label_of(gold)
    if all(labels) and labels[0] != labels[1]:
        return False
    answer, gold = _claims(answer, gold)
    if _same_text(answer, gold):
        return _says_something(gold)
    exact = exact_scalar(answer, gold)
    if exact is not None:
        return exact
    times = time_of_day(answer), time_of_day(gold)
    if None not in times:
        return times[0] == times[1]
    residues = residue_of(answer), residue_of(gold)
    if residues[0] and residues[1]:
        return residues[0].agrees_with(residues[1])
    options = labelled_options(items_of(answer)), labelled_options(items_of(gold))
    if all(options) and not all(map(is_option, options[1].values())):
        return _same_options(answer, gold, scalar)
    words = same_words(answer, gold)
    if words and (values := values_of_option(answer, gold)):
        return equivalent(*values, scalar)
    if words is not None:
        return words
    if is_prose_for_a_number(answer, gold):
        return False
    bound = _same_bound(answer, gold)
    return _same_structure(*(bound or (answer, gold)), scalar)


def _same_options(answer: str, gold: str, scalar: Scalar) -> bool | None:
    """Compare two lists of options: the same labels, and the same values where both have them.

    The labels alone are an answer to a gold list with values, but not the reverse.
    """
    if bool(_OR.search(answer)) != bool(_OR.search(gold)):
        return False
    answers, golds = labelled_options(items_of(answer)), labelled_options(items_of(gold))
    if answers.keys() != golds.keys():
        return False
    return all_same(equivalent(answers[label], golds[label], scalar) for label in golds)


def _claims(answer: str, gold: str) -> tuple[str, str]:
    """Return what two texts claim: without frames, and one value of an exact and an approximate.

    Of `2\\sqrt3 \\approx 3.46` that is the exact value, unless the other side is a decimal as
    well. `x \\approx 42` claims nothing exact and equals no value.
    """
    answer, gold = bare(answer), bare(gold)
    if "mod" not in gold:
        answer = without_modulus(answer)
    a, g = exact_and_approximate(answer), exact_and_approximate(gold)
    if a and g:
        return a[0], g[0]
    if a:
        answer = a[1] if _is_decimal(gold) and _is_decimal(a[1]) else a[0]
    if g:
        gold = g[1] if _is_decimal(answer) and _is_decimal(g[1]) else g[0]
    return answer, gold


def _is_decimal(text: str) -> bool:
    found = number(text)
    return found is not None and (found.decimals or 0) > 0


def _same_text(answer: str, gold: str) -> bool:
    """Return whether two texts are equal up to spaces without meaning."""
    return answer == gold or _without_spaces(answer) == _without_spaces(gold)


def _without_spaces(text: str) -> str:
    text = _SEPARATING_SPACE.sub("\t", text).replace(" ", "").replace("\t", " ")
    return _SUBSCRIPT.sub(r"_\1", text)


def _says_something(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _same_bound(answer: str, gold: str) -> tuple[str, str] | None:
    r"""Return both texts with the answer's bound variable renamed to the gold's, or None.

    `f(n)=2n+1` and `f(x)=2x+1` are the same function; `2k\pi, k\in\mathbb{Z}` runs through the same
    numbers whatever the name of k.
    """
    a_domain, g_domain = _DOMAIN.match(answer), _DOMAIN.match(gold)
    if a_domain and g_domain and _same_text(a_domain["set"], g_domain["set"]):
        renamed = _renamed(a_domain["body"], a_domain["name"], g_domain["name"])
        return None if renamed is None else (renamed, g_domain["body"])
    a, g = relation_of(answer), relation_of(gold)
    if a is None or g is None or not a[1] == g[1] == "=":
        return None
    a_function, g_function = _FUNCTION_OF.match(a[0]), _FUNCTION_OF.match(g[0])
    if not (a_function and g_function) or a_function["function"] != g_function["function"]:
        return None
    renamed = _renamed(a[2], a_function["variable"], g_function["variable"])
    return None if renamed is None else (renamed, g[2])


def _renamed(text: str, old: str, new: str) -> str | None:
    """Return `text` with another name for a variable; None if that name is taken."""
    tokens = _LETTERS.findall(text)
    if old == new:
        return text
    if new in tokens or any(len(token) > 3 and token[0] != "\\" for token in tokens):
        return None
    return "".join(
        token if token[:1] == "\\" else token.replace(old, new) for token in _PIECES.findall(text)
    )


def _same_structure(answer: str, gold: str, scalar: Scalar) -> bool | None:
    sets = _same_real_sets(answer, gold, scalar)
    if sets is not None:
        return sets
    a_items, g_items = items_of(answer), items_of(gold)
    if len(g_items) == 1 and len(a_items) > 1 and bracketed(unnamed(g_items[0])) is None:
        repeated = all_same(_same_item(item, g_items[0], scalar) for item in a_items)
        if repeated is not False:
            return repeated
    if len(a_items) == len(g_items) == 1:
        return _same_item(a_items[0], g_items[0], scalar)
    same = partial(_same_item, scalar=scalar)
    for items, lone, other in ((a_items, g_items, answer), (g_items, a_items, gold)):
        tuple_ = bracketed(unnamed(lone[0])) if len(lone) == 1 else None
        if tuple_ and tuple_[0] == "()" and len(tuple_[1]) == len(items):
            if _CHOICES.search(other):
                return False
            ordered = _in_order_of(items, lone[0])
            if ordered is None:
                return False
            sides = (ordered, tuple_[1]) if other is answer else (tuple_[1], ordered)
            return all_same(same(unnamed(a), unnamed(g)) for a, g in zip(*sides, strict=True))
    if len(a_items) > len(g_items):
        a_items = list({_without_spaces(item): item for item in a_items}.values())
    if len(a_items) != len(g_items):
        a_items, g_items = union_parts(a_items), union_parts(g_items)
        return same_unordered(a_items, g_items, same)
    a_names, g_names = names_of(a_items), names_of(g_items)
    if a_names and g_names:
        if bool(_OR.search(answer)) != bool(_OR.search(gold)):
            return False
        if set(a_names) == set(g_names):
            a_items = [a_items[a_names.index(name)] for name in g_names]
        return all_same(map(same, a_items, g_items))
    if (names := a_names or g_names) and not are_numbered(names):
        a_items, g_items = (_in_order_of(items, "") or items for items in (a_items, g_items))
        return all_same(map(same, a_items, g_items))
    values = [unnamed(text) for text in a_items], [unnamed(text) for text in g_items]
    if not any(relation_of(text) for side in values for text in side):
        a_items, g_items = values
    return same_unordered(a_items, g_items, same)


_OR = re.compile(r"\bor\b|\\lor(?![a-z])")
_CHOICES = re.compile(r"\\pm|\\mp|\\\{|\\in(?![a-z])| or |\\lor|\\cup")
"""What makes a list of alternatives or a set, which is no tuple."""


def _in_order_of(items: Sequence[str], tuple_: str) -> Sequence[str] | None:
    """Return assignments in the order of a tuple's names, or else in their usual order.

    None if the tuple has other names.
    """
    names, named = names_of(items), tuple_of_names(tuple_)
    if not names:
        return items
    order = named or in_usual_order(names) or names
    return [items[names.index(name)] for name in order] if set(order) == set(names) else None


def _same_tuple(answer: str, gold: str, scalar: Scalar) -> bool | None:
    """Compare two bracketed texts part by part, those with the same names in one order."""
    a_parts, g_parts = bracketed(unnamed(answer)), bracketed(unnamed(gold))
    if a_parts is None or g_parts is None:
        return False
    (a_brackets, a_values), (g_brackets, g_values) = a_parts, g_parts
    if a_brackets != g_brackets or len(a_values) != len(g_values):
        return False
    points = POINT.match(answer), POINT.match(gold)
    if all(points) and answer[0] != gold[0]:
        return False
    a_names, g_names = tuple_of_names(answer), tuple_of_names(gold)
    if a_names and g_names and set(a_names) == set(g_names) and len(a_names) == len(a_values):
        a_values = [a_values[a_names.index(name)] for name in g_names]
    elif _have_other_names(answer, gold) or not all(map(_is_in_usual_order, (a_names, g_names))):
        return False
    return all_same(_same_item(a, g, scalar) for a, g in zip(a_values, g_values, strict=True))


def _is_in_usual_order(names: list[str]) -> bool:
    return in_usual_order(names) in (None, names)


def _same_real_sets(answer: str, gold: str, scalar: Scalar) -> bool | None:
    """Compare two sets of reals in different notations; None if they are not, or undecided."""
    if not (is_compound(answer) or is_compound(gold)):
        return None
    if all(len(RELATION.findall(text)) == 1 and "\\{" not in text for text in (answer, gold)):
        return None  # two inequalities, which are compared side by side
    a, g = real_set(answer), real_set(gold)
    if a is None or g is None:
        return None
    if a.variable and g.variable and a.variable != g.variable:
        return False
    return same_set(a.intervals, g.intervals, partial(_same_scalar, scalar=scalar))


def _same_item(answer: str, gold: str, scalar: Scalar) -> bool | None:
    answer, gold = without_membership(answer), without_membership(gold)
    if _same_text(answer, gold):
        return _says_something(gold)
    same = partial(_same_item, scalar=scalar)
    a_union, g_union = union_of(answer), union_of(gold)
    if len(a_union) > 1 or len(g_union) > 1:
        return same_unordered(a_union, g_union, same)
    a_cells, g_cells = cells_of(unnamed(answer)), cells_of(unnamed(gold))
    if a_cells and g_cells:
        return _same_cells(a_cells, g_cells, same)
    if a_cells or g_cells:
        return scalar(unnamed(answer), unnamed(gold), "one") if "\\begin" in answer else False
    a_parts, g_parts = bracketed(unnamed(answer)), bracketed(unnamed(gold))
    if not g_parts and (choose := _CHOOSE.match(answer)):
        n, k = (next(filter(None, choose.group(*names)), "") for names in _CHOOSE_GROUPS)
        return _same_scalar(f"\\binom{{{n}}}{{{k}}}", gold, scalar)
    if a_parts or g_parts:
        return _same_tuple(answer, gold, scalar)
    return _same_relation(answer, gold, scalar)


def _same_cells(
    answer: list[list[str]],
    gold: list[list[str]],
    same: Callable[[str, str], bool | None],
) -> bool | None:
    if [*map(len, answer)] != [*map(len, gold)]:
        return False
    pairs = zip(chain(*answer), chain(*gold), strict=True)
    return all_same(same(a, g) for a, g in pairs)


def _same_relation(answer: str, gold: str, scalar: Scalar) -> bool | None:
    a_relation, g_relation = relation_of(answer), relation_of(gold)
    if a_relation is None and g_relation is None:
        return _same_scalar(answer, gold, scalar)
    if a_relation and g_relation and a_relation[1] == g_relation[1] == "=":
        names = IS_NAME.match(a_relation[0]), IS_NAME.match(g_relation[0])
        if all(names):
            if _same_name(a_relation[0], g_relation[0]):
                return _same_scalar(a_relation[2], g_relation[2], scalar)
            if has_variables(a_relation[2]) and has_variables(g_relation[2]):
                return _same_sided(a_relation, g_relation, scalar)
            return False
    values = value_of(answer), value_of(gold)
    if a_relation and not g_relation and not _is_claim(answer):
        return False
    if a_relation and g_relation and values[0] != answer and values[1] != gold:
        return _same_scalar(*values, scalar)
    if a_relation and g_relation:
        return _same_sided(a_relation, g_relation, scalar)
    a, g = values
    if relation_of(a) and not has_variables(g):
        a = claimed_value(a)
    if relation_of(a) or relation_of(g):
        return False
    return _same_scalar(a, g, scalar)


def _is_claim(text: str) -> bool:
    """Return whether an equation can give a value: no inequality in it, no two unequal numbers."""
    sides = RELATION.split(text)
    numbers = [number(side.strip()) for side in sides]
    known = [found for found in numbers if found]
    are_equal = all(same_number(known[0], other) for other in known[1:])
    return are_equal and all(sign in ("=", ":=") for sign in RELATION.findall(text))


def _have_other_names(answer: str, gold: str) -> bool:
    a, g = relation_of(answer), relation_of(gold)
    return a is not None and g is not None and not _same_name(a[0], g[0])


def _same_name(answer: str, gold: str) -> bool:
    """Return whether two names can be of the same thing.

    They are equal, one is a word (`area`) and the other a letter, or they are `y` and `f(x)`.
    """
    a, g = _without_spaces(answer), _without_spaces(gold)
    if a == g:
        return True
    words = [re.fullmatch(r"[A-Za-z]{3,}( [A-Za-z]+)*", name.strip()) for name in (answer, gold)]
    if any(words):
        return not all(words)
    functions = [_FUNCTION_OF.match(name) for name in (a, g)]
    return ("y" in (a, g) and any(functions)) or {a, g} == {"y", "y(x)"}


def _same_sided(
    answer: tuple[str, str, str], gold: tuple[str, str, str], scalar: Scalar
) -> bool | None:
    """Compare two relations: the same difference of sides, up to a factor where that is sound."""
    if answer[1] != gold[1]:
        answer = (answer[2], TURNED.get(answer[1], answer[1]), answer[0])
    if answer[1] != gold[1]:
        return False
    if all_same(
        _same_scalar(a, g, scalar) for a, g in ((answer[0], gold[0]), (answer[2], gold[2]))
    ):
        return True
    factor: Factor = {"=": "any", "\\ne": "any", "\\equiv": "one"}.get(gold[1], "positive")  # type: ignore[assignment]
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
    words = same_words(answer, gold)
    if words is not None:
        return words
    if not is_option(gold):
        answer, gold = unlabelled(answer), unlabelled(gold)
    exact = exact_scalar(answer, gold)
    if exact is not None:
        return exact
    return scalar(answer, gold, "one")
