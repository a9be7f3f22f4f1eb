"""Hypothesis behaves as in the unit tests: a slow machine is no failure."""

import tests.unit.conftest  # noqa: F401 - it loads the profile
