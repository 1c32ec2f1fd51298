"""Run a command as if some modules were not installed, then as if those not missed so far were not.

    without_modules.py MODULE... -- ARGUMENT...

Until none is missed, each run prints a line: the exit status, the module missed, the error.
"""

import sys
from contextlib import redirect_stderr
from io import StringIO

separator = sys.argv.index("--")
missing, arguments = set(sys.argv[1:separator]), sys.argv[separator + 1 :]
for name in missing:
    sys.modules[name] = None  # type: ignore[assignment]  # an import of it raises ModuleNotFoundError

from eapo_agents.cli import main  # noqa: E402

while missing:
    with redirect_stderr(StringIO()) as said:
        status = main(arguments)
    [missed] = [name for name in missing if f"No module named '{name}" in said.getvalue()]
    print(status, missed, said.getvalue(), end="", flush=True)
    del sys.modules[missed]
    missing.remove(missed)
