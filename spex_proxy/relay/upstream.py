"""One connection to an upstream: it reads answers and hands them to the exchange that it serves."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Protocol, cast

from spex_proxy.relay.chunks import Chunks
from spex_proxy.relay.heads import CHUNKED, TO_THE_END, BadMessage, Request, Response, read_response
from spex_proxy.relay.replicas import Replica
from spex_proxy.relay.sockets import tune

_MOST_HEAD = 64 * 1024


class Served(Protocol):
    """The exchange, as an upstream's connection sees it: it is told what comes, as it comes."""

    request: Request
    wants_payloads: bool
    """Whether the data inside chunks is wanted, or the chunks as they are will do."""

    def pause_upload(self, wanted: bool) -> None:
        """The upstream does not read as fast as the client writes; or it does again."""

    def interim(self, response: Response) -> None:
        """A 1xx other than 101."""

    def answer_started(self, response: Response, *, follows: bool) -> None:
        """The head of the answer. `follows`: a piece of its body comes with it, and is told next."""

    def answer_ending(self) -> None:
        """The bytes that follow are the last of a body that says where it ends."""

    def answer_plain(self, data: bytes) -> None:
        """Of a body with a length."""

    def answer_to_the_end(self, data: bytes) -> None:
        """Of a body that ends with the connection."""

    def answer_chunks(self, raw: bytes, payloads: list[bytes] | None) -> None:
        """Of a chunked body: its bytes on the wire, and the data in them."""

    def answer_ended(self, *, reusable: bool) -> None:
        """All of it has come. `reusable`: as far as the upstream is concerned."""

    def switch_protocols(self, response: Response, first: bytes) -> None:
        """A 101, and what came behind it. Raises BadMessage if nobody asked for it."""

    def tunnel_to_client(self, data: bytes) -> None:
        """Bytes of a tunnel."""

    def tunnel_closed(self) -> None:
        """The upstream has closed a tunnel."""

    def upstream_lost(self) -> None:
        """The connection ended before the answer did."""

    def upstream_invalid(self, why: str) -> None:
        """What came is not HTTP."""

    def fault(self, error: BaseException) -> None:
        """A bug of ours."""


class Upstream(asyncio.Protocol):
    """Idle, serving one exchange, or an end of a tunnel."""

    __slots__ = (
        "_chunks", "_forget", "_has_ended", "_held", "_is_paused", "_left", "_poll", "_response",
        "exchange", "has_said_something", "idle_since", "is_tunnel", "replica", "transport",
    )  # fmt: skip

    def __init__(self, forget: Callable[[Upstream], None], replica: Replica) -> None:
        """`forget` is called when the connection ends while it serves nobody."""
        self._forget = forget
        self.replica = replica
        self.exchange: Served | None = None
        self.idle_since = 0.0
        """On the host's monotonic clock; 0 if it never was idle."""
        self.has_said_something = False
        """Whether any byte has come for the present exchange."""
        self.is_tunnel = False
        self._poll = select.poll()
        self._held = b""
        self._response: Response | None = None
        self._left = 0
        self._chunks: Chunks | None = None
        self._is_paused = False
        self._has_ended = False

    # ---- what the pool and the exchange do with it

    def is_usable(self, oldest: float) -> bool:
        return self.idle_since > oldest and not self._has_ended and not self.transport.is_closing()

    def has_something_to_read(self) -> bool:
        """On an idle connection that can only be its end, not yet noticed, or bytes that nobody asked for."""
        return bool(self._poll.poll(0))

    def serve(self, exchange: Served) -> None:
        self.exchange = exchange
        self.has_said_something = False
        self._response = None
        self._held = b""

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def set_reading(self, wanted: bool) -> None:
        """Slow the upstream down, or let it go on."""
        if self._is_paused == wanted and not self.transport.is_closing():
            self._is_paused = not wanted
            self.transport.resume_reading() if wanted else self.transport.pause_reading()

    def close(self) -> None:
        self.exchange = None
        self.transport.close()

    def abort(self) -> None:
        """At once, whatever is still to be written: this is how vLLM learns that it can stop."""
        self.exchange = None
        self.transport.abort()

    # ---- what the event loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._poll.register(tune(transport), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:  # nobody asked
            self.transport.abort()
            return
        try:
            if self.is_tunnel:
                exchange.tunnel_to_client(data)
            elif self._response is None:
                self._read_head(data, exchange)
            else:
                self._read_body(data, self._response, exchange)
        except BadMessage as trouble:
            exchange.upstream_invalid(str(trouble))
        except Exception as error:  # noqa: BLE001 - a bug in here must reach the client as an answer or a break
            exchange.fault(error)

    def eof_received(self) -> None:
        self._has_ended = True
        exchange = self.exchange
        if exchange is None:
            return
        if self.is_tunnel:
            exchange.tunnel_closed()
        elif self._response is not None and self._response.length == TO_THE_END:
            self._end(exchange, reusable=False)

    def connection_lost(self, _: Exception | None) -> None:
        self._has_ended = True
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            self._forget(self)
        elif self.is_tunnel:
            exchange.tunnel_closed()
        else:
            exchange.upstream_lost()

    def pause_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.pause_upload(True)

    def resume_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.pause_upload(False)

    # ---- reading

    def _read_head(self, data: bytes, exchange: Served) -> None:
        self.has_said_something = True
        if self._held:
            data, self._held = self._held + data, b""
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > _MOST_HEAD or not data.startswith(b"HTTP/"[: len(data)]):
                    raise BadMessage("a head that is too long, or not HTTP")
                self._held = data
                return
            response = read_response(data[: end + 2], exchange.request.method)
            data = data[end + 4 :]
            if response.status >= 200:
                break
            if response.status == 101:
                self.is_tunnel = True
                exchange.switch_protocols(response, data)
                return
            exchange.interim(response)
        self._response = response
        self._left = response.length
        self._chunks = Chunks() if response.length == CHUNKED else None
        exchange.answer_started(response, follows=bool(data) and response.length != 0)
        if data or not response.length:
            self._read_body(data, response, exchange)

    def _read_body(self, data: bytes, response: Response, exchange: Served) -> None:
        if self._chunks is not None:
            payloads: list[bytes] | None = [] if exchange.wants_payloads else None
            waited = self._chunks.waiting
            end = self._chunks.feed(data, payloads)
            raw = self._chunks.passing(data, end, waited)
            if end >= 0:
                exchange.answer_ending()
            exchange.answer_chunks(raw, payloads)
            if end >= 0:
                self._end(exchange, reusable=end == len(data))
        elif response.length == TO_THE_END:
            exchange.answer_to_the_end(data)
        else:
            size, left = len(data), self._left
            if size >= left:
                exchange.answer_ending()
            if data and left:
                exchange.answer_plain(data if size <= left else data[:left])
            self._left = max(0, left - size)
            if size >= left:
                self._end(exchange, reusable=size == left)

    def _end(self, exchange: Served, *, reusable: bool) -> None:
        response = self._response
        self.exchange = self._response = None
        self.set_reading(True)
        is_open = response is not None and response.keep_alive and not self._has_ended
        exchange.answer_ended(reusable=reusable and is_open and not self.transport.is_closing())
