"""How property-based tests run: never against the clock, and on the same examples every time where CI runs them."""

import os

from hypothesis import settings

settings.register_profile("genie", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("genie")
