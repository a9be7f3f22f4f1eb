"""One example of each answer to a query, for the OpenAPI document."""

from __future__ import annotations

from datetime import UTC, datetime

from spex_proxy.facts import records
from spex_proxy.web.examples import answer

_WHEN = datetime(2026, 11, 22, 17, 0, 7, tzinfo=UTC)
_ID, _OTHER = "d34e314bf44f4828b7085e38719d8830", "5f0c2e9b3a7d4c21a1f04be1f2c35d10"
_TERM = records.InteractionRow(
    _ID, "01a20433-68dc-7fe9-b901-53f5e246a0ef", _WHEN, "reliable", 0.97, 1, (1, 2), ("tool", "user"), 3.2, 0.8, 3.2,
    0.02,
)  # fmt: skip
_HALF = records.EstimateRecord(0.42, 0.37, 0.47, 350)
_SHARES = records.SharesRecord(
    name="",
    requests=records.EstimateRecord(35_000.0, 32_100.0, 37_900.0, 350),
    verdicts=(records.ShareRecord("reliable", _HALF),),
    r2=records.EstimateRecord(0.91, 0.89, 0.93, 350),
    origins=(records.ShareRecord("tool", _HALF),),
    document=None,
)
_AGGREGATE = records.AggregateRecord(
    360, (records.ShareCount("asked for, not drawn", 10),), 0, 3, _SHARES, (), ("The window goes by ...",)
)
_PAIR = records.PairRecord(1, 1, "range", 1.0, "Paris is in France.", "Paris is in France.", 21.4, 20.9, -0.5)

INTERACTION_PAGE = answer(records.InteractionPage((_TERM,), None), "One page.")
INDEX = answer(
    records.IndexRecord(_ID, "fsii", 2, 2, 4, (records.IndexEntry((1, 2), 3.2),)), "The largest entries first."
)
COMPARISON = answer(
    records.ComparisonRecord(
        _ID, _OTHER, True, 0.98, (_PAIR,), (records.TogetherRecord((1, 2), 3.2, 3.0),), (), (), ()
    ),
    "What is the same, and what changed.",
)
AGGREGATE = answer(_AGGREGATE, "What the window says of all requests.")
