"""One interface: whatever the method, a spectrum and predictions of masks that it was not fitted to."""

from __future__ import annotations

import numpy as np
import pytest

from spex_proxy.engine import designs, draws, walsh
from spex_proxy.engine.rows import rows_of
from spex_proxy.engine.surrogates import SURROGATES
from spex_proxy.facts.evidence import Evidence
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.spectrum import Spectrum

N = 12
TRUTH = Spectrum.from_terms(N, [(), (0,), (3,), (0, 3), (5,)], [4.0, 2.0, -1.5, 0.5, 1.0])


@pytest.mark.parametrize("name", SURROGATES)
def test_it_predicts_masks_that_it_has_not_seen(name, small_trees):
    recipe = Recipe(method="spex" if name == "spex" else "stack", budget=400, replicates=1)
    plan = designs.plan(N, recipe)
    rows = rows_of(Evidence(plan.masks, walsh.predict(TRUTH, plan.masks), plan.replicates))
    found = SURROGATES[name](rows, recipe)
    assert found.spectrum.n_players == N
    values = rows.values[rows.uniform]
    assert found.predictions.shape == values.shape
    assert 1 - ((values - found.predictions) ** 2).mean() / values.var() > 0.9
    fresh = draws.uniform_masks(N, 1000, 99)
    expected = walsh.predict(TRUTH, fresh)
    assert 1 - ((expected - walsh.predict(found.spectrum, fresh)) ** 2).mean() / expected.var() > 0.9


def test_the_gaussian_process_alone_is_one_member(small_trees):
    plan = designs.plan(N, Recipe(budget=100))
    rows = rows_of(Evidence(plan.masks, walsh.predict(TRUTH, plan.masks), plan.replicates))
    found = SURROGATES["gaussian"](rows, Recipe())
    (member,) = found.how["members"]
    assert member["weight"] == pytest.approx(1.0)
    assert np.isfinite(found.spectrum.coefficients).all()
