"""Run the command of the later arguments where no file can have more bytes than the first says."""

import resource
import sys

from eapo_agents.cli import main

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(main(sys.argv[2:]))
