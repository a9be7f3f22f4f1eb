"""Which requests are watched and explained: the two draws, the rules, the header, the ids."""

from __future__ import annotations

import dataclasses
import hmac
import uuid
from typing import Any

import pytest

from spex_proxy.facts.exchange import Exchange, RawExchange, RequestHead
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.rules import Rule, RuleBook, When
from spex_proxy.flows.relay import (
    Callers,
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
from spex_proxy.wire.exact_ids import ExactIds
from spex_proxy.wire.tap import Tap, TapBudget, TapLimits
from tests.unit.wire.exchanges import head, raw, reply, said

IDS = [f"id-{n}" for n in range(4000)]
DRAWN = 0.9446735465844637


def rule(capture: float, explain: float, when: When | None = None, **more: Any) -> Rule:
    return Rule(more.pop("name", "default"), when or When(), capture, explain, Recipe(), **more)


def sampler(*rules: Rule, secret: bytes = b"secret", callers: Callers | None = None) -> Sampler:
    book = RuleBook("sha256:book", rules)
    return Sampler(lambda: book, secret, callers or Callers(everybody=True))


DEFAULT = rule(0.25, 0.1)
SAMPLER = sampler(DEFAULT)


def asked(wish: bytes | None = None, request_id: str = "id-1", key: bytes | None = None) -> RequestHead:
    headers = ((b"x-spex-explain", wish),) if wish is not None else ()
    headers += ((b"x-spex-key", key),) if key is not None else ()
    return dataclasses.replace(head(headers=headers), id=request_id)


def exchange(request_id: str) -> Exchange:
    understood = parse(raw(answer=reply(said("Hello"))))
    assert isinstance(understood, Exchange)
    return dataclasses.replace(understood, id=request_id)


def seen(request_id: str = "id-1", probability: float = 1.0, wish: bool | None = None) -> RawExchange:
    given = raw(answer=reply(said("Hello")))
    given = dataclasses.replace(given, head=dataclasses.replace(given.head, id=request_id))
    return dataclasses.replace(given, capture_probability=probability, explain_wish=wish)


def verdict(by: Sampler, request_id: str, probability: float = 1.0, wish: bool | None = None) -> Verdict:
    return by.choose(seen(request_id, probability, wish), exchange(request_id))


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/chat/completions", True),
        ("POST", "/v1/completions", True),
        ("POST", "/v1/responses", True),
        ("POST", "/v1/messages", True),
        ("GET", "/v1/chat/completions", False),
        ("POST", "/v1/chat/completions/batch", False),
        ("POST", "/v1/messages/count_tokens", False),
    ],
)
def test_which_requests_can_be_understood(method: str, path: str, expected: bool) -> None:
    assert may_be_watched(method, path) is expected
    asked_for = dataclasses.replace(head(path), method=method)
    assert (sampler(rule(1.0, 1.0)).consider(asked_for) is not None) is expected


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
    verdicts = [verdict(sampler(rule(1.0, 0.1)), i) for i in IDS[:500]]
    chosen = sum(draw(b"secret", i, "explain") < 0.1 for i in IDS[:500])
    assert 0 < chosen < 500
    assert [v.why for v in verdicts if v.explain] == ["sampled"] * chosen
    assert [v.why for v in verdicts if not v.explain] == ["not_sampled"] * (500 - chosen)
    assert {(v.probability, v.capture_probability, v.is_kept, v.rules_digest) for v in verdicts} == {
        (0.1, 1.0, True, "sha256:book")
    }


@pytest.mark.parametrize(("rate", "expected"), [(0.0, 0), (1.0, 500)])
def test_rates_of_nothing_and_everything_are_exact(rate: float, expected: int) -> None:
    by = sampler(rule(rate, rate))
    assert sum(by.consider(asked(request_id=i)) is not None for i in IDS[:500]) == expected
    assert sum(verdict(by, i).explain for i in IDS[:500]) == expected


