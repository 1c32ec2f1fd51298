r"""TeX in one spelling: every argument in braces, layout macros gone, synonyms replaced.

`rewritten` reads a formula as TeX does, macro by macro, and writes it again: `\dfrac\pi2` becomes
`\frac{\pi}{2}`, `\textcolor{red}{5}` becomes `5`, `{10 \choose 3}` becomes `\binom{10}{3}`. It
changes notation and nothing else; what it does not know it keeps. Linear in the length of the text.
"""

from __future__ import annotations

import re

_MAX_DEPTH = 60
_TOKEN = re.compile(r"\\[A-Za-z]{1,40}\*?|\\.|\s+|.", re.DOTALL)


def _table(**names: str) -> dict[str, str]:
    return {f"\\{name}": value for value, words in names.items() for name in words.split()}


def _macros(names: str) -> frozenset[str]:
    return frozenset(f"\\{name}" for name in names.split())


_ARITY = _table(
    frac="frac dfrac tfrac cfrac nicefrac sfrac xfrac flatfrac", binom="binom dbinom tbinom"
)
_SYNONYMS = _table(
    le="leq leqslant leqq",
    ge="geq geqslant geqq",
    ne="neq",
    lt="less",
    gt="greater",
    cup="bigcup",
    cap="bigcap",
    emptyset="varnothing",
    approx="approxeq thickapprox doteq simeq fallingdotseq",
    ldots="dots cdots dotsc dotsb dotso",
    infty="infin",
    tan="tg",
    cot="ctg cotg",
    csc="cosec",
    arctan="arctg",
    setminus="smallsetminus backslash",
    Rightarrow="implies Longrightarrow",
    Leftrightarrow="iff Longleftrightarrow",
    land="wedge",
    lor="vee",
) | {"\\lg": "log_{10}"}
_SYNONYMS = {macro: f"\\{name}" for macro, name in _SYNONYMS.items()}
_PLAIN = {
    "\\lbrace": "\\{", "\\rbrace": "\\}", "\\lvert": "|", "\\rvert": "|", "\\vert": "|",
    "\\mid": "|", "\\lbrack": "[", "\\rbrack": "]", "\\lparen": "(", "\\rparen": ")",
    "\\langle": "(", "\\rangle": ")", "\\colon": ":", "\\coloneqq": "=", "\\prime": "'",
    "\\div": "/", "\\ast": "*", "\\slash": "/", "\\degree": "^\\circ", "\\textdegree": "^\\circ",
    "\\%": "%", "\\$": "$", "\\#": "#", "\\&": "&", "\\_": "_", "\\lVert": "\\|", "\\rVert": "\\|",
    "\\textdollar": "$", "\\dollar": "$",
}  # fmt: skip
_SPACES = _macros(
    ", ; : > quad qquad enspace enskip thinspace medspace thickspace space nobreakspace"
) | {"~", "\\ ", "\\\n", "\\\t"}
_LAYOUT = _macros(
    "displaystyle textstyle scriptstyle scriptscriptstyle large Large LARGE huge Huge small"
    " normalsize tiny footnotesize scriptsize bf it rm sf tt sl bfseries itshape mdseries"
    " upshape rmfamily limits nolimits nonumber notag mathstrut strut hfill hfil left right"
    " middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr bigm Bigm"
    " centering boldmath allowbreak relax null noindent par nobreak"
) | {"\\!", "\\/", "\\-", "\\@", "\\(", "\\)", "\\[", "\\]"}
_SIZED = re.compile(r"\\(?:left|right|middle|[bB]igg?[lrm]?)\Z")
_WORDS = _macros(
    "text textbf textit textrm textsf texttt textnormal textup textsl textmd textsc mbox"
    " hbox emph mathrm mathbf mathit mathsf mathtt mathcal mathscr mathfrak mathnormal"
    " boldsymbol bm pmb operatorname operatorname* mathop mathord mathbin mathrel underline"
    " uline ensuremath boxed fbox framebox mathchoice smash mathclap clap llap rlap num bold"
    " symbf"
)
_SECOND = frozenset(("\\textcolor", "\\colorbox", "\\bcancel", "\\hyperlink", "\\href"))
_DROPPED = _macros(
    "phantom hphantom vphantom hspace hspace* vspace vspace* tag tag* label color mspace"
    " kern hskip footnote"
)
_ACCENTS = _macros(
    "overline bar hat vec dot ddot tilde widehat widetilde overrightarrow overleftarrow"
    " mathbb underbrace overbrace check breve"
)
_QUANTITIES = frozenset(("\\SI", "\\qty", "\\si", "\\unit", "\\ang"))
_SI = _table(
    k="kilo", c="centi", m="milli metre meter", d="deci", M="mega", G="giga", g="gram gramme",
    s="second", L="litre liter", min="minute", h="hour", day="day", A="ampere", K="kelvin",
    N="newton", J="joule", W="watt", V="volt", Hz="hertz", Pa="pascal", mol="mole",
)  # fmt: skip
_SI |= {"\\per": "/", "\\squared": "^2", "\\cubed": "^3", "\\degree": "^\\circ", "\\percent": "%",
        "\\square": "square ", "\\cubic": "cubic "}  # fmt: skip
