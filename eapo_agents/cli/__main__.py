"""`python -m eapo_agents.cli`, for launchers such as accelerate."""

import sys

from eapo_agents.cli import main

if __name__ == "__main__":
    sys.exit(main())
