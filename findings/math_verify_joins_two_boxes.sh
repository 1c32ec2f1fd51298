#!/usr/bin/env bash
# math-verify 0.9.0: a corrected answer and the one before it become one number.
#
# A good guess: of a response with two boxes, `parse` returns the last one, or both as two answers.
# Behaviour: boxes with fewer than 70 characters and a comma between them are joined by a comma; two
# numbers of three digits then read as one with a thousands separator, other numbers as a set.
# Seen:
#   \boxed{112}, but rechecking gives \boxed{113} -> 112113
#   \boxed{2}, but rechecking gives \boxed{3} -> {2, 3}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "math-verify==0.9.0" "latex2sympy2_extended==1.11.0" "antlr4-python3-runtime==4.13.2" "sympy==1.14.0"
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
from math_verify import parse

read = [
    parse(rf"\boxed{{{first}}}, but rechecking gives \boxed{{{last}}}")[0]
    for first, last in ((112, 113), (2, 3))
]
print(*read, sep="\n")
assert [str(value) for value in read] == ["112113", "{2, 3}"], "this finding is out of date"
PY
