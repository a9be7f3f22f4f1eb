"""The relay: one ASGI application, one upstream client. It moves bytes; flows/relay.py decides.

Built to be replaced as a whole (step 4); what must survive is written down as byte tests
over real sockets in tests/story/test_relay_*.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from spex_proxy.facts.errors import SettingsError
from spex_proxy.ports.counters import Counters
from spex_proxy.relay.answers import NO_WEBSOCKETS, TARGET, OwnAnswer, answer_for
from spex_proxy.relay.bystander import Bystander, Watcher
from spex_proxy.relay.headers import to_client, to_upstream, value_of

_LOG = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Message, Receive, Send], Awaitable[None]]

_END = {"type": "http.response.body", "body": b"", "more_body": False}

# aiohttp would add these where the client sent none.
_NOTHING_ADDED = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type", "Content-Length")

# vLLM's server closes connections that were idle for 5 s. Ours must go first: a request sent into a
# connection that the other side is just closing is lost, and a POST can't be sent again.
_IDLE_S = 2.0

_MAX_HEADER_BYTES = 64 * 1024


def make_app(upstream_url: str, watcher: Watcher, counters: Counters, *, connect_timeout_s: float = 10.0) -> AsgiApp:
    """The ASGI application. Its lifespan opens and closes the one upstream session."""
    return Relay(_base_url(upstream_url), watcher, counters, connect_timeout_s)


def _base_url(upstream_url: str) -> str:
    parts = urlsplit(upstream_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(f"the upstream must be http://HOST[:PORT] or https://..., not {upstream_url!r}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise SettingsError("the upstream's address can't hold a user, a password, a query or a fragment")
    return upstream_url.rstrip("/")


class Relay:
    """Every method and path goes to the upstream; the answer comes back as it is."""

    def __init__(self, base: str, watcher: Watcher, counters: Counters, connect_timeout_s: float) -> None:
        self._base = base
        self._watcher = watcher
        self._counters = counters
        self._connect_timeout_s = connect_timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._relay(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1011})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()  # lifespan.startup
        self._session = open_session(self._connect_timeout_s)
        await send({"type": "lifespan.startup.complete"})
        await receive()  # lifespan.shutdown
        await self._session.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _relay(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = tuple(scope["headers"])
        refusal = _refusal(scope)
        if refusal is not None:
            await refusal.send(send)
            self._counters.add("relayed_requests", refusal.code)
            return
        beside = Bystander(self._watcher, self._counters, scope["method"], scope["raw_path"], headers)
        exchange = _Exchange(scope, receive, send, beside, self._counters)
        assert self._session is not None, "the lifespan has opened it"
        outcome = await exchange.run(self._session, self._base)
        self._counters.add("relayed_requests", outcome)


def _refusal(scope: Message) -> OwnAnswer | None:
    """The two kinds of requests that this relay can't pass on."""
    if (value_of(scope["headers"], b"upgrade") or b"").lower() == b"websocket":
        return NO_WEBSOCKETS
    # Joined to the upstream's address, `*@elsewhere/` would become a request to elsewhere.
    return None if scope["raw_path"].startswith(b"/") else TARGET


def open_session(connect_timeout_s: float) -> aiohttp.ClientSession:
    """An upstream client that adds nothing, follows nothing, unpacks nothing and queues nothing."""
    return aiohttp.ClientSession(
        # limit=0: aiohttp's default silently queues request number 101.
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_S),
        # A model may think for an hour: only connecting has a limit.
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=_NOTHING_ADDED,
        auto_decompress=False,
        max_line_size=_MAX_HEADER_BYTES,
        max_field_size=_MAX_HEADER_BYTES,
    )


def _clean_close(answer: aiohttp.ClientResponse) -> asyncio.Future[None] | None:
    """For a body that ends with its connection: fails if that was reset, which aiohttp alone takes for an end."""
    framed = "Content-Length" in answer.headers or "Transfer-Encoding" in answer.headers
    connection = answer.connection
    if framed or connection is None or connection.protocol is None:
        return None
    return connection.protocol.closed


class _ClientGone(Exception):
    """The client left while its request's body was still on its way."""