@pytest.mark.parametrize(
    ("value", "wish"),
    [(None, None), (b"yes", True), (b" YES ", True), (b"no", False), (b"maybe", None), (b"\xff", None)],
)
def test_what_the_header_says(value: bytes | None, wish: bool | None) -> None:
    assert explain_wish(asked(value)) is wish


def test_yes_forces_capture_and_explaining() -> None:
    never = sampler(rule(0.0, 0.0))
    assert never.consider(asked(b"yes")) == Capture(1.0, True)
    forced = verdict(never, "id-1", wish=True)
    assert (forced.explain, forced.why, forced.probability, forced.is_kept) == (True, "header", 1.0, True)
    assert forced.capture_probability == 1.0


def test_no_forbids_explaining_and_leaves_capture_to_its_draw() -> None:
    always = sampler(rule(1.0, 1.0))
    assert always.consider(asked(b"no")) == Capture(1.0, False)
    refused = verdict(always, "id-1", wish=False)
    assert (refused.explain, refused.why, refused.probability) == (False, "header", 0.0)
    assert sampler(rule(0.0, 1.0)).consider(asked(b"no")) is None


def test_what_cannot_be_explained_is_not_chosen_even_if_it_is_wished() -> None:
    stuck = dataclasses.replace(exchange("id-1"), obstacle="tool_calls")
    for wish in (None, True):
        found = sampler(rule(1.0, 1.0)).choose(seen(wish=wish), stuck)
        assert (found.explain, found.why, found.probability) == (False, "cannot_explain_tool_calls", 0.0)


@pytest.mark.parametrize(
    ("callers", "key", "obeyed"),
    [
        (Callers(everybody=True), None, True),
        (Callers(key=b"word"), b"word", True),
        (Callers(key=b"word"), b"wor", False),
        (Callers(key=b"word"), None, False),
        (Callers(), b"", False),
        (Callers(), None, False),
    ],
)
def test_who_may_use_the_header(callers: Callers, key: bytes | None, obeyed: bool) -> None:
    by = sampler(rule(0.0, 0.0), callers=callers)
    assert (by.consider(asked(b"yes", key=key)) is not None) is obeyed
    counted: list[tuple[str, str]] = []
    watcher = Watcher(by, TapLimits(), TapBudget(1000), lambda _: True, lambda *what: counted.append(what))
    watcher.consider(asked(b"yes", key=key))
    assert counted == ([] if obeyed else [("refused_overrides", "")])
    assert "word" not in repr(callers)


MINE = rule(0.5, 1.0, When(model=("mine",)), name="mine")
SOME_USER = rule(0.9, 0.0, When(header=(("x-team", ("legal",)),)), name="legal")


def test_a_request_is_watched_if_any_rule_may_still_capture_it() -> None:
    by = sampler(MINE, DEFAULT)
    watched = [i for i in IDS if by.consider(asked(request_id=i))]
    assert watched == [i for i in IDS if draw(b"secret", i, "capture") < 0.5]
    assert by.consider(asked(request_id=watched[0])) == Capture(0.5, None)


def test_each_rule_captures_by_its_own_rate_and_the_probability_says_so() -> None:
    """Watched at 0.5 because the model might have been `mine`; it was not, so a quarter is kept."""
    by = sampler(MINE, DEFAULT)
    for request_id in (i for i in IDS[:400] if by.consider(asked(request_id=i))):
        found = by.choose(seen(request_id, 0.5), exchange(request_id))
        assert (found.rule, found.capture_probability) == (DEFAULT, 0.25)
        assert found.is_kept == (draw(b"secret", request_id, "capture") < 0.25)
        mine = by.choose(seen(request_id, 0.5), dataclasses.replace(exchange(request_id), model="mine"))
        assert (mine.rule, mine.capture_probability, mine.is_kept) == (MINE, 0.5, True)


def test_rules_that_change_meanwhile_leave_the_lower_rate() -> None:
    assert verdict(sampler(rule(1.0, 0.0)), "id-1", probability=0.25).capture_probability == 0.25
    assert verdict(sampler(rule(0.125, 0.0)), "id-1", probability=0.25).capture_probability == 0.125


