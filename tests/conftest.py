"""Hypothesis's profiles: `dev` for each run of the pure tests, `ci` for a thorough one (HYPOTHESIS_PROFILE=ci).
It holds no fixtures: what a test needs, it makes."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

for _name, _examples in (("dev", 25), ("ci", 300)):
    settings.register_profile(
        _name,
        max_examples=_examples,
        deadline=None,  # this machine may be busy
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
