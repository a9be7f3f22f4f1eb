"""How hypothesis behaves in the unit tests."""

from hypothesis import HealthCheck, settings

# A slow machine is no failure: laws are about results. Hangs are pytest-timeout's business.
settings.register_profile("spex", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("spex"), max_examples=20)  # `make check`
settings.load_profile("spex")
