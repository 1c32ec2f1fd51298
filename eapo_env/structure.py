r"""Equality of answers by their structure: lists, sets, tuples, intervals, matrices, relations.

`equivalent` takes two canonical texts apart and compares what they are made of. How two scalars
compare is an argument: with `exact_scalar` (no sympy) the caller's process decides most answers;
a worker passes one that also proves symbolic equality. None means undecided by those means.

A bare list (`1, 2`), joined by commas, `and` or `or`, has no order, nor has a set; a tuple, an
interval and a matrix have. `x = 5` is its value where the left side merely names it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Literal

from eapo_env.equivalence import number, same_number

Factor = Literal["one", "positive", "any"]
Scalar = Callable[[str, str, Factor], bool | None]
"""Compares (answer, gold), equal up to a constant factor: 1, any positive, any but zero."""

_MAX_PARTS = 60
_CONJUNCTION = re.compile(r",? (?:and|or|und) |\\(?:land|lor|vee|wedge)(?![A-Za-z])", re.IGNORECASE)
_OPENING, _CLOSING = "([{", ")]}"
_ENVIRONMENT = re.compile(
    r"\A(?:[\[(] ?)?\\begin ?\{(?:[pbBvV]?matrix|smallmatrix|array)\}(?:\{[lcr|]{1,40}\})?(?P<body>.*)"
    r"\\end ?\{(?P<kind>[pbBvV]?matrix|smallmatrix|array)\}(?: ?[\])])?\Z",
    re.DOTALL,
)
_NAME = (
    r"(?:[A-Za-z](?:_\{?\w{1,3}\}?|')?(?: ?\( ?[A-Za-z](?: ?, ?[A-Za-z]){0,3} ?\))?"
    r"|\|?[A-Z]{1,4}\|?|[A-Z] ?: ?[A-Z]|\|[A-Za-z]\||[A-Z]{1,2}/[A-Z]{1,2}"
    r"|\\(?:angle|triangle|overline) ?\{?[A-Z]{1,4}\}?|[A-Z][a-z]? ?\( ?[\w=<> ]{1,12} ?\)"
    r"|\( ?[A-Za-z](?:_\d)?(?: ?, ?[A-Za-z](?:_\d)?){1,3} ?\)"
    r"|\\(?:vec|mathbf|bm|hat|bar) ?\{[A-Za-z]{1,2}\}|[A-Za-z]\^\{?(?:-1|T)\}?(?: ?\( ?[a-z] ?\))?"
    r"|\\frac ?\{d[a-z]?(?:\^2 ?[a-z])?\} ?\{d[a-z](?:\^2)?\} ?[a-z]?(?: ?\( ?[a-z] ?\))?|(?:m ?)?\\angle ?[A-Z]{1,3}"
    r"|\\(?:theta|alpha|beta|gamma|lambda|phi|omega|mu|sigma)"
    r"|[A-Za-z]{3,20}(?: [A-Za-z]{2,20}){0,3})"
)
_IS_NAME = re.compile(rf"\A ?{_NAME} ?\Z")
_MEMBER = re.compile(r"\A ?\(? ?[A-Za-z](?:_\d)?(?: ?, ?[A-Za-z]){0,3} ?\)? ?\\in(?![a-z]) ?")
_RELATION = re.compile(
    r"\\(?:le|ge|ne|lt|gt|approx|equiv)(?![A-Za-z])|<=|>=|!=|(?<![<>!:=])=|[<>]|\\not ?="
)
_SIGNS = {"<=": "\\le", ">=": "\\ge", "!=": "\\ne", "<": "\\lt", ">": "\\gt", "\\not=": "\\ne",
          "\\not =": "\\ne"}  # fmt: skip
_TURNED = {"\\lt": "\\gt", "\\gt": "\\lt", "\\le": "\\ge", "\\ge": "\\le"}
_WORDS = re.compile(r"\A[A-Za-z][A-Za-z' .()-]{0,80}\Z")
_CHOICE = re.compile(r"\A[(\[]? ?([A-Ja-j]) ?[)\]]?\.?\Z")
_CHOSEN = re.compile(r"\A(?:\(([A-J])\)|([A-J]) ?[).:]) ?\S")
_FREE_LETTER = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{1,3}(?![A-Za-z])")
_OPERATION = re.compile(r"\A ?\\(?:i{0,2}int|lim|sum|prod|det|nabla|gcd|lcm|max|min)(?![a-z])")
_SEPARATING_SPACE = re.compile(r"(?<=[0-9]) (?=[0-9])|(?<=[A-Za-z]) (?=[A-Za-z])")
_SUBSCRIPT = re.compile(r"_\{(\w)\}")
_SYMBOL_WORDS = frozenset("pi exp sqrt sin cos tan cot sec csc log ln inf infty".split())


def exact_scalar(answer: str, gold: str, factor: Factor = "one") -> bool | None:
    """Return whether two plain numbers are equal, or None when either is not a plain number."""
    if factor != "one":
        return None
    a, g = number(answer), number(gold)
    if a is None or g is None:
        return None
    return same_number(a, g)


def equivalent(answer: str, gold: str, scalar: Scalar) -> bool | None:
    """Return whether two canonical texts are the same answer; None when `scalar` cannot tell."""
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
    """Return whether two texts differ at most in spaces that separate nothing."""
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
    return None if _RELATION.search(answer) or _RELATION.search(gold) else False


def _is_words(text: str) -> bool:
    return (
        _WORDS.match(text) is not None
        and re.search(r"[A-Za-z]{3}", text) is not None
        and "(" not in text[1:]
        and not _SYMBOL_WORDS.intersection(re.findall(r"[a-z]{2,5}", text.lower()))
        and re.fullmatch(r"[a-z]{3}|[A-Z]{3,4}", text) is None
        or text.lower() in ("yes", "no", "odd", "true", "false", "none", "even")
    )


def _plain_words(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.lower().removeprefix("the ").removeprefix("a "))


def _items(text: str) -> Sequence[str]:
    """Return the items of a bare list, a set, or plus-minus; one item for anything else."""
    text = _MEMBER.sub("", text).strip()
    groups = _split(text, ";")
    if len(groups) > 1 and all(len(_split(group, ",")) > 1 for group in groups):
        return [f"({group})" if not group.startswith("(") else group for group in groups]
    parts = [part for group in groups for part in _split(_CONJUNCTION.sub(", ", group), ",")]
    items: list[str] = []
    for part in parts if len(parts) <= _MAX_PARTS else [text]:
        items.extend(_plus_minus(part))
    if len(items) == 1 and (inside := _set_body(items[0])) is not None:
        return _items(inside) if inside.strip() else [items[0]]
    return items


def _plus_minus(text: str) -> list[str]:
    if "\\pm" not in text and "\\mp" not in text and "+-" not in text:
        return [text]
    text = text.replace("+-", "\\pm ")
    upper = text.replace("\\pm", "+").replace("\\mp", "-")
    lower = text.replace("\\pm", "-").replace("\\mp", "+")
    return [re.sub(r"= ?\+", "=", upper).strip().removeprefix("+"), lower]


def _set_body(text: str) -> str | None:
    text = _unnamed(text)
    if text.startswith("\\{") and text.endswith("\\}"):
        body = text[2:-2]
    elif text.startswith("{") and text.endswith("}"):
        body = text[1:-1]
    else:
        return None
    return body if _balanced(body) and "|" not in body and ":" not in body else None


def _same_structure(answer: str, gold: str, scalar: Scalar) -> bool | None:
    a_items, g_items = _items(answer), _items(gold)
    if len(a_items) == len(g_items) == 1:
        return _same_item(a_items[0], g_items[0], scalar)
    same = partial(_same_item, scalar=scalar)
    for items, lone, other in ((a_items, g_items, answer), (g_items, a_items, gold)):
        tuple_ = _bracketed(_unnamed(lone[0])) if len(lone) == 1 else None
        if tuple_ and tuple_[0] == "()" and len(tuple_[1]) == len(items) and "{" not in other[:2]:
            sides = (items, tuple_[1]) if other is answer else (tuple_[1], items)
            return _all(same(_unnamed(a), _unnamed(g)) for a, g in zip(*sides, strict=True))
    if len(a_items) != len(g_items):
        a_items, g_items = _union_parts(a_items), _union_parts(g_items)
        return len(a_items) == len(g_items) and _same_unordered(a_items, g_items, same)
    a_names, g_names = _names(a_items), _names(g_items)
    if a_names and g_names and set(a_names) == set(g_names):
        a_items = [a_items[a_names.index(name)] for name in g_names]
    if a_names or g_names:
        return _all(map(same, a_items, g_items))
    values = [_unnamed(text) for text in a_items], [_unnamed(text) for text in g_items]
    if not any(_relation(text) for side in values for text in side):
        a_items, g_items = values
    return _same_unordered(a_items, g_items, same)


def _union_parts(items: Sequence[str]) -> Sequence[str]:
    return _union(items[0]) if len(items) == 1 else items


def _names(items: Sequence[str]) -> list[str]:
    """Return the names of a list of assignments to different names (`a=1, b=2`), else nothing."""
    relations = [_relation(item) for item in items]
    names = [r[0].replace(" ", "") for r in relations if r and r[1] == "=" and _IS_NAME.match(r[0])]
    return names if len(set(names)) == len(items) else []


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
    answer, gold = _MEMBER.sub("", answer).strip(), _MEMBER.sub("", gold).strip()
    if _same_text(answer, gold):
        return _says_something(gold)
    same = partial(_same_item, scalar=scalar)
    a_union, g_union = _union(answer), _union(gold)
    if len(a_union) > 1 or len(g_union) > 1:
        return len(a_union) == len(g_union) and _same_unordered(a_union, g_union, same)
    a_cells, g_cells = _cells(_unnamed(answer)), _cells(_unnamed(gold))
    if a_cells or g_cells:
        return _same_cells(a_cells, g_cells, same)
    answer, gold = _as_interval(answer, gold), _as_interval(gold, answer)
    a_parts, g_parts = _bracketed(_unnamed(answer)), _bracketed(_unnamed(gold))
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
    pairs = zip(sum(answer, []), sum(gold, []), strict=True)
    return _all(same(a, g) for a, g in pairs)


def _same_relation(answer: str, gold: str, scalar: Scalar) -> bool | None:
    a_relation, g_relation = _relation(answer), _relation(gold)
    if a_relation is None and g_relation is None:
        return _same_scalar(answer, gold, scalar)
    if a_relation and g_relation and a_relation[1] == g_relation[1] == "=":
        names = _IS_NAME.match(a_relation[0]), _IS_NAME.match(g_relation[0])
        if all(names):
            same_name = a_relation[0].strip() == g_relation[0].strip()
            letters = max(len(a_relation[0].strip()), len(g_relation[0].strip())) == 1
            if letters and not same_name:
                return False
            return _same_scalar(a_relation[2], g_relation[2], scalar)
    if a_relation and g_relation:
        return _same_sided(a_relation, g_relation, scalar)
    a, g = _value(answer), _value(gold)
    if _relation(a) or _relation(g):
        return False
    return _same_scalar(a, g, scalar)


def _same_sided(
    answer: tuple[str, str, str], gold: tuple[str, str, str], scalar: Scalar
) -> bool | None:
    """Compare two relations: the same difference of sides, up to a factor where that is sound."""
    if answer[1] != gold[1]:
        answer = (answer[2], _TURNED.get(answer[1], answer[1]), answer[0])
    if answer[1] != gold[1]:
        return False
    if _all(_same_scalar(a, g, scalar) for a, g in ((answer[0], gold[0]), (answer[2], gold[2]))):
        return True
    factor: Factor = "any" if gold[1] in ("=", "\\ne", "\\equiv") else "positive"
    return scalar(f"({answer[0]})-({answer[2]})", f"({gold[0]})-({gold[2]})", factor)


def _same_scalar(answer: str, gold: str, scalar: Scalar) -> bool | None:
    answer, gold = _unnamed(answer.strip()), _unnamed(gold.strip())
    if not answer or not gold:
        return False
    if _same_text(answer, gold):
        return _says_something(gold)
    exact = exact_scalar(answer, gold)
    if exact is not None:
        return exact
    words = _same_words(answer, gold)
    return scalar(answer, gold, "one") if words is None else words


def _relation(text: str) -> tuple[str, str, str] | None:
    """Return (left, sign, right) of a text with one relation, or with a chain's ends for `=`."""
    found = [m for m in _RELATION.finditer(text) if _balanced(text[: m.start()])]
    if not found or text.rfind("\\end") > found[-1].start():
        return None
    last = found[-1]
    sign = _SIGNS.get(last[0], last[0])
    start = found[-2].end() if len(found) > 1 else 0
    return text[start : last.start()].strip(), sign, text[last.end() :].strip()


