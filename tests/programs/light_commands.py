"""Run commands on the runs of the arguments; print, after each, the heavy modules loaded so far."""

import sys
from contextlib import redirect_stdout
from io import StringIO

from eapo_agents.cli import main

HEAVY = ("torch", "transformers", "vllm", "datasets", "openai", "sympy", "numpy", "rich")

runs = sys.argv[1:]
for command in (["--help"], ["settings"], ["report", *runs], ["compare", *runs]):
    with redirect_stdout(StringIO()) as output:
        try:
            status: str | int | None = main(command)
        except SystemExit as ended:
            status = ended.code
    assert status == 0, output.getvalue()
    print(command[0], *(name for name in HEAVY if name in sys.modules))
