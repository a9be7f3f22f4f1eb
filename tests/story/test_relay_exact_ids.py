"""A rule with `exact_token_ids`: the upstream is asked for ids, the client gets what it would have got without."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spex_proxy.facts.exchange import RawExchange
from spex_proxy.wire.tap import TapLimits
from tests.story.raw_client import RawClient, ask, chat_request, request
from tests.story.running import Proxy, relay
from tests.story.upstream import LAST_CHUNK, RESET, Seen, Step, Upstream, answer, chunk, eventually, stream_head

WISH = b"return_token_ids"
BODY = b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}'
STREAMED = BODY[:-1] + b', "stream": true}'


def event(text: str, ids: list[int] | None, *, first: bool = False) -> bytes:
    said = {"choices": [{"index": 0, "delta": {"content": text}, "token_ids": ids}]}
    if first:
        said["prompt_token_ids"] = [1, 2, 3] if ids is not None else None  # type: ignore[assignment] # JSON
    return b"data: " + json.dumps(said, ensure_ascii=False).encode() + b"\n\n"


def events(has_ids: bool) -> bytes:
    def ids(*some: int) -> list[int] | None:
        return list(some) if has_ids else None

    return b"".join(
        [event("", ids(), first=True), event("Grüße, ", ids(5, 6)), event("世界", ids(7)), b"data: [DONE]\n\n"]
    )


def whole(has_ids: bool) -> bytes:
    said = {"id": "chatcmpl-1", "prompt_token_ids": [1, 2, 3] if has_ids else None, "choices": []}
    return json.dumps(said).encode()


def model(cuts: Sequence[int] = ()) -> object:
    """Answers as vLLM does: with ids if it is asked for them. A stream is cut into chunks at `cuts`."""

    async def respond(seen: Seen) -> Sequence[Step]:
        has_ids = WISH in seen.body
        if b'"stream": true' not in seen.body:
            return [answer(whole(has_ids))]
        stream, places = events(has_ids), sorted(set(cuts))
        pieces = [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True) if stream[a:b]]
        return [stream_head(), *map(chunk, pieces), LAST_CHUNK]

    return respond


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture(scope="module")
def exact(upstream: Upstream) -> Iterator[Proxy]:
    with relay(upstream.url, exact_token_ids=True) as proxy:
        yield proxy


@pytest.mark.parametrize("body", [BODY, STREAMED], ids=["json", "stream"])
def test_the_client_gets_what_it_would_have_got_and_we_get_the_ids(
    upstream: Upstream, exact: Proxy, body: bytes
) -> None:
    upstream.answers_by(model())  # type: ignore[arg-type] # a Respond
    direct, relayed = ask(upstream.port, chat_request(body)), ask(exact.port, chat_request(body))
    assert relayed.body == direct.body
    assert WISH not in relayed.body
    assert WISH in upstream.requests[-1].body
    assert WISH not in upstream.requests[-2].body
    eventually(lambda: any(one.request_body == body for one in exact.outcomes if isinstance(one, RawExchange)))
    (seen,) = [one for one in exact.outcomes if isinstance(one, RawExchange) and one.request_body == body]
    assert b"[1, 2, 3]" in seen.response_body
    if body is BODY:
        assert relayed.comparable() == direct.comparable()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, len(events(True)) - 1), max_size=12))
def test_any_chunking_gives_the_same_events(upstream: Upstream, exact: Proxy, cuts: list[int]) -> None:
    upstream.answers_by(model(cuts))  # type: ignore[arg-type] # a Respond
    assert ask(exact.port, chat_request(STREAMED)).body == events(has_ids=False)


def test_a_request_in_chunks_stays_one(upstream: Upstream, exact: Proxy) -> None:
    upstream.answers_by(model())  # type: ignore[arg-type] # a Respond
    head = request("POST", "/v1/chat/completions", "content-type: application/json", "transfer-encoding: chunked")
    with RawClient(exact.port) as client:
        client.send(head + chunk(BODY[:10]) + chunk(BODY[10:]) + LAST_CHUNK)
        assert client.read_answer("POST").body == whole(has_ids=False)
    seen = upstream.requests[-1]
    assert seen.values(b"transfer-encoding") == [b"chunked"]
    assert json.loads(seen.body)["return_token_ids"] is True


def test_a_body_that_is_too_long_to_hold_goes_as_it_is(upstream: Upstream) -> None:
    upstream.answers_by(model())  # type: ignore[arg-type] # a Respond
    long = BODY.replace(b"Hi", b"x" * 200_000)
    with relay(upstream.url, exact_token_ids=True, limits=TapLimits(1000, 1000)) as proxy:
        assert ask(proxy.port, chat_request(long)).body == whole(has_ids=False)
    assert upstream.requests[-1].body == long


def test_an_error_passes_as_it_is(upstream: Upstream, exact: Proxy) -> None:
    upstream.answers(answer(b'{"error": {"message": "no"}}', status="400 Bad Request"))
    direct, relayed = ask(upstream.port, chat_request(BODY)), ask(exact.port, chat_request(BODY))
    assert relayed.comparable() == direct.comparable()


def test_an_upstream_that_breaks_off_before_its_answer_is_whole_gives_an_honest_error(
    upstream: Upstream, exact: Proxy
) -> None:
    half = answer(whole(has_ids=True))
    upstream.answers(half[:-10], RESET)
    relayed = ask(exact.port, chat_request(BODY))
    assert relayed.status == 502
    assert b"upstream_disconnected" in relayed.body
    eventually(lambda: upstream.live == 0)


def test_a_connection_serves_further_requests(upstream: Upstream, exact: Proxy) -> None:
    upstream.answers_by(model())  # type: ignore[arg-type] # a Respond
    with RawClient(exact.port) as client:
        for body in (BODY, STREAMED, BODY):
            client.send(chat_request(body))
            got = client.read_answer("POST").body
            assert got == (events(has_ids=False) if body is STREAMED else whole(has_ids=False))
