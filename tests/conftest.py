"""Settings of all tests: property tests are the same in every run, and a slow machine does not fail them."""

from hypothesis import settings

settings.register_profile("fixed", deadline=None, derandomize=True)
settings.load_profile("fixed")
