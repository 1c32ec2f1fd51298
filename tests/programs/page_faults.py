"""Print the page faults of filling memory ten times, before a command of this process and after.

The command's own output goes to stderr.
"""

import resource
import sys
from contextlib import redirect_stdout

from eapo_agents.cli import main


def faults() -> int:
    """Return the page faults of filling four blocks of 24 MiB ten times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        _ = [b"x" * (24 << 20) for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


print(faults())
with redirect_stdout(sys.stderr):
    main(["settings", "embedded"])
print(faults())
