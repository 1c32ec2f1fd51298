r"""One plain ASCII notation for an answer, so that equal texts are equal answers.

`canonical` takes off dollar signs, end tokens and closing marks, replaces Unicode signs, undoes
doubled backslashes, rewrites the TeX (`tex.py`) and unpacks environments. Characters outside ASCII
that are not in the tables (`４３`, `٤٣`, Cyrillic letters) are kept, so a text with them is never a
number.
"""

from __future__ import annotations

import re
from functools import lru_cache

from eapo_env.tex import rewritten

_UNICODE = str.maketrans(
    {
        "−": "-", "–": "-", "‐": "-", "‑": "-", "×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ",
        "∗": "*", "÷": "/", "∕": "/", "⁄": "/", "°": "^\\circ ", "º": "^\\circ ", "π": "\\pi ",
        "∞": "\\infty ", "≤": "\\le ", "⩽": "\\le ", "≥": "\\ge ", "⩾": "\\ge ", "≠": "\\ne ",
        "≈": "\\approx ", "≡": "\\equiv ", "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ",
        "±": "\\pm ", "∓": "\\mp ", "√": "\\sqrt ", "∛": "\\sqrt[3] ", "∜": "\\sqrt[4] ",
        "θ": "\\theta ", "α": "\\alpha ", "β": "\\beta ", "γ": "\\gamma ", "δ": "\\delta ",
        "ε": "\\epsilon ", "λ": "\\lambda ", "μ": "\\mu ", "φ": "\\phi ", "ϕ": "\\phi ",
        "ρ": "\\rho ", "σ": "\\sigma ", "τ": "\\tau ", "ψ": "\\psi ", "ω": "\\omega ",
        "Δ": "\\Delta ", "Ω": "\\Omega ", "Σ": "\\Sigma ", "Γ": "\\Gamma ", "η": "\\eta ",
        "ℝ": "\\mathbb{R}", "ℤ": "\\mathbb{Z}", "ℕ": "\\mathbb{N}", "ℚ": "\\mathbb{Q}",
        "ℂ": "\\mathbb{C}", "∅": "\\emptyset ", "⌊": "\\lfloor ", "⌋": "\\rfloor ",
        "⌈": "\\lceil ", "⌉": "\\rceil ", "∖": "\\setminus ", "∧": "\\land ", "∨": "\\lor ",
        "→": "\\to ", "⇒": "\\Rightarrow ", "⟹": "\\Rightarrow ", "∴": "\\therefore ",
        "⇔": "\\Leftrightarrow ", "∠": "\\angle ", "△": "\\triangle ", "∫": "\\int ",
        "∑": "\\sum ", "∏": "\\prod ", "′": "'", "″": "''", "’": "'",
        "€": "\\euro ", "£": "\\pounds ", "¥": "\\yen ", "₹": "\\rupee ",
        "，": ",", "、": ",", "（": "(", "）": ")", "：": ":", "；": ";", "．": ".", "＝": "=",
        "＋": "+", "－": "-", "｜": "|", "∣": "|", "。": ".", "⟨": "(", "⟩": ")", "〈": "(",
        "〉": ")",
        "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u2002": " ", "\u2003": " ", "…": "\\ldots ",
        "⋯": "\\ldots ", "½": "\\frac{1}{2}", "¼": "\\frac{1}{4}", "¾": "\\frac{3}{4}",
        "⅓": "\\frac{1}{3}", "⅔": "\\frac{2}{3}", "⅕": "\\frac{1}{5}", "⅖": "\\frac{2}{5}",
        "⅗": "\\frac{3}{5}", "⅘": "\\frac{4}{5}", "⅙": "\\frac{1}{6}", "⅚": "\\frac{5}{6}",
        "⅐": "\\frac{1}{7}", "⅛": "\\frac{1}{8}", "⅜": "\\frac{3}{8}", "⅝": "\\frac{5}{8}",
        "⅞": "\\frac{7}{8}", "⅑": "\\frac{1}{9}", "⅒": "\\frac{1}{10}",
    }
)  # fmt: skip
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ", "0123456789+-=()ni")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₙₖₘ", "0123456789+-=()nkm")
_POWERS = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ]+")
_INDICES = re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₙₖₘ]+")

