r"""Static limits on an answer: what is refused unread, because reading it could cost without bound.

`is_too_complex` looks at tokens, once, from left to right. It keeps ordinary answers
(`\binom{2026}{1013}`, `2^{2005}`, a 10 x 10 matrix) and refuses towers of powers, factorials of
factorials, huge literals, deep nesting, and text that belongs to a programming language.
"""

from __future__ import annotations

import re

MAX_CHARS = 2_000
MAX_DEPTH = 64
MAX_DIGITS = 300
MAX_EXPONENT = 10_000
MAX_FACTORIAL = 3_000
MAX_POWERS = 150
MAX_ROOT_OR_BINOMIAL = 10_000
MAX_CELLS = 144
MAX_DETERMINANT_CELLS = 25

_CODE = re.compile(
    r"__|['\"`@#\\]?\b(?:import|lambda|eval|exec|open|getattr|globals|system|subprocess|raise"
    r"|SystemExit|quit|exit)\b ?\(?|[\"`@#\x00-\x08\x0e-\x1f\x7f]|\\(?:input|include|write|def"
    r"|csname|catcode|let|read|openin|openout|immediate)(?![A-Za-z])|[A-Za-z]\.[A-Za-z_]{2}"
)
_TOKEN = re.compile(r"\\[A-Za-z]{1,30}|\\.|\d+|\*\*|[{}()\[\]^!&]|.", re.DOTALL)
_CLOSERS = {"{": "}", "(": ")", "[": "]"}
_LARGE_OPERATORS = ("\\sum", "\\prod", "\\gcd", "\\lcm", "\\lim", "\\int")


def is_too_complex(text: str) -> bool:
    """Return whether `text` exceeds a limit. Linear in its length; never raises."""
    if len(text) > MAX_CHARS or _CODE.search(text):
        return True
    if text.count("&") > MAX_CELLS or re.search(r"matrix\} ?\^", text):
        return True
    if "vmatrix" in text and text.count("&") > MAX_DETERMINANT_CELLS:
        return True
    return _exceeds(_TOKEN.findall(text))


def _exceeds(tokens: list[str]) -> bool:
    """Walk the tokens with a stack of open brackets, each marked whether it is an exponent."""
    stack: list[bool] = []
    powers, limit, previous = 0, MAX_DIGITS, ""
    large = any(operator in tokens for operator in _LARGE_OPERATORS)
    for token in tokens:
        if token == " ":
            continue
        in_exponent = any(stack) or previous in ("^", "**")
        if token in _CLOSERS:
            stack.append(previous in ("^", "**"))
        elif token in ("}", ")", "]"):
            if stack:
                stack.pop()
        elif token in ("^", "**"):
            powers += 1
            if sum(stack) >= 2 or (in_exponent and large):
                return True
        elif token.isdigit():
            limit = MAX_EXPONENT if in_exponent or large or previous in ("\\binom", "\\sqrt") else 0
            if _too_large(token, limit):
                return True
        elif token == "!" and _big_factorial(previous):
            return True
        if len(stack) > MAX_DEPTH or powers > MAX_POWERS:
            return True
        previous = token
    return _has_tower(tokens) or _has_big_argument(tokens)


def _too_large(digits: str, limit: int) -> bool:
    digits = digits.lstrip("0")
    return len(digits) > MAX_DIGITS or bool(limit and len(digits) > 6) or bool(
        limit and digits and int(digits) > limit
    )


def _big_factorial(previous: str) -> bool:
    if previous.isdigit():
        return _too_large(previous, MAX_FACTORIAL)
    return previous in ("!", ")", "}", "]")


def _has_tower(tokens: list[str]) -> bool:
    """Return whether a numeric power stands in the exponent of another power."""
    depth_of_exponent: list[int] = []
    depth, previous = 0, ""
    for token in tokens:
        if token == " ":
            continue
        if token in _CLOSERS:
            depth += 1
            if previous in ("^", "**"):
                depth_of_exponent.append(depth)
        elif token in ("}", ")", "]"):
            if depth_of_exponent and depth_of_exponent[-1] == depth:
                depth_of_exponent.pop()
            depth -= 1
        elif token in ("^", "**") and depth_of_exponent and previous.isdigit():
            return True
        previous = token
    return False


def _has_big_argument(tokens: list[str]) -> bool:
    """Return whether a root's index or a binomial's argument is beyond its limit."""
    for index, token in enumerate(tokens):
        if token in ("\\binom", "\\dbinom", "\\tbinom", "\\sqrt"):
            for argument in tokens[index + 1 : index + 8]:
                if argument.isdigit() and _too_large(argument, MAX_ROOT_OR_BINOMIAL):
                    return token != "\\sqrt" or tokens[index + 1] == "["
    return False