class _Exchange:
    """One request and its answer.

    The client is watched from the moment its body has been read: `receive()` then returns only
    when it leaves. Leaving cancels the task that relays, wherever that waits, and aiohttp closes
    the upstream connection, which is how vLLM learns that it can stop.
    """

    def __init__(self, scope: Message, receive: Receive, send: Send, beside: Bystander, counters: Counters) -> None:
        self._counters = counters
        self._scope = scope
        self._receive = receive
        self._send = send
        self._beside = beside
        self._started = False
        self._over = False
        self._gone = False
        self._lookout: asyncio.Task[None] | None = None
        self._task = asyncio.current_task()

    async def run(self, session: aiohttp.ClientSession, base: str) -> str:
        """Relay; returns the outcome as it is counted. Raises only if the server itself is stopped."""
        try:
            return await self._relay(session, base)
        except asyncio.CancelledError:
            if not self._gone:
                self._beside.finish("stopped")
                raise
            self._beside.finish("client_gone")
            assert self._task is not None
            self._task.uncancel()
            return "client_gone"
        except Exception as error:  # noqa: BLE001 - every failure must reach the client as an answer or a break
            return await self._fail(error)
        finally:
            self._over = True
            if self._lookout is not None:
                self._lookout.cancel()

    async def _relay(self, session: aiohttp.ClientSession, base: str) -> str:
        scope, beside = self._scope, self._beside
        lines = scope["headers"]
        query = scope["query_string"]
        is_chunked = value_of(lines, b"transfer-encoding") is not None
        target = scope["raw_path"] + b"?" + query if query else scope["raw_path"]
        async with session.request(
            scope["method"],
            URL(base + target.decode("ascii"), encoded=True),
            headers=to_upstream(lines),
            data=await self._body(is_chunked),
            chunked=True if is_chunked else None,
            allow_redirects=False,
        ) as answer:
            await self._start(answer)
            ended_well = _clean_close(answer)
            async for chunk in answer.content.iter_any():
                await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
                beside.response_chunk(chunk)
            if ended_well is not None:
                await ended_well
            # Still inside: leaving waits for the upload, which may itself wait for this end (an early 413).
            self._over = True
            await self._send(_END)
        beside.finish("complete")
        return f"{answer.status // 100}xx"

    async def _start(self, answer: aiohttp.ClientResponse) -> None:
        lines = to_client(answer.raw_headers, answer.status)
        self._beside.response_start(answer.status, tuple(lines))
        if self._beside.request_id is not None:
            lines.append((b"x-spex-request-id", self._beside.request_id.encode("ascii")))
        self._started = True
        await self._send({"type": "http.response.start", "status": answer.status, "headers": lines})

    async def _body(self, is_chunked: bool) -> bytes | AsyncIterator[bytes] | None:
        """The request's body: at once if all of it is here already, else piece by piece."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._leave()
            await asyncio.sleep(0)  # where the cancellation arrives
        body: bytes = message.get("body", b"")
        more: bool = message.get("more_body", False)
        if not more:
            self._look_out()
        if more or is_chunked:
            return self._pieces(body, more)
        self._beside.request_chunk(body)
        return body or None

    async def _pieces(self, piece: bytes, more: bool) -> AsyncIterator[bytes]:
        while True:
            if piece:
                yield piece
                self._beside.request_chunk(piece)
            if not more:
                return
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._leave()
                raise _ClientGone
            piece, more = message.get("body", b""), message.get("more_body", False)
            if not more:
                self._look_out()

    def _look_out(self) -> None:
        self._lookout = asyncio.create_task(self._wait_for_leave())

    async def _wait_for_leave(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        if not self._over:  # after the answer's end, `receive` reports a disconnect as well
            self._over = self._gone = True
            assert self._task is not None
            self._task.cancel()

    async def _fail(self, error: Exception) -> str:
        """No answer, half an answer, or a bug of ours in here."""
        if not isinstance(error, (aiohttp.ClientError, OSError)):
            self._counters.add("faults", "relay")
            _LOG.error("relaying failed", exc_info=error)
        if self._started:
            # Returning without an end makes the server cut the connection: the client must see a broken
            # body where the upstream broke off, never a clean end.
            self._beside.finish("upstream_broken")
            return "upstream_broken"
        self._beside.finish("upstream_unreachable")
        own = answer_for(error)
        self._over = True
        await own.send(self._send)
        return own.code