def _value(text: str) -> str:
    """Return the right side of an equation whose left side names it or is a closed form."""
    relation = _relation(text)
    if relation is None or relation[1] not in ("=", "\\approx"):
        return text
    left, _, right = relation
    if not left:
        return text
    if _IS_NAME.match(left) or _OPERATION.match(left) or not _has_variables(left):
        return right
    return text


def _unnamed(text: str) -> str:
    relation = _relation(text)
    if relation and relation[1] == "=" and _IS_NAME.match(relation[0]):
        return relation[2]
    return text


def _has_variables(text: str) -> bool:
    letters = set(_FREE_LETTER.findall(text)) - _SYMBOL_WORDS - {"e", "i"}
    return bool(letters - {"to", "mod", "gcd", "lcm", "max", "min"}) and "\\begin" not in text


def _union(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"\\cup(?![A-Za-z])", text)]


def _as_interval(text: str, other: str) -> str:
    r"""Return the interval a one-variable inequality with constant bounds describes.

    Only when the other side is an interval: `x \ge 5` is `[5,\infty)`.
    """
    if not _bracketed(other) and len(_RELATION.findall(other)) != 2:
        return text
    found = [*_RELATION.finditer(text)]
    signs = [_SIGNS.get(m[0], m[0]) for m in found]
    if len(found) == 2 and set(signs) <= {"\\ge", "\\gt"}:
        high, low = text[: found[0].start()], text[found[1].end() :]
        variable = text[found[0].end() : found[1].start()]
        right, left = (_TURNED[sign] for sign in signs)
    elif len(found) == 2 and set(signs) <= {"\\le", "\\lt"}:
        low, high = text[: found[0].start()], text[found[1].end() :]
        variable = text[found[0].end() : found[1].start()]
        left, right = signs
    elif len(found) == 1 and signs[0] in _TURNED:
        first, second = text[: found[0].start()].strip(), text[found[0].end() :].strip()
        if _IS_NAME.match(second):
            first, second, signs = second, first, [_TURNED[signs[0]]]
        variable = first
        if signs[0] in ("\\le", "\\lt"):
            low, high, left, right = "-\\infty", second, "\\lt", signs[0]
        else:
            low, high, left, right = second, "\\infty", _TURNED[signs[0]], "\\lt"
    else:
        return text
    if _IS_NAME.match(variable) is None:
        return text
    opening, closing = "[" if left == "\\le" else "(", "]" if right == "\\le" else ")"
    return f"{opening}{low},{high}{closing}"


