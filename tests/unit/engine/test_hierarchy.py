"""DSR, SCR and SHR on examples worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from spex_proxy.engine import walsh
from spex_proxy.engine.hierarchy import hierarchy
from spex_proxy.facts.spectrum import Spectrum


@pytest.mark.parametrize(
    ("terms", "rates"),
    [
        ([()], (1, 1, 1)),
        ([(), (1,), (2,), (1, 3)], (7 / 8, 1, 3 / 4)),
        ([(), (0, 1)], (1 / 2, 1 / 2, 1 / 2)),
        ([(), (0,), (0, 1), (0, 1, 2)], ((1 + 1 + 1 / 2 + 1 / 3) / 4, 1, 1 / 2)),
        ([(), (0,), (1, 2), (0, 1, 2)], ((1 + 1 + 0 + 1 / 3) / 4, 1 / 2, 1 / 2)),
    ],
)
def test_by_hand(terms, rates):
    found = hierarchy(Spectrum.from_terms(4, terms, [1.0] * len(terms)))
    assert (found.direct_subset_rate, found.strong_chain_rate, found.subset_rate) == pytest.approx(rates)
    assert found.terms == len(terms)


@pytest.mark.parametrize(
    ("terms", "interactions", "standing"),
    [([(), (0,)], 0, 1.0), ([(), (1,), (1, 3), (0, 2)], 2, 0.5), ([(), (0,), (0, 1), (0, 1, 2)], 2, 1.0)],
)
def test_interactions_are_counted_alone_too(terms, interactions, standing):
    found = hierarchy(Spectrum.from_terms(4, terms, [1.0] * len(terms)))
    assert (found.interactions, found.standing) == (interactions, standing)


def test_a_complete_spectrum_is_a_hierarchy_and_only_the_strongest_count():
    whole = walsh.exact_transform(np.random.default_rng(0).normal(size=64))
    assert hierarchy(whole).subset_rate == 1.0
    weak = Spectrum.from_terms(3, [(0,), (1,), (0, 1), (0, 1, 2)], [3.0, 2.0, 1.0, 0.1])
    assert hierarchy(weak, 3).subset_rate == 1.0
    assert hierarchy(weak).subset_rate < 1.0