def test_a_rule_that_surely_fits_ends_the_search() -> None:
    with_team = dataclasses.replace(head(headers=((b"x-team", b"legal"),)), id="id-1")
    everything = rule(1.0, 1.0)
    low = dataclasses.replace(SOME_USER, capture=0.0)
    assert sampler(low, everything).consider(with_team) is None
    assert sampler(low, everything).consider(asked()) == Capture(1.0, None)


def test_replicas_agree() -> None:
    one, other = sampler(MINE, DEFAULT), sampler(MINE, DEFAULT)
    assert [verdict(one, i) for i in IDS[:50]] == [verdict(other, i) for i in IDS[:50]]


def test_the_watcher_hands_out_taps() -> None:
    watcher = Watcher(sampler(rule(1.0, 0.0)), TapLimits(), TapBudget(1000), lambda _: True)
    tap = watcher.consider(asked())
    assert isinstance(tap, Tap)
    assert tap.rewriter is None
    never = Watcher(sampler(rule(0.0, 0.0)), TapLimits(), TapBudget(1000), lambda _: True)
    assert never.consider(asked()) is None


def test_a_rule_with_exact_token_ids_hands_out_a_rewriter() -> None:
    exact = rule(1.0, 0.0, exact_token_ids=True)
    tap = Watcher(sampler(exact), TapLimits(), TapBudget(1000), lambda _: True).consider(asked())
    assert tap is not None
    assert isinstance(tap.rewriter, ExactIds)


def test_the_secret_does_not_show() -> None:
    assert "b'secret'" not in repr(SAMPLER)


def test_ids_are_uuids_of_version_7_that_sort_by_time() -> None:
    ids = [new_request_id() for _ in range(2000)]
    assert len(set(ids)) == 2000
    parsed = [uuid.UUID(i) for i in ids]
    assert all(u.version == 7 and u.variant == uuid.RFC_4122 and str(u) == i for u, i in zip(parsed, ids, strict=True))
    # By time, to a quarter of a microsecond: compare what lies before the random bits.
    times = [u.int >> 64 for u in parsed]
    assert times == sorted(times)


@pytest.mark.parametrize("secret", [b"", b"spex", b"x" * 64, b"y" * 65, bytes(range(256))])
def test_a_draw_is_the_hmac_that_an_auditor_computes(secret: bytes) -> None:
    digest = hmac.digest(secret, b"capture:some-id", "sha256")
    assert draw(secret, "some-id", "capture") == int.from_bytes(digest[:8], "big") / 2**64


NOBODY_KNOWS = rule(0.125, 0.0, When(output="sorry"), name="sorry")
CHATS = rule(1.0, 0.0, When(path=("/v1/chat/*",)), name="chats")
BOOKS = [(DEFAULT,), (MINE, DEFAULT), (rule(0.0, 0.0),), (CHATS, rule(0.0, 0.0)), (NOBODY_KNOWS, rule(0.0, 0.0))]


@pytest.mark.parametrize("rules", BOOKS)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_passing_by_says_what_considering_would(rules: tuple[Rule, ...], path: str) -> None:
    """Where no rule looks at header lines; so the two never contradict each other, which a replica would see."""
    by = sampler(*rules)
    for request_id in IDS[:400]:
        head_of = dataclasses.replace(asked(request_id=request_id), path=path)
        assert by.passes_by(request_id, path) == (by.consider(head_of) is None)


def test_nothing_passes_by_where_a_rule_looks_at_header_lines() -> None:
    assert not any(sampler(SOME_USER, rule(0.0, 0.0)).passes_by(i, "/v1/completions") for i in IDS[:50])


def test_what_a_header_asks_for_is_looked_at() -> None:
    """The relay asks `passes_by` only of requests without lines of ours; this is why."""
    by = sampler(rule(0.0, 0.0))
    assert by.passes_by("id-1", "/v1/completions")
    assert by.consider(asked(b"yes")) is not None
