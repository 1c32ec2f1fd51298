#!/usr/bin/env bash
# math-verify 0.9.0: digits with a thin space between them are added up.
#
# A good guess: `12\,345`, a number with a thin space before its thousands as SI and many textbooks
# write it, is 12345; and `2 3` is a list, a product, or nothing that can be read.
# Behaviour: the two runs of digits are read as the whole and the fraction of a mixed number, and
# added. `1\,000` is read as a product with zero.
# Seen:
#   12\,345 -> 357
#   2 3 -> 5
#   1\,000 -> 1*0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "math-verify==0.9.0" "latex2sympy2_extended==1.11.0" "antlr4-python3-runtime==4.13.2" "sympy==1.14.0"
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
from math_verify import parse

read = {text: parse(f"${text}$")[0] for text in (r"12\,345", "2 3", r"1\,000")}
for text, value in read.items():
    print(text, "->", value)
assert [str(value) for value in read.values()] == ["357", "5", "1*0"], "this finding is out of date"
PY