def _bracketed(text: str) -> tuple[str, list[str]] | None:
    """Return (brackets, parts) of a tuple or an interval, or None."""
    if len(text) < 2 or text[0] not in "([" or text[-1] not in ")]":
        return None
    body = text[1:-1]
    parts = _split(body.replace(";", ","), ",")
    if len(parts) < 2 or not _balanced(body):
        return None
    return text[0] + text[-1], [part.strip() for part in parts]


def _cells(text: str) -> list[list[str]] | None:
    match = _ENVIRONMENT.match(text)
    if match is None or match["kind"] in ("vmatrix", "Vmatrix"):
        return None
    rows = [row for row in re.split(r"\\\\|\\cr(?![a-z])", match["body"]) if row.strip()]
    return [[cell.strip() for cell in row.split("&")] for row in rows]


def _split(text: str, separator: str) -> list[str]:
    """Return the parts of `text` between separators outside all brackets."""
    if separator not in text:
        return [text]
    parts, depth, start = [], 0, 0
    for index, character in enumerate(text):
        if character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
        elif character == separator and depth <= 0:
            parts.append(text[start:index])
            start = index + 1
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


def _balanced(text: str) -> bool:
    depth = 0
    for character in text:
        if character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
            if depth < 0:
                return False
    return depth == 0
