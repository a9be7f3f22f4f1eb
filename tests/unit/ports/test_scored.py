"""What has come of a batch: how wide it may be."""

from __future__ import annotations

import pytest

from spex_proxy.facts.evidence import Probe
from spex_proxy.ports.scorers import Scored


@pytest.mark.parametrize(("width", "most"), [(None, 8), (1, 1), (20, 8)])
def test_the_server_holds_what_is_wanted_and_what_the_scorer_gives_at_most(width: int | None, most: int) -> None:
    scored = Scored.of([Probe((1,), (2,), "")] * 32)
    scored.width = width
    assert scored.at_once(8) == most
