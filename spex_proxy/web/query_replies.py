"""What queries find -> records of the API. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from spex_proxy.engine.estimate import Estimate
from spex_proxy.engine.interactions import Index
from spex_proxy.facts import records
from spex_proxy.facts.origins import named
from spex_proxy.store.browse_interactions import TermLine
from spex_proxy.store.codec import finite
from spex_proxy.store.population import Population, Shares
from spex_proxy.study.compare import Comparison, Pair, Side, Together
from spex_proxy.study.view import SegmentView
from spex_proxy.web.replies import clean, fill


def interaction_row(line: TermLine) -> records.InteractionRow:
    made = fill(
        records.InteractionRow, line, rank=line.rank + 1, segments=tuple(player + 1 for player in line.players),
        origins=named(line.origins), effect=line.banzhaf,
    )  # fmt: skip
    assert isinstance(made, records.InteractionRow)
    return made


def index_record(explanation_id: str, found: Index, limit: int) -> records.IndexRecord:
    order = np.argsort(-np.abs(found.numbers), kind="stable")[:limit]
    sets = found.players()
    entries = tuple(
        records.IndexEntry(tuple(player + 1 for player in sets[i]), finite(float(found.numbers[i]))) for i in order
    )
    return records.IndexRecord(
        explanation_id, found.name, found.order, found.n_players, int(np.count_nonzero(found.numbers)), entries
    )


def comparison_record(found: Comparison) -> records.ComparisonRecord:
    def groups(those: Iterable[Together]) -> tuple[records.TogetherRecord, ...]:
        return tuple(records.TogetherRecord(t.numbers, clean(t.first), clean(t.second)) for t in those)

    return records.ComparisonRecord(
        first=found.first.explanation.id,
        second=found.second.explanation.id,
        same_players=found.same_players,
        rank_correlation=found.rank_correlation,
        pairs=tuple(_pair(found, pair) for pair in found.pairs),
        shared=groups(found.shared),
        lost=groups(found.lost),
        gained=groups(found.gained),
        notes=found.notes,
    )


def _pair(found: Comparison, pair: Pair) -> records.PairRecord:
    def text(side: Side, segment: SegmentView | None) -> str | None:
        return None if segment is None or side.exchange is None else str(clean(segment.text))

    return records.PairRecord(
        first=pair.first.number if pair.first else None,
        second=pair.second.number if pair.second else None,
        match=pair.match,
        overlap=pair.overlap,
        first_text=text(found.first, pair.first),
        second_text=text(found.second, pair.second),
        first_effect=finite(pair.first.effect) if pair.first else None,
        second_effect=finite(pair.second.effect) if pair.second else None,
        change=clean(pair.change),
    )


def estimate_record(found: Estimate) -> records.EstimateRecord:
    return records.EstimateRecord(finite(found.value), finite(found.low), finite(found.high), found.n)


def aggregate_record(found: Population, depth: int) -> records.AggregateRecord:
    return records.AggregateRecord(
        explanations=found.read,
        left_out=tuple(records.ShareCount(why, n) for why, n in found.left_out.items()),
        capped_days=found.capped_days,
        depth=depth,
        whole=_shares("", found.whole),
        groups=tuple(_shares(str(clean(name)), shares) for name, shares in found.groups.items()),
        notes=notes_of(found),
    )


def notes_of(found: Population) -> tuple[str, ...]:
    """In words, what the numbers rest on."""
    notes = ["The window goes by the time when explanations were made, not by when requests came in."]
    if found.capped_days:
        notes.append(
            f"In {found.capped_days} rule-days a cap said no. Those that it let through are weighed up, but they are "
            "the first of each minute and day: there the intervals are too narrow by an amount that nobody knows."
        )
    if not found.whole.requests.n:
        notes.append("No explanation of this window was drawn at random, so nothing can be said about all requests.")
    return tuple(notes)


def _shares(name: str, found: Shares) -> records.SharesRecord:
    def each(those: Mapping[str, Estimate]) -> tuple[records.ShareRecord, ...]:
        return tuple(records.ShareRecord(kind, estimate_record(one)) for kind, one in those.items())

    return records.SharesRecord(
        name=name,
        requests=estimate_record(found.requests),
        verdicts=each({str(verdict): one for verdict, one in found.verdicts.items()}),
        r2=estimate_record(found.r2),
        origins=each({str(origin): one for origin, one in found.origins.items()}),
        document=None if found.document is None else estimate_record(found.document),
    )
