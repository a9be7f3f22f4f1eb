"""Where a spectrum's energy lies: known answers, and Parseval."""

from __future__ import annotations

import numpy as np
import pytest

from spex_proxy.engine.energy import energy
from spex_proxy.engine.walsh import predict
from spex_proxy.facts.spectrum import Spectrum

TERMS = [(), (0,), (3,), (0, 1), (1, 2), (0, 1, 3)]
COEFFICIENTS = [7.0, 1.0, -2.0, 3.0, -1.0, 0.5]
GROUPS = ("a", "a", "b", "b")


def test_known_shares_that_do_not_hang_on_the_mean() -> None:
    found = energy(Spectrum.from_terms(4, TERMS, COEFFICIENTS), GROUPS)
    total = 1 + 4 + 9 + 1 + 0.25
    assert (found.linear, found.within, found.across) == pytest.approx((5 / total, 9 / total, 1.25 / total))


def test_they_are_shares_of_the_variance_over_all_coalitions() -> None:
    spectrum = Spectrum.from_terms(4, TERMS, COEFFICIENTS)
    everything = (np.arange(16)[:, None] >> np.arange(4) & 1).astype(bool)
    linear = Spectrum.from_terms(4, TERMS[:3], COEFFICIENTS[:3])
    share = predict(linear, everything).var() / predict(spectrum, everything).var()
    assert energy(spectrum, GROUPS).linear == pytest.approx(share)


def test_nothing_varies() -> None:
    found = energy(Spectrum.from_terms(4, [()], [3.0]), GROUPS)
    assert (found.linear, found.within, found.across) == (0, 0, 0)


def test_as_many_groups_as_players() -> None:
    with pytest.raises(ValueError, match="3 groups for 4 players"):
        energy(Spectrum.from_terms(4, TERMS, COEFFICIENTS), GROUPS[:3])
