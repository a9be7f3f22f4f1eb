"""Exports: what is cut short is known to be, by any client that reads to the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest

from spex_proxy.facts.errors import UpstreamError
from spex_proxy.web import api_query
from tests.contract.api.serving import Api
from tests.contract.api.test_client import by_async, by_sync

SINCE = {"since": "2000-01-01T00:00:00Z"}
Ask = Callable[..., Any]
both_forms = pytest.mark.parametrize("ask", [by_sync, by_async], ids=["sync", "async"])


@pytest.fixture
def stopping(api: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """The server wants to end, and a page has one row."""
    monkeypatch.setattr(api_query, "EXPORT_PAGE", 1)
    api.behind.is_stopping = True
    yield api
    api.behind.is_stopping = False


def test_a_server_that_stops_leaves_the_body_without_its_end(stopping: Api) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
        stopping.get("/exchanges.jsonl", **SINCE)


def test_the_last_page_is_an_end_while_the_server_stops_too(stopping: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_query, "EXPORT_PAGE", 200)
    assert len(stopping.get("/exchanges.jsonl", **SINCE).text.splitlines()) == 5


def test_a_store_that_fails_in_the_middle_is_no_end_either(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows_of(*given: Any) -> Any:
        if given[-1] is not None:
            raise RuntimeError("the second page can't be read")
        return [{"id": "first"}], "more"

    monkeypatch.setattr(api_query, "rows_of", rows_of)
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
        api.get("/exchanges.jsonl", **SINCE)


@both_forms
def test_the_client_raises_where_an_export_breaks_off(stopping: Api, ask: Ask) -> None:
    with pytest.raises(UpstreamError, match=r"exchanges\.jsonl: the answer broke off"):
        ask(stopping.url, "export", "exchanges", **SINCE)


class Broken(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Two whole lines, then nothing more, and no end."""

    def __iter__(self) -> Iterator[bytes]:
        yield b'{"id": 1}\n{"id": 2}\n'
        raise httpx.ReadError("connection reset")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk


@both_forms
def test_a_connection_that_dies_between_two_lines_is_an_error_after_these(ask: Ask) -> None:
    transport = httpx.MockTransport(lambda _request: httpx.Response(200, stream=Broken()))
    with pytest.raises(UpstreamError, match="the answer broke off: connection reset"):
        ask("http://x", "export", "exchanges", http=transport, **SINCE)


@both_forms
def test_events_that_break_off_are_asked_again_and_then_said(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spex_proxy.client.policy.PAUSE_S", 0.01)
    opened: list[int] = []

    def transport(_request: httpx.Request) -> httpx.Response:
        opened.append(1)
        return httpx.Response(200, stream=Silent())

    with pytest.raises(UpstreamError, match="the events of job x broke off"):
        ask("http://x", "follow", "x", http=httpx.MockTransport(transport))
    assert len(opened) == 4


class Silent(Broken):
    def __iter__(self) -> Iterator[bytes]:
        yield from ()
        raise httpx.ReadError("connection reset")
