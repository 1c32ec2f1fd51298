#!/usr/bin/env bash
# math-verify 0.9.0: the last variable of a formula is cut off as a unit of measure.
#
# A good guess: `\pi r^2 h`, the volume of a cylinder, has three factors; `3st` is a product of s and t.
# Behaviour: with the default `LatexExtractionConfig` a formula that ends in one of about 140 words,
# `h`, `t`, `d`, `m`, `st` and `ab` among them, is read without it, before any grammar sees it.
# `LatexExtractionConfig(normalization_config=NormalizationConfig(units=False, ...))` reads it whole.
# Seen:
#   \pi r^2 h -> pi*r**2
#   3st -> 3
#   64t-16t -> 64*t - 16
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "math-verify==0.9.0" "latex2sympy2_extended==1.11.0" "antlr4-python3-runtime==4.13.2" "sympy==1.14.0"
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
from math_verify import parse

read = {text: parse(f"${text}$")[0] for text in (r"\pi r^2 h", "3st", "64t-16t")}
for text, value in read.items():
    print(text, "->", value)
assert [len(value.free_symbols) for value in read.values()] == [1, 0, 1], "out of date"
assert str(read["3st"]) == "3", "this finding is out of date"
PY
