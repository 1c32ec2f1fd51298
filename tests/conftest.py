"""Settings of all tests."""

from hypothesis import settings

# A slow machine is no failure: the number of examples bounds the work, not the clock.
settings.register_profile("eapo", deadline=None)
settings.load_profile("eapo")
