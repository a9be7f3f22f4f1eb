"""What the bench of heads tests its fits on."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
from bench import components
from spex_proxy.engine import fidelity


def packed(masks: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in np.packbits(masks, axis=1)}


def test_a_fit_is_tested_on_masks_that_it_has_not_seen_and_that_were_measured() -> None:
    most = components.plan(54, "stack", max(components.BUDGETS))
    measured = packed(np.concatenate([components.tests(54), most[:900]]))
    for budget, more in ((256, 644), (512, 388), (1000, 0)):
        unseen = components.unseen(54, budget, measured)
        assert len(unseen) == components.TESTS + more
        assert not packed(unseen) & packed(components.plan(54, "stack", budget))
        assert packed(unseen) <= measured


def test_the_lead_is_the_difference_of_both_r2_and_its_interval_that_of_many_samples() -> None:
    random = np.random.default_rng(2)
    leads, halves = [], []
    for _ in range(400):
        values = random.normal(size=300)
        one, other = (values + width * random.normal(size=300) for width in (0.7, 0.8))
        lead, half = components.ahead(values, one, other)
        assert lead == pytest.approx(fidelity.r_squared(values, one) - fidelity.r_squared(values, other))
        leads.append(lead)
        halves.append(half)
    inside = np.abs(np.asarray(leads) - 0.15) < np.asarray(halves)
    assert 0.92 < inside.mean() < 0.98
