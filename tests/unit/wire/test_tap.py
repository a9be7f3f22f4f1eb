"""The tap: keeps what it saw, within its bounds, and lets go at once when it may not."""

from __future__ import annotations

import pytest

from spex_proxy.facts.exchange import RawExchange, Skipped
from spex_proxy.wire.tap import CHUNK_OVERHEAD, SKIP_REASONS, Ending, Tap, TapBudget, TapLimits
from tests.unit.wire.exchanges import head

LIMITS = TapLimits(request_bytes=100 + CHUNK_OVERHEAD, answer_bytes=200 + 2 * CHUNK_OVERHEAD)


def tap(budget: TapBudget | None = None) -> Tap:
    return Tap(head(), LIMITS, budget or TapBudget(10_000), 0.25, True)


def test_what_was_seen_is_handed_on() -> None:
    budget = TapBudget(10_000)
    seen = tap(budget)
    seen.request_chunk(b"ask")
    seen.response_start(200, ((b"Content-Type", b"a/b"),))
    seen.response_chunk(b"answer ", 0.5)
    seen.response_chunk(b"in two", 0.75)
    assert budget.held == len(b"askanswer in two") + 3 * CHUNK_OVERHEAD
    assert seen.finish("complete", 1.0) == RawExchange(
        head=seen.head,
        request_body=b"ask",
        status=200,
        response_headers=((b"content-type", b"a/b"),),
        response_body=b"answer in two",
        first_byte_s=0.5,
        duration_s=1.0,
        capture_probability=0.25,
        explain_wish=True,
    )
    assert budget.held == 0


def test_limits_are_met_exactly() -> None:
    seen = tap()
    seen.request_chunk(b"x" * 100)
    seen.response_start(200, ())
    seen.response_chunk(b"y" * 100, 0.1)
    seen.response_chunk(b"y" * 100, 0.1)
    assert isinstance(seen.finish("complete", 1.0), RawExchange)


def test_a_request_that_is_too_large_is_let_go_at_once() -> None:
    budget = TapBudget(10_000)
    seen = tap(budget)
    seen.request_chunk(b"x" * 50)
    seen.request_chunk(b"x" * 51)
    assert budget.held == 0
    seen.response_start(200, ())
    seen.response_chunk(b"y", 0.1)
    assert budget.held == 0
    assert seen.finish("complete", 1.0) == Skipped("id-1", "too_large_request")


def test_an_answer_that_is_too_large_is_let_go_at_once() -> None:
    budget = TapBudget(10_000)
    seen = tap(budget)
    seen.request_chunk(b"x")
    seen.response_start(200, ())
    seen.response_chunk(b"y" * 150, 0.1)
    seen.response_chunk(b"y" * 150, 0.2)
    assert budget.held == 0
    assert seen.finish("complete", 1.0) == Skipped("id-1", "too_large_answer")


def test_tiny_chunks_count_for_what_they_cost() -> None:
    seen = tap()
    for _ in range(10):
        seen.request_chunk(b"x")
    assert seen.finish("complete", 1.0) == Skipped("id-1", "too_large_request")


def test_all_taps_share_one_budget() -> None:
    budget = TapBudget(200)
    first, second = tap(budget), tap(budget)
    first.request_chunk(b"x" * 100)
    second.request_chunk(b"x" * 100)
    assert second.finish("complete", 1.0) == Skipped("id-1", "memory_full")
    assert budget.held == 100 + CHUNK_OVERHEAD
    assert first.finish("client_gone", 1.0) == Skipped("id-1", "client_gone")
    assert budget.held == 0


def test_an_error_is_let_go_when_its_status_is_known() -> None:
    budget = TapBudget(10_000)
    seen = tap(budget)
    seen.request_chunk(b"x")
    seen.response_start(500, ())
    assert budget.held == 0
    assert seen.finish("complete", 1.0) == Skipped("id-1", "upstream_error")


@pytest.mark.parametrize("ending", ["client_gone", "upstream_broken", "upstream_unreachable", "stopped"])
def test_what_is_not_complete_is_skipped(ending: Ending) -> None:
    seen = tap()
    seen.request_chunk(b"x")
    assert seen.finish(ending, 1.0) == Skipped("id-1", ending)
    assert ending in SKIP_REASONS


def test_reasons_are_sentences_for_people() -> None:
    assert all(text.endswith(".") and "\n" not in text for text in SKIP_REASONS.values())


STREAM = ((b"Content-Type", b"text/event-stream; charset=utf-8"),)


@pytest.mark.parametrize(
    ("headers", "chunks", "is_whole"),
    [
        (STREAM, [b"data: {}\n\n", b"data: [DONE]\n\n"], True),
        (STREAM, [b"data: {}\n\ndata: [DO", b"NE]\n\n"], True),
        (STREAM, [b"data: {}\n\n"], False),
        (STREAM, [b"data: {}\n\nevent: message_stop\n", b'data: {"type":"message_stop"}\n\n'], True),
        (STREAM, [b"event: response.completed\ndata: {", b"}", b"\n", b"\n"], True),
        (STREAM, [b"event: response.completed\ndata: {", b"}\n"], False),
        (STREAM, [b"event: message_delta\ndata: {}\n\n"], False),
        (STREAM, [b'data: {"content": "data: [DONE]"}\n\n'], False),
        (((b"content-length", b"6"),), [b"ans", b"wer"], True),
        (((b"content-length", b"7"),), [b"ans", b"wer"], False),
        ((), [b"answer"], False),
    ],
)
def test_who_leaves_with_the_whole_answer_is_kept(
    headers: tuple[tuple[bytes, bytes], ...], chunks: list[bytes], is_whole: bool
) -> None:
    seen = tap()
    seen.request_chunk(b"ask")
    seen.response_start(200, headers)
    for number, chunk in enumerate(chunks):
        seen.response_chunk(chunk, float(number))
    outcome = seen.finish("client_gone", 9.0)
    assert isinstance(outcome, RawExchange) == is_whole
    assert is_whole or outcome == Skipped(seen.head.id, "client_gone")
