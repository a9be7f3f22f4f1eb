"""Which requests are watched and explained: the two draws, the header, the ids."""

from __future__ import annotations

import dataclasses
import uuid

import pytest

from spex_proxy.facts.exchange import Exchange, RequestHead
from spex_proxy.flows.relay import (
    Capture,
    Sampler,
    Verdict,
    Watcher,
    draw,
    explain_wish,
    may_be_watched,
    new_request_id,
)
from spex_proxy.wire.chat import parse
from spex_proxy.wire.tap import Tap, TapBudget, TapLimits
from tests.unit.wire.exchanges import head, raw, reply, said

IDS = [f"id-{n}" for n in range(4000)]
DRAWN = 0.9446735465844637
SAMPLER = Sampler(0.25, 0.1, b"secret")


def asked(wish: bytes | None = None, request_id: str = "id-1") -> RequestHead:
    headers = ((b"x-spex-explain", wish),) if wish is not None else ()
    return dataclasses.replace(head(headers=headers), id=request_id)


def exchange(request_id: str) -> Exchange:
    understood = parse(raw(answer=reply(said("Hello"))))
    assert isinstance(understood, Exchange)
    return dataclasses.replace(understood, id=request_id)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/chat/completions", True),
        ("POST", "/v1/completions", True),
        ("GET", "/v1/chat/completions", False),
        ("POST", "/v1/chat/completions/batch", False),
        ("POST", "/v1/responses", False),
    ],
)
def test_which_requests_can_be_understood(method: str, path: str, expected: bool) -> None:
    assert may_be_watched(method, path) is expected
    asked_for = dataclasses.replace(head(path), method=method)
    assert (Sampler(1.0, 1.0, b"s").consider(asked_for) is not None) is expected


def test_draws_depend_on_secret_id_and_purpose_only() -> None:
    assert draw(b"s", "id", "capture") == draw(b"s", "id", "capture")
    assert len({draw(b"s", "id", "capture"), draw(b"s", "id", "explain"), draw(b"t", "id", "capture")}) == 3
    # Fixed for good: a replica of another version, or an auditor, must come to the same number.
    assert draw(b"secret", "id-1", "capture") == pytest.approx(DRAWN, abs=1e-15)


def test_draws_are_uniform_and_independent() -> None:
    captured = {i for i in IDS if draw(b"s", i, "capture") < 0.25}
    explained = {i for i in IDS if draw(b"s", i, "explain") < 0.25}
    # 5 standard deviations of a fair draw; the ids are fixed, so this can't fail by chance.
    assert abs(len(captured) - 1000) < 5 * (4000 * 0.25 * 0.75) ** 0.5
    assert abs(len(captured & explained) - 250) < 5 * (4000 * 0.0625 * 0.9375) ** 0.5


def test_capture_follows_its_rate_and_says_so() -> None:
    kept = [SAMPLER.consider(asked(request_id=i)) for i in IDS]
    assert sum(c is not None for c in kept) == sum(draw(b"secret", i, "capture") < 0.25 for i in IDS)
    assert {c for c in kept if c is not None} == {Capture(0.25, None)}


def test_explaining_follows_its_rate_and_says_so() -> None:
    verdicts = [SAMPLER.choose(exchange(i), None) for i in IDS[:500]]
    chosen = sum(draw(b"secret", i, "explain") < 0.1 for i in IDS[:500])
    assert 0 < chosen < 500
    assert verdicts.count(Verdict(True, "sampled", 0.1)) == chosen
    assert verdicts.count(Verdict(False, "not_sampled", 0.1)) == 500 - chosen


@pytest.mark.parametrize(("rate", "expected"), [(0.0, 0), (1.0, 500)])
def test_rates_of_nothing_and_everything_are_exact(rate: float, expected: int) -> None:
    sampler = Sampler(rate, rate, b"secret")
    assert sum(sampler.consider(asked(request_id=i)) is not None for i in IDS[:500]) == expected
    assert sum(sampler.choose(exchange(i), None).explain for i in IDS[:500]) == expected


@pytest.mark.parametrize(
    ("value", "wish"),
    [(None, None), (b"yes", True), (b" YES ", True), (b"no", False), (b"maybe", None), (b"\xff", None)],
)
def test_what_the_header_says(value: bytes | None, wish: bool | None) -> None:
    assert explain_wish(asked(value)) is wish


def test_yes_forces_capture_and_explaining() -> None:
    never = Sampler(0.0, 0.0, b"secret")
    assert never.consider(asked(b"yes")) == Capture(1.0, True)
    assert never.choose(exchange("id-1"), True) == Verdict(True, "header", 1.0)


def test_no_forbids_explaining_and_leaves_capture_to_its_draw() -> None:
    always = Sampler(1.0, 1.0, b"secret")
    assert always.consider(asked(b"no")) == Capture(1.0, False)
    assert always.choose(exchange("id-1"), False) == Verdict(False, "header", 0.0)
    assert Sampler(0.0, 1.0, b"secret").consider(asked(b"no")) is None


def test_the_watcher_hands_out_taps() -> None:
    watcher = Watcher(Sampler(1.0, 0.0, b"s"), TapLimits(), TapBudget(1000), lambda _: True)
    assert isinstance(watcher.consider(asked()), Tap)
    assert Watcher(Sampler(0.0, 0.0, b"s"), TapLimits(), TapBudget(1000), lambda _: True).consider(asked()) is None


def test_the_secret_does_not_show() -> None:
    assert "secret" not in repr(SAMPLER)


def test_ids_are_uuids_of_version_7_that_sort_by_time() -> None:
    ids = [new_request_id() for _ in range(2000)]
    assert len(set(ids)) == 2000
    parsed = [uuid.UUID(i) for i in ids]
    assert all(u.version == 7 and u.variant == uuid.RFC_4122 and str(u) == i for u, i in zip(parsed, ids, strict=True))
    # By time, to a quarter of a microsecond: compare what lies before the random bits.
    times = [u.int >> 64 for u in parsed]
    assert times == sorted(times)
