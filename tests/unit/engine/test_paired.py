"""Shapley values from pairs: even terms cancel, whatever their size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spex_proxy.engine import designs, draws, interactions, paired, walsh
from spex_proxy.engine.baselines import SURROGATES
from spex_proxy.engine.rows import rows_of
from spex_proxy.facts.errors import BadEvidence
from spex_proxy.facts.evidence import Evidence
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.spectrum import Spectrum


def measured(truth, budget, seed=0, design="paired"):
    plan = designs.plan(truth.n_players, Recipe(design=design, budget=budget, replicates=1, seed=seed))
    return rows_of(Evidence(plan.masks, walsh.predict(truth, plan.masks), plan.replicates))


@settings(max_examples=20, deadline=None)
@given(n=st.integers(5, 9), seed=st.integers(0, 999))
def test_a_pair_holds_the_odd_part_and_nothing_else(n, seed):
    truth = walsh.exact_transform(np.random.default_rng(seed).normal(size=1 << n))
    is_odd = truth.orders() % 2 == 1
    odd = Spectrum(n, truth.supports[is_odd], truth.coefficients[is_odd])
    rows = paired.odd_rows(measured(truth, 30, seed))
    assert rows.values == pytest.approx(walsh.predict(odd, rows.masks))
    assert len(rows) >= 10


def test_strong_pairs_do_not_spoil_shapley_values():
    stream = np.random.default_rng(3)
    singles = [(i,) for i in range(12)]
    pairs = sorted({tuple(sorted(stream.choice(24, 2, replace=False).tolist())) for _ in range(80)})
    strengths = np.concatenate([[0.0], stream.normal(size=12), 2.0 * stream.normal(size=len(pairs))])
    truth = Spectrum.from_terms(24, [(), *singles, *pairs], strengths)
    rows = measured(truth, 200)
    right = interactions.shapley_values(truth)

    def error(values):
        return float(((values - right) ** 2).sum() / (right**2).sum())

    order1 = SURROGATES["order1"]
    whole = interactions.shapley_values(order1(rows, 0).spectrum)
    odd = paired.shapley_values(rows, 0, order1)
    assert error(odd) < 0.01
    assert error(odd) < 0.05 * error(whole)
    assert odd.sum() == pytest.approx(rows.value_full - rows.value_empty)


def test_masks_without_pairs_are_refused_with_what_to_do():
    masks = draws.uniform_masks(30, 50, 0)
    rows = rows_of(Evidence(masks, np.arange(50.0), np.zeros(50, dtype=np.int64)))
    with pytest.raises(BadEvidence, match="ask the design `paired`"):
        paired.odd_rows(rows)
