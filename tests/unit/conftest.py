"""How hypothesis behaves in the unit tests."""

from hypothesis import HealthCheck, settings

# A slow machine is no failure: laws are about results. Hangs are pytest-timeout's business.
settings.register_profile("spex", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("spex")