_LENGTH = re.compile(r"\s*\[\s*-?\d+(?:\.\d+)?\s*(?:pt|em|ex|mm|cm|in)\s*\]")
_UNITS_IN_TEXT = {
    "m": "meters", "s": "seconds", "g": "grams", "h": "hours", "L": "liters", "l": "liters",
    "in": "inches", "ft": "feet", "yd": "yards", "mi": "miles", "hr": "hours", "hrs": "hours",
    "min": "minutes", "sec": "seconds", "oz": "ounces", "lb": "pounds", "lbs": "pounds",
    "gal": "gallons", "qt": "quarts", "pt": "pints", "deg": "degrees", "ms": "milliseconds",
    "N": "newtons", "J": "joules", "W": "watts", "V": "volts", "K": "kelvins",
}  # fmt: skip
_FUNCTIONS = frozenset(
    name[1:]
    for name in _macros(
        "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp gcd lcm max min det"
        " lim sup inf arg deg"
    )
)
_UPRIGHT = frozenset(("\\text", "\\mathrm", "\\textrm", "\\mbox", "\\textnormal", "\\hbox"))
_SIGNS_ALONE = frozenset(",:.;'=<>+-*/|!")
_UNIT_PARTS = re.compile(r"[A-Za-z]+|[^A-Za-z]+")


def rewritten(text: str) -> str:
    """Return a formula in one spelling; a text that nests too deeply comes back unchanged."""
    try:
        return _Reader(text).group(0)
    except _TooDeepError:
        return text


_IN_SEPARATOR = frozenset((",", "}", "\\!", " "))


def _is_digit(token: str) -> bool:
    return "0" <= token <= "9" and len(token) == 1


def _spelled_out(part: str) -> str:
    return _UNITS_IN_TEXT.get(part, part)


class _TooDeepError(Exception):
    pass


