r"""Parsing a canonical answer into parts: lists, sets, tuples, relations, intervals, matrices.

Every function takes text and returns its parts; nothing is compared. Linear in the length of the
text, which is at most 2,000 characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from eapo_env.quantities import number, same_number, spoken
from eapo_env.units import unit_of

_MAX_PARTS = 60
_CONJUNCTION = re.compile(
    r",?\s?(?<![A-Za-z\\])(?:and|or|und|AND|OR|And|Or)(?=[\s\\(])\s?"
    r"|(?<=[\d)])(?:or|and)(?=[A-Z(\\-])|\\(?:land|lor)(?![A-Za-z])"
)
_OPENING, _CLOSING = "([{", ")]}"
_ENVIRONMENT = re.compile(
    r"\A(?:[\[(] ?)?\\begin ?\{(?P<kind>[pbBvV]?matrix|smallmatrix|array|cases)\}"
    r"(?:\{[lcr|]{1,40}\})?"
    r"(?P<body>(?:(?!\\begin|\\end).)*)\\end ?\{(?P=kind)\}(?: ?[\])])?\Z",
    re.DOTALL,
)
_COORDINATE = r"(?:[A-Za-z](?:_\d)?|\\(?:theta|phi|rho|alpha|beta|lambda|mu|sigma))"
_NAME = (
    r"(?:[A-Za-z](?:_\{?[\w, ]{1,6}\}?|_\{?\\(?:max|min)\}?|'{1,3})?"
    r"(?: ?\( ?[A-Za-z](?: ?, ?[A-Za-z]){0,3} ?\))?"
    r"|\|?[A-Z]{1,4}\|?|[A-Z](?: [A-Z]){1,2}"
    r"|[A-Z](?:_\w|_\{\w{1,6}\})? ?: ?[A-Z](?:_\w|_\{\w{1,6}\})?"
    r"|\\frac ?\{[A-Z]{1,2}\} ?\{[A-Z]{1,2}\}|\|[A-Za-z]\||[A-Z]{1,2}/[A-Z]{1,2}"
    r"|\\(?:angle|triangle|overline) ?\{?[A-Z]{1,4}\}?|[A-Z][a-z]? ?\( ?[\w=<> ]{1,12} ?\)"
    rf"|\( ?{_COORDINATE}(?: ?, ?{_COORDINATE}){{1,3}} ?\)"
    r"|\\(?:vec|hat|bar) ?\{[A-Za-z]{1,2}\}|[A-Za-z]\^\{?(?:-1|T)\}?(?: ?\( ?[a-z] ?\))?"
    r"|\\frac ?\{d[a-z]?(?:\^2 ?[a-z])?\} ?\{d[a-z](?:\^2)?\} ?[a-z]?(?: ?\( ?[a-z] ?\))?"
    r"|\\nabla ?[A-Za-z]|\\\| ?[A-Za-z] ?\\\||[A-Za-z] ?\\(?:cdot|times|cup|cap) ?[A-Za-z]"
    r"|(?:m ?)?\\angle ?[A-Z]{1,3}"
    r"|\\(?:theta|alpha|beta|gamma|lambda|phi|omega|mu|sigma)"
    r"|[A-Za-z]{3,20}(?: [A-Za-z]{2,20}){0,3})"
)
IS_NAME = re.compile(rf"\A ?{_NAME} ?\Z")
_MEMBER = re.compile(r"\A ?\(? ?[A-Za-z](?:_\d)?(?: ?, ?[A-Za-z]){0,3} ?\)? ?\\in(?![a-z]) ?")
RELATION = re.compile(
    r"\\(?:le|ge|ne|lt|gt|approx|equiv)(?![A-Za-z])|<=|>=|!=|:=|(?<![<>!:=])=|[<>]|\\not ?="
)
_SIGNS = {"<=": "\\le", ">=": "\\ge", "!=": "\\ne", "<": "\\lt", ">": "\\gt", "\\not=": "\\ne",
          "\\not =": "\\ne", ":=": "="}  # fmt: skip
TURNED = {"\\lt": "\\gt", "\\gt": "\\lt", "\\le": "\\ge", "\\ge": "\\le"}
_INDEX = re.compile(r"_\w{1,6}\Z")
_FREE_LETTER = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{1,3}(?![A-Za-z])")
_OPERATION = re.compile(
    r"\A ?\\(?:i{0,2}int|lim|sum|prod|det|nabla|gcd|lcm|max|min)(?![a-z])|\A ?\\frac ?\{d\}"
)
_GREEK = re.compile(
    r"\\(?:alpha|beta|gamma|delta|epsilon|varepsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|rho"
    r"|sigma|tau|phi|varphi|chi|psi|omega|Delta|Omega|Sigma|Gamma|ell)(?![A-Za-z])"
)
FUNCTION_WORDS = frozenset(
    ("pi", "exp", "sqrt", "sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "inf", "infty")
)
_APPROXIMATELY = re.compile(r"\\approx(?![A-Za-z])|~=|\\sim(?![A-Za-z])")
_THEREFORE = re.compile(r"\\(?:Rightarrow|therefore)(?![A-Za-z])|(?<![<=])=>")
_LABEL = (
    r"(?:area|volume|perimeter|length|distance|sum|total|product|probability|maximum|minimum"
    r"|solutions?)"
)
_PREFIX = re.compile(
    r"\A(?:(?:so|thus|hence|therefore),? ?(?=[-\d\\(])"
    r"|(?:so|thus|hence|therefore)?,? ?(?:the |my )?(?:(?:final |correct )?answer|result|value)"
    rf" ?(?:is|:|=|is:) ?(?=\S)|{_LABEL}: ?(?=[-\d\\])"
    r"|(?:\\to|\\rightarrow|\\mapsto) )",
    re.IGNORECASE,
)
_REMARK = re.compile(r" \((?P<remark>[^()]{2,100})\)\Z")
_SAID_AGAIN = re.compile(r"(?:i\.? ?e\.?,?|that is,?|namely|=|or) ?(?P<value>.+)\Z")
_ABOUT = re.compile(r"(?:\\approx|\\sim|approx\w*\.?|about|roughly) ?(?P<value>.+)\Z")
_HARMLESS = re.compile(
    r"(?:a |the )?(?:double|repeated|triple|simple|unique|only|exact)"
    r"(?: (?:root|solution|zero|value|answer))?|multiplicity \w+|simplified"
    r"|in (?:lowest|simplest) (?:terms|form)|as required|(?:since|because) [^()]{1,80}"
)
_PROVISO = re.compile(
    r",? ?(?:\\forall(?![A-Za-z])[^,]{0,40}|for (?:all|every|any|each)(?![a-z])"
    r"(?!.*\b(?:but|else|except|not|wrong|otherwise)\b).{0,60}"
    r"|where [A-Za-z] ?(?:\\in(?![a-z])|is (?:an?|any) |\\ne|[<>=]).{0,60}"
    r"|as (?:required|desired|needed|claimed))\Z",
    re.DOTALL,
)
_RESIDUE = re.compile(
    r"\A(?:(?P<name>[A-Za-z]) ?\\equiv ?)?(?P<value>-?\d{1,60}) ?"
    r"(?:\( ?(?:\\?mod) ?(?P<modulus1>\d{1,60}) ?\)|\\[pb]?mod ?\{?(?P<modulus2>\d{1,60})\}?)\Z"
)
_CONDITION = re.compile(r"\A(?:if|for|when)\b ?")
_UNSOLVED = re.compile(
    r"(?:[-+*/^(){}\d. ]|\\cdot|(?P<name>(?<![A-Za-z\\])[a-z](?![A-Za-z])"
    r"(?!(?:\^\{?-1\}?)? ?\(-?[\d.]+\)))(?!.*(?!(?P=name))[A-Za-z]))+"
)
"""A side of an equation in one unknown, which is no value of a function (`f(2)`)."""
POINT = re.compile(r"\A(?:[Pp]oint )?[A-Z](?:_\d|')? ?(?=\()")


_DOMAIN_IN_BRACKETS = re.compile(r",? ?\( ?(?P<domain>[a-z] ?\\in ?\\mathbb ?\{?[A-Z]\}?) ?\)\Z")


def bare(text: str) -> str:
    r"""Return what a canonical text claims, without what frames the claim.

    That is without `The answer is`, a leading arrow or `=`, a remark in words in brackets at the
    end (`12 (twelve)`), a proviso (`for all x`), and the approximate value after an exact one. A
    mere `x \approx 3` claims nothing exact and stays as it is.
    """
    text = _PREFIX.sub("", text).strip()
    for arrow in _THEREFORE.finditer(text):
        before = text[: arrow.start()].strip()
        if not before or RELATION.search(before):
            text = text[arrow.end() :].strip()
            break
    if text.startswith("=") and len(text) > 1:
        text = text[1:].strip()
    if domain := _DOMAIN_IN_BRACKETS.search(text):
        text = f"{text[: domain.start()]}, {domain['domain']}"
    if (remark := _REMARK.search(text)) and remark.start():
        text = _with_remark(text[: remark.start()].strip(), remark["remark"].strip()) or text
    if (proviso := _PROVISO.search(text)) and proviso.start():
        text = text[: proviso.start()].strip()
    return text


def label_of(text: str) -> str | None:
    """Return what a text says that it is (`area` of `Area: 42`), or None."""
    label = re.match(rf"({_LABEL}):", text, re.IGNORECASE)
    return label[1].lower() if label else None


def exact_and_approximate(text: str) -> tuple[str, str] | None:
    r"""Return both sides of an exact value with its approximation (`\sqrt5 \approx 2.236`).

    None for anything else: a mere name (`x \approx 3`) has no exact value.
    """
    about = _APPROXIMATELY.search(text)
    if about is None or not _balanced(text[: about.start()]):
        return None
    exact, approximate = text[: about.start()].strip(), text[about.end() :].strip()
    return (exact, approximate) if exact and not IS_NAME.match(exact) else None


@dataclass(frozen=True, slots=True)
class Residue:
    """What `x \\equiv 2 \\pmod 5` says; the name is empty in `2 \\pmod 5`."""

    name: str
    value: int
    modulus: int

    def agrees_with(self, other: Residue) -> bool:
        """Return whether two residues are of one class, and of one name if both have one."""
        return (
            self.modulus == other.modulus != 0
            and (self.value - other.value) % self.modulus == 0
            and (not self.name or not other.name or self.name == other.name)
        )


def residue_of(text: str) -> Residue | None:
    """Return the residue class that a text names, or None for any other text."""
    match = _RESIDUE.match(text)
    if match is None:
        return None
    modulus = int(match["modulus1"] or match["modulus2"])
    return Residue(match["name"] or "", int(match["value"]), modulus)


def without_modulus(text: str) -> str:
    """Return the residue of `42 (mod 1000)`, any other text unchanged."""
    residue = residue_of(text)
    return text if residue is None or residue.name else str(residue.value)


def _with_remark(text: str, remark: str) -> str | None:
    """Return a text with the bracketed words behind it; None if they are more than a remark.

    Counted things and units go with the number (`9 (apples)`); the same value said again, another
    form of it or its approximation goes.
    """
    if _HARMLESS.fullmatch(remark):
        return text
    value, said = number(text), spoken(remark)
    if said is not None:
        return text if value and value.value == said else None
    if value is not None and unit_of(remark) is not None:
        return f"{text} {remark}"
    if about := _ABOUT.match(remark):
        return text if number(about["value"].strip()) else None
    again = _SAID_AGAIN.match(remark)
    other = number(again["value"].strip() if again else remark)
    return text if value and other and same_number(value, other) else None


def items_of(text: str) -> Sequence[str]:
    """Return the items of a list without brackets, a set, or plus-minus; else the text alone."""
    text = _MEMBER.sub("", text).strip()
    if number(unnamed(text)) is not None:
        return [text]
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
    """Return the names of a list of assignments to different names (`a=1, b=2`), else []."""
    relations = [relation_of(item) for item in items]
    names = [_plain_name(r[0]) for r in relations if r and r[1] == "=" and IS_NAME.match(r[0])]
    return names if len(set(names)) == len(items) else []


def tuple_of_names(text: str) -> list[str]:
    """Return the names on the left of `(x,y)=(1,2)`; [] for any other text."""
    relation = relation_of(text)
    named = bracketed(relation[0]) if relation and relation[1] == "=" else None
    return [_plain_name(name) for name in named[1]] if named else []


def are_numbered(names: Sequence[str]) -> bool:
    """Return whether names are one letter with several indices: numbered solutions."""
    return bool(names) and len({_INDEX.sub("", name) for name in names}) < len(set(names))


def in_usual_order(names: Sequence[str]) -> list[str] | None:
    """Return names in the order in which a tuple holds them, or None if they have none.

    Neighbours in the alphabet (`x, y, z`) and indices of one letter have one; `n, k` have not.
    """
    ordered = sorted(names, key=lambda name: (len(name), name))
    letters = [ord(name) for name in ordered if len(name) == 1]
    if len(letters) == len(names):
        is_run = all(b - a == 1 for a, b in pairwise(letters))
        return ordered if is_run else None
    return ordered if len({_INDEX.sub("", name) for name in names}) == 1 else None


def _plain_name(name: str) -> str:
    return re.sub(r"[ {}]", "", name)


def relation_of(text: str) -> tuple[str, str, str] | None:
    """Return (left, sign, right) of the last relation of a text, or None without a relation."""
    found = _outside(RELATION.finditer(text), text)
    if not found:
        return None
    last = found[-1]
    sign = _SIGNS.get(last[0], last[0])
    start = found[-2].end() if len(found) > 1 else 0
    return text[start : last.start()].strip(), sign, text[last.end() :].strip()


def _outside(matches: Iterable[re.Match[str]], text: str) -> list[re.Match[str]]:
    """Return the matches outside all brackets and environments, in one pass over the text."""
    found: list[re.Match[str]] = []
    depth = environments = position = 0
    for match in matches:
        between = text[position : match.start()]
        for character in between:
            depth += (character in _OPENING) - (character in _CLOSING)
            if depth < 0:
                return found
        environments += between.count("\\begin") - between.count("\\end")
        position = match.start()
        if depth == environments == 0:
            found.append(match)
    return found


def value_of(text: str) -> str:
    """Return the right side of an equation whose left side is a name or a closed form.

    Of a constant and a name (`5 = x`) that is the constant. Any other text is returned unchanged.
    """
    relation = relation_of(text)
    if relation is None or relation[1] != "=":
        return text
    left, _, right = relation
    if not left:
        return text
    if IS_NAME.match(right) and not has_variables(left):
        return left
    if IS_NAME.match(left) or _OPERATION.match(left) or not has_variables(left):
        return right
    return text


def claimed_value(text: str) -> str:
    """Return the constant that an equation gives to an expression (`m+n=14`), else the text.

    An equation in one unknown (`x^2=9`) is not solved and gives it none.
    """
    relation = relation_of(text)
    if relation is None or relation[1] != "=" or not relation[0] or not relation[2]:
        return text
    if has_variables(relation[2]) or _UNSOLVED.fullmatch(relation[0].strip()):
        return text
    return relation[2]


def unnamed(text: str) -> str:
    """Return the right side of `name = value`, else the text unchanged."""
    relation = relation_of(text)
    if relation and relation[1] == "=" and IS_NAME.match(relation[0]):
        return relation[2]
    return text


def has_variables(text: str) -> bool:
    """Return whether a text holds a letter that stands for a number (not `e`, `i`, pi)."""
    letters = set(_FREE_LETTER.findall(text)) - FUNCTION_WORDS - {"e", "i"}
    letters -= {"to", "mod", "gcd", "lcm", "max", "min"}
    return bool(letters or _GREEK.search(text)) and "\\begin" not in text


def union_of(text: str) -> list[str]:
    """Return the parts of a union; [text] for anything else."""
    return [part.strip() for part in re.split(r"\\cup(?![A-Za-z])", text)]


def bracketed(text: str) -> tuple[str, list[str]] | None:
    """Return (brackets, parts) of a tuple, of a named point or of an interval, or None."""
    if "," in text and (point := POINT.match(text)):
        text = text[point.end() :]
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
    cells = [[cell.strip(" ,.;") for cell in row.split("&")] for row in rows]
    if match["kind"] == "cases":
        cells = [[_CONDITION.sub("", cell).strip() for cell in row] for row in cells]
    return cells


def _split(text: str, separator: str) -> list[str]:
    """Return the parts of `text` between separators outside all brackets."""
    if separator not in text:
        return [text]
    parts, depth, start = [], 0, 0
    for index, character in enumerate(text):
        if character == "\\" and text.startswith(("\\begin", "\\end"), index):
            depth += 1 if text.startswith("\\begin", index) else -1
        elif character in _OPENING:
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
