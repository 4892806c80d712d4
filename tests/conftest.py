"""Hypothesis: no deadlines (two slow cores) and the same examples in every run, unless a search is asked for.

`HYPOTHESIS_PROFILE=search EXAMPLES=20` looks at others, and at twenty times as many.
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("core", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("search", deadline=None, database=None, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "core"))
