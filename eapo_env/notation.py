r"""Parsing a canonical answer into parts: lists, sets, tuples, relations, intervals, matrices.

Every function takes text and returns its parts; nothing is compared. Linear in the length of the
text, which is at most 2,000 characters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_MAX_PARTS = 60
_CONJUNCTION = re.compile(r",? (?:and|or|und) |\\(?:land|lor|vee|wedge)(?![A-Za-z])", re.IGNORECASE)
_OPENING, _CLOSING = "([{", ")]}"
_ENVIRONMENT = re.compile(
    r"\A(?:[\[(] ?)?\\begin ?\{(?:[pbBvV]?matrix|smallmatrix|array)\}(?:\{[lcr|]{1,40}\})?"
    r"(?P<body>.*)\\end ?\{(?P<kind>[pbBvV]?matrix|smallmatrix|array)\}(?: ?[\])])?\Z",
    re.DOTALL,
)
_NAME = (
    r"(?:[A-Za-z](?:_\{?\w{1,3}\}?|')?(?: ?\( ?[A-Za-z](?: ?, ?[A-Za-z]){0,3} ?\))?"
    r"|\|?[A-Z]{1,4}\|?|[A-Z] ?: ?[A-Z]|\|[A-Za-z]\||[A-Z]{1,2}/[A-Z]{1,2}"
    r"|\\(?:angle|triangle|overline) ?\{?[A-Z]{1,4}\}?|[A-Z][a-z]? ?\( ?[\w=<> ]{1,12} ?\)"
    r"|\( ?[A-Za-z](?:_\d)?(?: ?, ?[A-Za-z](?:_\d)?){1,3} ?\)"
    r"|\\(?:vec|mathbf|bm|hat|bar) ?\{[A-Za-z]{1,2}\}|[A-Za-z]\^\{?(?:-1|T)\}?(?: ?\( ?[a-z] ?\))?"
    r"|\\frac ?\{d[a-z]?(?:\^2 ?[a-z])?\} ?\{d[a-z](?:\^2)?\} ?[a-z]?(?: ?\( ?[a-z] ?\))?"
    r"|\\nabla ?[A-Za-z]|\\\| ?[A-Za-z] ?\\\||[A-Za-z] ?\\(?:cdot|times|cup|cap) ?[A-Za-z]"
    r"|(?:m ?)?\\angle ?[A-Z]{1,3}"
    r"|\\(?:theta|alpha|beta|gamma|lambda|phi|omega|mu|sigma)"
    r"|[A-Za-z]{3,20}(?: [A-Za-z]{2,20}){0,3})"
)
IS_NAME = re.compile(rf"\A ?{_NAME} ?\Z")
_MEMBER = re.compile(r"\A ?\(? ?[A-Za-z](?:_\d)?(?: ?, ?[A-Za-z]){0,3} ?\)? ?\\in(?![a-z]) ?")
RELATION = re.compile(
    r"\\(?:le|ge|ne|lt|gt|approx|equiv)(?![A-Za-z])|<=|>=|!=|(?<![<>!:=])=|[<>]|\\not ?="
)
_SIGNS = {"<=": "\\le", ">=": "\\ge", "!=": "\\ne", "<": "\\lt", ">": "\\gt", "\\not=": "\\ne",
          "\\not =": "\\ne"}  # fmt: skip
TURNED = {"\\lt": "\\gt", "\\gt": "\\lt", "\\le": "\\ge", "\\ge": "\\le"}
_INDEX = re.compile(r" |(?<=[A-Za-z])_(?:\w|\{\w{1,3}\})")
_FREE_LETTER = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{1,3}(?![A-Za-z])")
_OPERATION = re.compile(
    r"\A ?\\(?:i{0,2}int|lim|sum|prod|det|nabla|gcd|lcm|max|min)(?![a-z])|\A ?\\frac ?\{d\}"
)
FUNCTION_WORDS = frozenset(
    ("pi", "exp", "sqrt", "sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "inf", "infty")
)


def items_of(text: str) -> Sequence[str]:
    """Return the items of a list without brackets, a set, or plus-minus; else the text alone."""
    text = _MEMBER.sub("", text).strip()
    groups = _split(text, ";")
    if len(groups) > 1 and all(len(_split(group, ",")) > 1 for group in groups):
        return [f"({group})" if not group.startswith("(") else group for group in groups]
    parts = [part for group in groups for part in _split(_CONJUNCTION.sub(", ", group), ",")]
    items: list[str] = []
    for part in parts if len(parts) <= _MAX_PARTS else [text]:
        items.extend(_plus_minus(part))
    if len(items) == 1 and (inside := _set_body(items[0])) is not None:
        return items_of(inside) if inside.strip() else [items[0]]
    return items


def _plus_minus(text: str) -> list[str]:
    if "\\pm" not in text and "\\mp" not in text and "+-" not in text:
        return [text]
    text = text.replace("+-", "\\pm ")
    upper = text.replace("\\pm", "+").replace("\\mp", "-")
    lower = text.replace("\\pm", "-").replace("\\mp", "+")
    return [re.sub(r"= ?\+", "=", upper).strip().removeprefix("+"), lower]


def _set_body(text: str) -> str | None:
    text = unnamed(text)
    if text.startswith("\\{") and text.endswith("\\}"):
        body = text[2:-2]
    elif text.startswith("{") and text.endswith("}"):
        body = text[1:-1]
    else:
        return None
    return body if _balanced(body) and "|" not in body and ":" not in body else None


def union_parts(items: Sequence[str]) -> Sequence[str]:
    """Return the parts of a union if it is the only item, else the items unchanged."""
    return union_of(items[0]) if len(items) == 1 else items


def names_of(items: Sequence[str]) -> list[str]:
    """Return the names of a list of assignments to different names (`a=1, b=2`), else [].

    Indexed names (`x_1, x_2`) count as one: they number the solutions of an equation.
    """
    relations = [relation_of(item) for item in items]
    names = [
        _INDEX.sub("", r[0]).strip() for r in relations if r and r[1] == "=" and IS_NAME.match(r[0])
    ]
    return names if len(set(names)) == len(items) else []


def relation_of(text: str) -> tuple[str, str, str] | None:
    """Return (left, sign, right) of the last relation of a text, or None without a relation."""
    found = [m for m in RELATION.finditer(text) if _balanced(text[: m.start()])]
    if not found or text.rfind("\\end") > found[-1].start():
        return None
    last = found[-1]
    sign = _SIGNS.get(last[0], last[0])
    start = found[-2].end() if len(found) > 1 else 0
    return text[start : last.start()].strip(), sign, text[last.end() :].strip()


def value_of(text: str) -> str:
    """Return the right side of an equation whose left side is a name or a closed form.

    Any other text is returned unchanged.
    """
    relation = relation_of(text)
    if relation is None or relation[1] not in ("=", "\\approx"):
        return text
    left, _, right = relation
    if not left:
        return text
    if IS_NAME.match(left) or _OPERATION.match(left) or not _has_variables(left):
        return right
    return text


def unnamed(text: str) -> str:
    """Return the right side of `name = value`, else the text unchanged."""
    relation = relation_of(text)
    if relation and relation[1] == "=" and IS_NAME.match(relation[0]):
        return relation[2]
    return text


def _has_variables(text: str) -> bool:
    letters = set(_FREE_LETTER.findall(text)) - FUNCTION_WORDS - {"e", "i"}
    return bool(letters - {"to", "mod", "gcd", "lcm", "max", "min"}) and "\\begin" not in text


def union_of(text: str) -> list[str]:
    """Return the parts of a union; [text] for anything else."""
    return [part.strip() for part in re.split(r"\\cup(?![A-Za-z])", text)]


def as_interval(text: str, other: str) -> str:
    r"""Return a one-variable inequality as an interval: `x \ge 5` as `[5,\infty)`.

    Only if `other` is an interval or a double inequality; any other text is returned unchanged.
    """
    if not bracketed(other) and len(RELATION.findall(other)) != 2:
        return text
    found = [*RELATION.finditer(text)]
    signs = [_SIGNS.get(m[0], m[0]) for m in found]
    if len(found) == 2 and set(signs) <= {"\\ge", "\\gt"}:
        high, low = text[: found[0].start()], text[found[1].end() :]
        variable = text[found[0].end() : found[1].start()]
        right, left = (TURNED[sign] for sign in signs)
    elif len(found) == 2 and set(signs) <= {"\\le", "\\lt"}:
        low, high = text[: found[0].start()], text[found[1].end() :]
        variable = text[found[0].end() : found[1].start()]
        left, right = signs
    elif len(found) == 1 and signs[0] in TURNED:
        first, second = text[: found[0].start()].strip(), text[found[0].end() :].strip()
        if IS_NAME.match(second):
            first, second, signs = second, first, [TURNED[signs[0]]]
        variable = first
        if signs[0] in ("\\le", "\\lt"):
            low, high, left, right = "-\\infty", second, "\\lt", signs[0]
        else:
            low, high, left, right = second, "\\infty", TURNED[signs[0]], "\\lt"
    else:
        return text
    if IS_NAME.match(variable) is None:
        return text
    opening, closing = "[" if left == "\\le" else "(", "]" if right == "\\le" else ")"
    return f"{opening}{low},{high}{closing}"


def bracketed(text: str) -> tuple[str, list[str]] | None:
    """Return (brackets, parts) of a tuple or an interval, or None."""
    if len(text) < 2 or text[0] not in "([" or text[-1] not in ")]":
        return None
    body = text[1:-1]
    parts = _split(body.replace(";", ","), ",")
    if len(parts) < 2 or not _balanced(body):
        return None
    return text[0] + text[-1], [part.strip() for part in parts]


def cells_of(text: str) -> list[list[str]] | None:
    """Return the rows of cells of a matrix; None for anything else, determinants included."""
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


def without_membership(text: str) -> str:
    r"""Return `text` without a leading `x \in `."""
    return _MEMBER.sub("", text).strip()
