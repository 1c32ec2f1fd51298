#!/usr/bin/env bash
# latex2sympy2_extended 1.11.0: the argument of a function without brackets goes on after \cdot.
#
# A good guess: `\log_2 3\cdot\log_3 4` is the product of two logarithms, which is 2, and
# `\sin x\cdot 2` is twice a sine, as TeX sets them.
# Behaviour: the argument takes in all factors that follow, `\cdot` or not; only brackets around the
# argument end it.
# Seen:
#   \log_2 3\cdot\log_3 4 -> log(3*log(4, 3), 2)
#   \sin x\cdot 2 -> sin(x*2)
#   \sin(x)\cdot 2 -> sin(x)*2
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "math-verify==0.9.0" "latex2sympy2_extended==1.11.0" "antlr4-python3-runtime==4.13.2" "sympy==1.14.0"
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
from latex2sympy2_extended import latex2sympy

read = [latex2sympy(text) for text in (r"\log_2 3\cdot\log_3 4", r"\sin x\cdot 2", r"\sin(x)\cdot 2")]
print(*read, sep="\n")
assert str(read[0]) == "log(3*log(4, 3), 2)", "this finding is out of date"
assert [type(value).__name__ for value in read[1:]] == ["sin", "Mul"], "this finding is out of date"
PY
