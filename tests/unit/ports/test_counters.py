"""The table of counters."""

from __future__ import annotations

import pytest

from spex_proxy.ports.counters import COUNTERS, GAUGES, Counters


def test_every_line_of_the_table_can_be_counted_and_seen() -> None:
    counters = Counters()
    for measure in COUNTERS:
        counters.add(measure.name, "x" if measure.label else "", by=2)
    for measure in GAUGES:
        counters.watch(measure.name, lambda: 7)
    snapshot = counters.snapshot()
    assert all(snapshot[m.name] == ({"x": 2.0} if m.label else 2.0) for m in COUNTERS)
    assert all(snapshot[m.name] == 7.0 for m in GAUGES)
    text = counters.exposition().decode()
    assert all(f"# HELP {m.exported}" in text for m in COUNTERS + GAUGES)


def test_nothing_counted_is_nothing_seen() -> None:
    snapshot = Counters().snapshot()
    assert set(snapshot) == {m.name for m in COUNTERS + GAUGES}
    assert not any(snapshot.values())
    assert Counters().value("faults", "tap") == 0


def test_instances_do_not_meet() -> None:
    one, other = Counters(), Counters()
    one.add("stored_exchanges")
    assert (one.value("stored_exchanges"), other.value("stored_exchanges")) == (1, 0)


def test_what_is_not_in_the_table_is_refused() -> None:
    with pytest.raises(KeyError):
        Counters().add("somthing_misspelt")