_MACRO = (
    "geqslant|leqslant|arctan|arcsin|arccos|vec|varphi|operatorname|mathsf|displaystyle|overrightarrow"
    "|text|frac|dfrac|tfrac|sqrt|pi|pm|mp|cup|cap|infty|le|leq|ge|geq|ne|neq|lt|gt|approx|in|cdot"
    "|times|div|left|right|mathrm|mathbf|mathbb|mathcal|boxed|fbox|begin|end|binom|sin|cos|tan|cot"
    "|sec|csc|ln|log|exp|alpha|beta|gamma|delta|theta|lambda|mu|phi|omega|sigma|circ|degree|overline"
    "|emptyset|varnothing|lfloor|rfloor|lceil|rceil|ldots|dots|quad|sum|prod|int|angle|triangle"
)
_DOUBLED = re.compile(rf"\\\\(?=(?:{_MACRO})(?![A-Za-z])|[{{}}%$,;:!])")
_SINGLE = re.compile(r"(?<!\\)\\(?!\\)")
_DELIMITER = re.compile(r"(?<!\\)\$")
_SPACES = re.compile(r"\s{1,2000}")
_LONE_BRACKETS = re.compile(r"\A\[ ([^\[\](),;]{1,200}) \]\Z")
_WRAPPED = re.compile(r"\A\{([^{}]{0,2000})\}\Z")
_MARKS_CHARS = 60
_CLOSING_MARKS = re.compile(
    r"(?:\s|\\\\|\\(?:blacksquare|square|Box|qed|QED)(?![a-z])|[∎□■✓✔✅。]|\bQ\.?E\.?D\.?)+\Z"
)
_HALF_OF_DAY = re.compile(r"(?<=\d )(?:([ap])(?:m|\. ?m\.?)|([AP])(?:M|\. ?M\.?))(?![A-Za-z])")
_INFINITY = re.compile(r"(?<![A-Za-z\\])(?:[Ii]nfinity|infty|inf(?= ?(?:[,)\]]|\Z)))(?![A-Za-z])")
_UNION = re.compile(r"([(\[][^()\[\]]{1,80},[^()\[\]]{1,80}[)\]]) ?U ?(?=[(\[][^()\[\]]{1,80},)")
_AND_SO_ON = re.compile(r"(?<=,) ?\.\.\.")
_FACTORIAL = re.compile(r"(?<=[0-9)])!=")
_ALIGNED = re.compile(
    r"\A\\begin ?\{(?P<kind>aligned|align|align\*|gathered|gather|gather\*|split|equation"
    r"|equation\*|multline|eqnarray|cases|dcases|array)\}(?P<columns>\{[lcr|]{1,40}\})?"
    r"(?P<body>.*)\\end ?\{(?P=kind)\}\Z",
    re.DOTALL,
)
_ROW = re.compile(r"\\\\|\\cr(?![a-z])")
_GOES_ON = re.compile(r"\A(?:=|\\le(?![a-z])|\\ge(?![a-z])|\\Rightarrow|[<>+-])")
_ALL_REALS = re.compile(
    r"\A(?:x ?\\in ?)?(?:\\mathbb ?\{?R\}?|(?:the set of )?all real(?: number)?s"
    r"(?: x)?|all x)\Z",
    re.IGNORECASE,
)


@lru_cache(maxsize=1024)
def canonical(text: str) -> str:
    r"""Return `text` in one canonical LaTeX notation.

    `\text{...}` becomes its words with a space on either side. `text` should have at most 2,000
    characters: longer answers are refused before (`limits.py`).
    """
    if not text.isascii():
        text = _POWERS.sub(lambda run: f"^{{{run[0].translate(_RAISED)}}}", text)
        text = _INDICES.sub(lambda run: f"_{{{run[0].translate(_LOWERED)}}}", text)
        text = text.translate(_UNICODE)
    if "$" in text and len(_DELIMITER.findall(text)) % 2 == 0:
        text = _DELIMITER.sub(" ", text)
    if "\\\\" in text and not _SINGLE.search(text):
        text = _DOUBLED.sub(r"\\", text)
    if text.startswith("~"):
        text = f"\\approx {text[1:]}"
    if "\\" in text or "~" in text or "{" in text or "^" in text:
        text = rewritten(text)
    if "inf" in text or "Inf" in text:
        text = _INFINITY.sub(r"\\infty", text)
    if "U" in text:
        text = _UNION.sub(r"\1\\cup ", text)
    if "..." in text:
        text = _AND_SO_ON.sub(r"\\ldots ", text)
    text = _SPACES.sub(" ", text).replace(" ^", "^").strip()
    text = without_closing_marks(text)
    if "\\begin" in text:
        text = _unpacked(text)
    if bracketed := _LONE_BRACKETS.match(text):
        text = bracketed[1]
    text = _trimmed(text)
    while (inside := _WRAPPED.match(text)) and "," not in inside[1]:
        text = _trimmed(inside[1].strip())
    if "m" in text or "M" in text:
        text = _HALF_OF_DAY.sub(lambda found: f"{(found[1] or found[2]).lower()}m", text)
    if "!=" in text:
        text = _FACTORIAL.sub("! =", text)
    return "(-\\infty,\\infty)" if _ALL_REALS.match(text) else text


def without_closing_marks(text: str) -> str:
    """Return `text` without the end-of-proof signs, check marks and line breaks at its end."""
    marks = _CLOSING_MARKS.search(text, max(0, len(text) - _MARKS_CHARS))
    return text[: marks.start()] if marks else text


def _trimmed(text: str) -> str:
    """Return `text` without the full stop, comma or semicolon that ends a sentence around it."""
    if text.endswith((",", ";")) or (text.endswith(".") and not text.endswith("..")):
        return text[:-1].rstrip()
    return text


def _unpacked(text: str) -> str:
    r"""Return the lines of an environment as a list; a case or a matrix keeps its cells."""
    system = text.removeprefix("\\{").strip()
    match = _ALIGNED.match(system)
    if match is None or "\\begin" in match["body"]:
        return text
    if match["kind"] == "array" and system == text:
        return text if _ROW.search(match["body"]) or "&" in text else match["body"].strip()
    rows = [row.strip(" ,;.") for row in _ROW.split(match["body"])]
    if match["kind"] in ("cases", "dcases", "array") and any(
        "&" in row.strip("& ") and not _GOES_ON.match(row.partition("&")[2].strip()) for row in rows
    ):
        return f"\\begin{{cases}}{match['body']}\\end{{cases}}"
    lines: list[str] = []
    for row in filter(None, (row.replace("&", " ").strip() for row in rows)):
        if lines and _GOES_ON.match(row):
            lines[-1] += f" {row}"
        else:
            lines.append(row)
    return _SPACES.sub(" ", ", ".join(lines))
