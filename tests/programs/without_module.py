"""Run the command of the later arguments as if the module of the first were not installed."""

import sys

sys.modules[sys.argv[1]] = None  # type: ignore[assignment]  # an import of it raises ModuleNotFoundError

from eapo_agents.cli import main  # noqa: E402

sys.exit(main(sys.argv[2:]))
