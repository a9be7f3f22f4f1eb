"""What the relay's self-test saw -> findings. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from statistics import median, quantiles

from spex_proxy.facts.finding import Finding
from spex_proxy.ports.look import Look, Silence

ABORT_S = 0.05
"""How soon the upstream has to learn that a client has left."""
ADDED_S, ADDED_SHARE = 0.002, 0.05
"""Added time (median) that is worth a word: more than this, and more than such a share of the direct time."""
_OF_ONE_ANSWER = re.compile(rb'("(?:id|request_id)"\s*:\s*)"[^"]*"|("created"\s*:\s*)[0-9]+')
"""What differs between two answers to the same question anyway."""
_OF_ONE_CONNECTION = {"date", "connection", "keep-alive", "transfer-encoding", "content-length", "x-request-id"}


def same(name: str, direct: Look, relayed: Look, again: Look) -> Finding:
    """`direct` and `again` asked the server itself, before and after `relayed`."""
    silent = next((look for look in (direct, relayed, again) if isinstance(look, Silence)), None)
    if silent is not None or isinstance(direct, Silence) or isinstance(relayed, Silence) or isinstance(again, Silence):
        reason = silent.reason if silent else ""
        return Finding(name, "unknown", f"no answer: {reason}", "Mend the upstream first, then ask again.")
    if _comparable(direct) == _comparable(relayed):
        shown = f"status {direct.status}, {len(direct.body):,} bytes"
        return Finding(name, "ok", f"{shown}, equal but for ids and times")
    if _comparable(direct) != _comparable(again):
        return Finding(
            name, "unknown", "the server's own answers differ from one time to the next",
            "Nothing to do; asked while the server is idle, they may be equal.",
        )  # fmt: skip
    return Finding(
        name, "broken", f"the relayed answer differs: {_difference(direct, relayed)}",
        "Please report it, with the server's version; until then keep apps on the server itself.",
    )  # fmt: skip


def aborts(seconds: Sequence[float | None]) -> Finding:
    """Time from a client's leaving to the end of the relay's connection to the upstream; None: not within seconds."""
    name = "relay: aborts"
    if not seconds:
        advice = "Look at the server's count of running requests while a client leaves."
        return Finding(name, "unknown", "only tried with an upstream on plain http that streams", advice)
    seen = [one for one in seconds if one is not None]
    if len(seen) < len(seconds):
        advice = "Please report it: the server computes answers that nobody reads."
        return Finding(name, "broken", f"{len(seconds) - len(seen)} of {len(seconds)} never got there", advice)
    found = f"at the upstream after {max(seen) * 1000:.1f} ms at most, of {len(seen)}"
    if max(seen) > ABORT_S:
        return Finding(name, "warning", found, "Is this machine short of CPU? It should take less than 50 ms.")
    return Finding(name, "ok", found)


def overhead(times: Mapping[str, Sequence[float]]) -> Finding:
    """Seconds of requests asked in turns: `direct`, `off` (relayed), `on` (relayed and captured)."""
    name = "relay: overhead"
    if min(map(len, times.values())) < 2:
        return Finding(name, "unknown", "the upstream did not answer", "Mend the upstream first, then ask again.")
    direct = median(times["direct"])
    parts = [f"direct p50 {direct * 1000:.2f} ms"]
    worst = 0.0
    for which in ("off", "on"):
        added = median(times[which]) - direct
        worst = max(worst, added)
        tail = _p99(times[which]) - _p99(times["direct"])
        parts.append(f"capture {which}: p50 {added * 1000:+.2f}, p99 {tail * 1000:+.2f} ms")
    found = f"{'; '.join(parts)} ({len(times['direct'])} requests each)"
    if worst > max(ADDED_S, ADDED_SHARE * direct):
        return Finding(name, "warning", found, "Is this machine short of CPU, or far from the server?")
    return Finding(name, "ok", found)


def verdict(findings: Sequence[Finding]) -> Finding:
    """One sentence that a person can act on."""
    name = "relay: verdict"
    bad = [finding.name for finding in findings if finding.level == "broken"]
    doubtful = [finding.name for finding in findings if finding.level in ("warning", "unknown")]
    if bad:
        advice = "Do not put the relay before apps until that is mended."
        return Finding(name, "broken", f"not transparent here: {', '.join(bad)}", advice)
    if doubtful:
        advice = "Read those lines; nothing speaks against trying it with one app."
        return Finding(name, "warning", f"nothing is broken, in doubt: {', '.join(doubtful)}", advice)
    return Finding(name, "ok", "apps can change their base URL")


def _comparable(look: Look) -> tuple[object, ...]:
    assert not isinstance(look, Silence)
    headers = sorted(
        (name, value)
        for name, value in look.headers.items()
        if name not in _OF_ONE_CONNECTION and not name.startswith("x-spex-")
    )
    return look.status, headers, _OF_ONE_ANSWER.sub(rb"\1\2#", look.body)


def _difference(direct: Look, relayed: Look) -> str:
    (status, headers, body), (other, others, their) = _comparable(direct), _comparable(relayed)
    if status != other:
        return f"status {other} instead of {status}"
    if headers != others:
        return f"headers {others} instead of {headers}"
    assert isinstance(body, bytes)
    assert isinstance(their, bytes)
    place = next(
        (start for tag, start, *_ in difflib.SequenceMatcher(None, body[:4096], their[:4096]).get_opcodes()
         if tag != "equal"),
        4096,
    )  # fmt: skip
    return f"{len(their)} bytes instead of {len(body)}, from byte {place} on"


def _p99(times: Sequence[float]) -> float:
    return quantiles(times, n=100, method="inclusive")[98]
