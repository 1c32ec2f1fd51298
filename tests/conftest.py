"""Settings of all tests."""

import os
import signal

from hypothesis import settings

# One torch thread, in this process and in those the tests start: with another number the last bits
# of a sum differ, and it is the fastest for models as small as these.
os.environ["OMP_NUM_THREADS"] = "1"

# As the command has it, which sets this before it imports transformers; here that comes first.
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

# A slow machine is no failure: the number of examples bounds the work, not the clock. Continuous
# integration repeats the same examples; at a desk every run tries new ones.
settings.register_profile("eapo", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("eapo")

# A shell that starts the tests in the background has them ignore Ctrl-C, and all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
