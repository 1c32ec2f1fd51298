#!/usr/bin/env bash
# verl 0.9.1: a plug-in that cannot be imported is left out without a word.
#
# A good guess: where an installed entry point of the group `verl.plugins` raises, `import verl` raises
# too, or logs a warning that names it.
# Behaviour: verl catches every exception and logs it at the level DEBUG, which is not shown. What the
# plug-in would have registered is missing later.
# Seen:
#   import verl: status 0, the plug-in is named 0 times
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "verl==0.9.1" "transformers==5.10.4" "torch==2.13.0"
cd "$folder"
mkdir plug_in
cat >plug_in/pyproject.toml <<'TOML'
[project]
name = "plug-in"
version = "1"

[project.entry-points."verl.plugins"]
mine = "broken_plug_in"

[tool.setuptools]
py-modules = ["broken_plug_in"]
TOML
echo 'raise RuntimeError("the module of the plug-in was imported")' >plug_in/broken_plug_in.py
"$folder/venv/bin/pip" install --quiet setuptools wheel
"$folder/venv/bin/pip" install --quiet --no-build-isolation ./plug_in
"$folder/venv/bin/python" - <<'PY'
import subprocess
import sys

done = subprocess.run(
    [sys.executable, "-c", "import verl"], capture_output=True, text=True, check=False
)
said = done.stdout + done.stderr
named = said.count("mine") + said.count("broken_plug_in") + said.count("was imported")
print(f"import verl: status {done.returncode}, the plug-in is named {named} times")
assert done.returncode == 0, said
assert named == 0, "this finding is out of date"
loaded = subprocess.run(
    [
        sys.executable,
        "-c",
        "import logging; logging.basicConfig(level=logging.DEBUG);"
        "logging.getLogger('verl').setLevel(logging.DEBUG); import verl",
    ],
    capture_output=True,
    text=True,
    check=False,
)
assert "was imported" in loaded.stderr, "the plug-in was not tried at all"
PY
