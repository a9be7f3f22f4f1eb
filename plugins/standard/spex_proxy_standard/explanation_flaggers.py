"""Flaggers of explanations: who moved the answer, and whether they should have.

All of them look at the players' roles and the effects alone, and only where the explanation is reliable: of one that
is not, nothing follows. Effects are Banzhaf values; a share is one effect among the sum of all, without their signs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine.indices import banzhaf_values
from spex_proxy.facts.exchange import MARK_ARROW, Segment
from spex_proxy.plug.kinds import Seen
from spex_proxy_standard.options import names, read, share

Found = Sequence[tuple[str, float | None]]

UNTRUSTED_ROLES = ("tool", "function")
SYSTEM_ROLES = ("system", "developer")


class Untrusted:
    """A tool result or a retrieved document carries the effect, or joins an interaction that does.

    Options: `share` (0.2): of the effects, or of the strongest effect for an interaction; `roles` (tool, function).
    A segment that stands in a marked document (`Document 2`, `<doc>`, ...) is untrusted whoever sent it, but for a
    system prompt's.
    """

    name = "untrusted"
    about = "explanation"

    def check(self, options: Mapping[str, Any]) -> None:
        read(options, {"share": share, "roles": names})

    def inspect(self, seen: Seen, options: Mapping[str, Any]) -> Found:
        wanted = {"share": 0.2, "roles": UNTRUSTED_ROLES, **read(options, {"share": share, "roles": names})}
        segments, shares = _shares(seen)
        strange = {i for i, segment in enumerate(segments) if _is_untrusted(segment, wanted["roles"])}
        found: list[tuple[str, float | None]] = [
            (f"segment {i + 1} ({segments[i].role}) carries {abs(shares[i]):.0%} of the effects", float(abs(shares[i])))
            for i in sorted(strange, key=lambda i: -abs(shares[i]))
            if shares[i] >= wanted["share"]  # towards the answer
        ]
        return [*found, *_joint(seen, strange, wanted["share"])]


class Dominant:
    """One segment carries nearly all of the effects. Option: `share` (0.8)."""

    name = "dominant"
    about = "explanation"

    def check(self, options: Mapping[str, Any]) -> None:
        read(options, {"share": share})

    def inspect(self, seen: Seen, options: Mapping[str, Any]) -> Found:
        least = read(options, {"share": share}).get("share", 0.8)
        segments, shares = _shares(seen)
        if len(segments) < 3:
            return []
        top = int(np.argmax(np.abs(shares)))
        if abs(shares[top]) < least:
            return []
        return [(f"segment {top + 1} carries {abs(shares[top]):.0%} of the effects", float(abs(shares[top])))]


class Overruled:
    """The system prompt speaks against the answer, which came nevertheless: keeping it makes the answer less likely.

    Option: `share` (0.2), of the effects.
    """

    name = "overruled"
    about = "explanation"

    def check(self, options: Mapping[str, Any]) -> None:
        read(options, {"share": share})

    def inspect(self, seen: Seen, options: Mapping[str, Any]) -> Found:
        least = read(options, {"share": share}).get("share", 0.2)
        segments, shares = _shares(seen)
        against = -float(sum(shares[i] for i, segment in enumerate(segments) if segment.role in SYSTEM_ROLES))
        if against < least:
            return []
        return [(f"the system prompt carries {against:.0%} of the effects, against the answer", against)]


def _is_untrusted(segment: Segment, roles: Sequence[str]) -> bool:
    return segment.role in roles or (MARK_ARROW in segment.provenance and segment.role not in SYSTEM_ROLES)


def _shares(seen: Seen) -> tuple[Sequence[Segment], NDArray[np.float64]]:
    """Segments, and the signed share of each; no segments where nothing follows from the explanation."""
    if seen.explanation is None or seen.players is None or seen.explanation.verdict != "reliable":
        return (), np.zeros(0)
    effects = banzhaf_values(seen.explanation.spectrum)
    total = float(np.abs(effects).sum())
    return (seen.players.segments, effects / total) if total > 0 else ((), np.zeros(0))


def _joint(seen: Seen, strange: set[int], least: float) -> Found:
    if seen.explanation is None or not strange:
        return []
    strongest = max((abs(i.banzhaf) for i in seen.explanation.interactions), default=0.0)
    return [
        (
            f"segments {', '.join(str(player + 1) for player in term.players)} act together, {part:.0%} as strongly as "
            "the strongest effect",
            part,
        )
        for term in seen.explanation.interactions
        if term.order >= 2 and strange & set(term.players) and strongest > 0
        for part in [abs(term.banzhaf) / strongest]
        if term.banzhaf > 0 and part >= least
    ]