class _Reader:
    """Reads tokens from left to right; every method returns what it has read, rewritten."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = [(match[0], match.end()) for match in _TOKEN.finditer(text)]
        self._at = 0
        self._is_infix = False
        """Whether the group read last is one fraction or binomial, which needs no braces."""

    def group(self, depth: int) -> str:
        """Return the rest of a group, its closing brace read; of the text at depth 0."""
        if depth > _MAX_DEPTH:
            raise _TooDeepError
        parts: list[str] = []
        while self._at < len(self._tokens):
            token = self._next()
            if token == "}":
                if depth:
                    break
                parts.append(token)
            elif token == "," and self._peek() == "\\!" and self._groups_thousands(self._at - 2):
                self._at += 1
                self._skip_spaces()
            elif token in ("\\over", "\\choose"):
                name = "\\frac" if token == "\\over" else "\\binom"
                top, bottom = "".join(parts).strip(), self.group(depth + 1).strip()
                parts = [f"{name}{{{top}}}{{{bottom}}}"]
                if depth:
                    self._is_infix = True
                    break
            else:
                parts.append(self._item(token, depth))
        return "".join(parts)

    def _next(self) -> str:
        token = self._tokens[self._at][0]
        self._at += 1
        return token

    def _peek(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _skip_spaces(self) -> None:
        while self._peek().isspace():
            self._at += 1

    def _groups_thousands(self, before: int) -> bool:
        """Return whether a digit stands at `before`, and three digits after the comma behind it."""
        after = self._at
        while after < len(self._tokens) and self._tokens[after][0] in _IN_SEPARATOR:
            after += 1
        digits = [token for token, _ in self._tokens[after : after + 4]]
        is_run = len(digits) >= 3 and all(map(_is_digit, digits[:3]))
        return (
            before >= 0
            and _is_digit(self._tokens[before][0])
            and is_run
            and not (len(digits) > 3 and _is_digit(digits[3]))
        )

    def _item(self, token: str, depth: int) -> str:
        """Return one token with the arguments that it takes."""
        if token == "{":
            groups = self._groups_thousands(self._at - 2)
            inside = self.group(depth + 1)
            if inside == "," and groups:
                return ""
            if self._is_infix:
                self._is_infix = False
                return inside
            return inside if inside in _SIGNS_ALONE else f"{{{inside}}}"
        if token in "^_":
            return self._script(token, depth)
        if token[0] != "\\":
            return " " if token == "~" else token
        if token in _ARITY:
            return f"\\{_ARITY[token]}{{{self._argument(depth)}}}{{{self._argument(depth)}}}"
        if token == "\\sqrt":
            return self._root(depth)
        if token in _WORDS:
            before = self._before()
            self._option()
            return self._words(token, self._argument(depth), before)
        if token in _ACCENTS:
            return f"{token}{{{self._argument(depth)}}}"
        if token in _DROPPED:
            self._argument(depth)
            return ""
        if token in _SECOND:
            self._argument(depth)
            return self._argument(depth)
        if token == "\\fcolorbox":
            self._argument(depth)
            self._argument(depth)
            return self._argument(depth)
        if token == "\\bbox":
            self._option()
            return self._argument(depth)
        if token in _QUANTITIES:
            return self._quantity(token, depth)
        if token in ("\\begin", "\\end"):
            return f"{token}{{{self._argument(depth)}}}"
        return self._macro(token)

    def _macro(self, token: str) -> str:
        if token == "\\\\":
            if length := _LENGTH.match(self._text, self._tokens[self._at - 1][1]):
                while self._at < len(self._tokens) and self._tokens[self._at][1] <= length.end():
                    self._at += 1
            return token
        if token in _SPACES:
            return " "
        if token in _LAYOUT:
            if token == "\\!":
                self._skip_spaces()
            if _SIZED.match(token):
                self._skip_spaces()
                if self._peek() == ".":
                    self._at += 1
            elif token[1].isalpha():
                return " "
            return ""
        if token in _PLAIN:
            return _PLAIN[token]
        return _SYNONYMS.get(token, token)

    def _argument(self, depth: int) -> str:
        """Return the next argument without its braces: a group, a macro or a character."""
        self._skip_spaces()
        token = self._peek()
        if token in ("", "}"):
            return ""
        self._at += 1
        if token == "{":
            return self.group(depth + 1).strip()
        if depth > _MAX_DEPTH:
            raise _TooDeepError
        return self._item(token, depth + 1).strip() if token[0] == "\\" else token

    def _option(self) -> str:
        """Return an argument in square brackets without them; empty if there is none."""
        if self._peek() != "[":
            return ""
        start = self._at
        self._at += 1
        read = []
        while self._at < len(self._tokens) and self._peek() != "]":
            read.append(self._next())
        if self._at == len(self._tokens):
            self._at = start
            return ""
        self._at += 1
        return "".join(read).strip()

    def _root(self, depth: int) -> str:
        self._skip_spaces()
        degree = self._option()
        self._skip_spaces()
        if self._peek() == "(" and not degree:
            return "\\sqrt"
        inside = self._argument(depth)
        while len(inside) and inside[-1].isdigit() and inside.isdigit() and _is_digit(self._peek()):
            inside += self._next()
        return f"\\sqrt[{degree}]{{{inside}}}" if degree not in ("", "2") else f"\\sqrt{{{inside}}}"

    def _script(self, sign: str, depth: int) -> str:
        """Return a power or an index; digits that follow `^` without braces belong together."""
        self._skip_spaces()
        if self._peek() in ("(", ""):
            return sign
        start = self._at
        inside = self._argument(depth)
        if sign == "^" and self._tokens[start][0] != "{":
            if inside == "-":
                inside += self._argument(depth)
            while inside.lstrip("-").isdigit() and _is_digit(self._peek()):
                inside += self._next()
        if inside == "'" or (inside and not inside.strip("'")):
            return inside
        inside = inside.strip()
        if len(inside) == 1 or inside == "\\circ":
            return f"{sign}{inside} " if inside == "\\circ" else f"{sign}{inside}"
        return f"{sign}{{{inside}}}"

    def _before(self) -> str:
        """Return the token before the current one, spaces apart; empty at the start."""
        at = self._at - 2
        while at >= 0 and (self._tokens[at][0].isspace() or self._tokens[at][0] in _SPACES):
            at -= 1
        return self._tokens[at][0] if at >= 0 else ""

    def _words(self, token: str, inside: str, before: str) -> str:
        """Return a text macro's words, a space on either side; `m` after a number is meters."""
        inside = inside.strip()
        follows_number = before[-1:].isdigit() or before in ("}", ")", "\\pi", "/")
        if token in _UPRIGHT and follows_number and "." not in inside:
            parts = _UNIT_PARTS.findall(inside)
            inside = "".join(map(_spelled_out, parts))
        return f"\\{inside} " if inside in _FUNCTIONS else f" {inside} "

    def _quantity(self, token: str, depth: int) -> str:
        self._option()
        if token == "\\ang":
            return f"{self._argument(depth)}^\\circ "
        value = self._argument(depth) + " " if token in ("\\SI", "\\qty") else ""
        self._skip_spaces()
        if self._peek() != "{":
            return value
        start = self._at
        self._at += 1
        read: list[str] = []
        level = 1
        while self._at < len(self._tokens):
            part = self._next()
            level += {"{": 1, "}": -1}.get(part, 0)
            if level == 0:
                unit = "".join(read)
                return f"{value} {''.join(map(_spelled_out, _UNIT_PARTS.findall(unit)))} "
            read.append(_SI.get(part, part))
        self._at = start
        return value
