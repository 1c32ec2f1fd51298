#!/usr/bin/env bash
# zensical 0.0.73 with mkdocstrings-python 2.0.11: `--strict` passes where mkdocs's `--strict` fails.
#
# A good guess: "strict mode: abort the build on warnings", with the same mkdocs.yml as MkDocs 1.6.1.
# Behaviour: a docstring that explains a parameter which the function lacks is a warning of griffe. MkDocs
# counts it and aborts; Zensical prints it before "No issues found" and ends with status 0.
# Seen:
#   mkdocs: Aborted with 2 warnings in strict mode! (status 1)
#   zensical: No issues found (status 0)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet \
  "zensical==0.0.73" "mkdocs==1.6.1" "mkdocstrings==1.0.8" "mkdocstrings-python==2.0.11"
cd "$folder"
mkdir docs
echo "::: product" >docs/index.md
cat >product.py <<'PY'
def half(number: float) -> float:
    """Return half of a number.

    Args:
        number: what is halved.
        missing: no parameter of this function.
    """
    return number / 2
PY
printf 'site_name: A site\nplugins:\n  - mkdocstrings\n' >mkdocs.yml
status=0
printed=$(PYTHONPATH=. venv/bin/mkdocs build --strict 2>&1) || status=$?
echo "mkdocs: $(tail -n 1 <<<"$printed") (status $status)"
[ "$status" = 1 ]
grep --quiet "Parameter 'missing' does not appear" <<<"$printed"
status=0
printed=$(PYTHONPATH=. venv/bin/zensical build --clean --strict --config-file mkdocs.yml 2>&1) || status=$?
echo "zensical: $(grep 'issues found' <<<"$printed") (status $status)"
[ "$status" = 0 ]
grep --quiet "Parameter 'missing' does not appear" <<<"$printed"
