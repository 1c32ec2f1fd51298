"""Settings of all tests."""

import os

from hypothesis import settings

# A slow machine is no failure: the number of examples bounds the work, not the clock. Continuous
# integration repeats the same examples; at a desk every run tries new ones.
settings.register_profile("eapo", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("eapo")
