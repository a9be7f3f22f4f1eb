"""One client's connection: it reads requests and hands each to an exchange, one at a time."""

from __future__ import annotations

import asyncio
from enum import IntEnum
from typing import cast

from spex_proxy.relay.answers import TOO_LONG, OwnAnswer, bad_request
from spex_proxy.relay.chunks import Chunks
from spex_proxy.relay.exchange import Exchange
from spex_proxy.relay.heads import CHUNKED, BadMessage, cannot_become_a_head, passing_trailers, read_request
from spex_proxy.relay.house import House
from spex_proxy.relay.repeats import Repeats
from spex_proxy.relay.sockets import reset, tune

_MOST_HEAD = 64 * 1024
_MOST_AHEAD = 64 * 1024
"""Bytes of further requests that may wait for the present one to be answered."""


class Reads(IntEnum):
    """What the next bytes of a client's connection are."""

    HEAD = 0
    BODY = 1
    CHUNKS = 2
    NOTHING_YET = 3
    """The request is complete, its answer is not: what comes belongs to the next request."""
    TUNNEL = 4
    THE_REST = 5
    """Nothing of it matters: the last answer is on its way. Closing at once could destroy it, since a
    socket closed with unread bytes resets the connection."""


class Client(asyncio.Protocol):
    """From accepting the connection to its end."""

    __slots__ = (
        "_ahead_paused", "_all", "_chunks", "_exchange", "_heads", "_held", "_house", "_is_reading", "_left",
        "_reads", "_scanned", "_upload_paused", "is_full", "tick", "transport",
    )  # fmt: skip

    def __init__(self, house: House, everybody: set[Client]) -> None:
        """`everybody` is where it is found as long as it lives."""
        self._house = house
        self._all = everybody
        self._exchange: Exchange | None = None
        self._reads = Reads.HEAD
        self._heads = Repeats()
        self._held = b""
        """The beginning of a head; or what came ahead of its time."""
        self._scanned = 0
        """How much of it is known to hold no end of a head."""
        self._left = 0
        self._chunks: Chunks | None = None
        self._is_reading = True
        self._ahead_paused = self._upload_paused = False
        self.is_full = False
        """The client does not read as fast as the upstream writes."""
        self.tick = house.tick
        """When something last happened between two requests."""

    # ---- what the exchange does with it

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def pause_upload(self, wanted: bool) -> None:
        """The upstream does not read as fast as the client writes; or it does again."""
        self._upload_paused = wanted
        self._set_reading()

    def become_tunnel(self, first: bytes) -> None:
        self.write(first)
        self._reads = Reads.TUNNEL
        ahead, self._held, self._ahead_paused = self._held, b"", False
        if ahead:  # at once: what is read next comes behind it
            self._pass_on(ahead)
        self._set_reading()

    def break_off(self, *, framed: bool) -> None:
        """End an answer so that the client sees that something is missing."""
        if framed:
            self.transport.close()  # its framing shows it, once what was sent has arrived
        else:
            reset(self.transport)

    def exchange_over(self, *, keeps: bool) -> None:
        """The exchange has ended; the connection serves the next, or closes."""
        exchange, self._exchange = self._exchange, None
        self.tick = self._house.tick
        self._upload_paused = False
        if self.transport.is_closing():
            return
        if not keeps or self._house.is_draining:
            self._close(all_read=exchange is None or exchange.body_complete)
        else:
            self._reads = Reads.HEAD
            self._take_up_held()
        self._set_reading()

    # ---- what the server does with it

    @property
    def is_idle(self) -> bool:
        """Nothing is asked, and all that was answered has left."""
        return self._exchange is None and not self.transport.get_write_buffer_size()

    def drain(self) -> None:
        """No request follows on this connection; the present one is answered."""
        if self._exchange is None and self._reads is Reads.HEAD:
            self.transport.close()

    def stop(self) -> bool:
        """End at once. Whether a request, or its answer, was cut off by it: then the client sees that."""
        exchange, is_cut = self._exchange, not self.is_idle
        if is_cut:
            reset(self.transport)
        if exchange is not None:
            exchange.stop()
        self.transport.abort()
        return is_cut

    def tidy(self, idle_ticks: int, linger_ticks: int) -> None:
        """Called now and then: close what has been silent for too long."""
        if self._exchange is None:
            age = self._house.tick - self.tick
            if self._reads is Reads.THE_REST and age > linger_ticks:
                self.transport.abort()
            elif age > idle_ticks:
                self.transport.close()

    # ---- what the event loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        tune(transport)
        self._all.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            while data:
                data = _STEPS[self._reads](self, data)
        except BadMessage as trouble:
            self._refuse(bad_request(str(trouble)))
        except Exception as error:  # a bug in here must reach the client as an answer or a break
            if self._exchange is None:
                raise
            self._exchange.fault(error)

    def eof_received(self) -> None:
        """A client that closes and one that only stops sending look the same: both are taken to have left."""
        self._leave()

    def connection_lost(self, _: Exception | None) -> None:
        self._all.discard(self)
        self._leave()

    def pause_writing(self) -> None:
        self.is_full = True
        if self._exchange is not None and self._exchange.upstream is not None:
            self._exchange.upstream.set_reading(False)

    def resume_writing(self) -> None:
        self.is_full = False
        if self._exchange is not None and self._exchange.upstream is not None:
            self._exchange.upstream.set_reading(True)

    def _leave(self) -> None:
        exchange = self._exchange
        if exchange is not None:
            if self._reads is Reads.TUNNEL:
                exchange.tunnel_closed()
            else:
                exchange.client_gone()

    # ---- reading: each step takes bytes and returns those that it left

    def _read_head(self, data: bytes) -> bytes:
        scanned = self._scanned
        if self._held:
            data, self._held, self._scanned = self._held + data, b"", 0
        if data.startswith(b"\r\n"):  # an empty line before a request is overlooked (RFC 9112, 2.2)
            return data[2:]
        end = data.find(b"\r\n\r\n", max(0, scanned - 3))
        if end < 0 or end > _MOST_HEAD:
            self._wait_for_more(data, scanned)
            return b""
        request = self._heads.read(data[: end + 2])
        self._exchange = exchange = Exchange(self._house, self, request)
        self._left = request.length
        if request.length == CHUNKED:
            self._reads, self._chunks = Reads.CHUNKS, Chunks()
        else:
            self._reads = Reads.BODY if request.length else Reads.NOTHING_YET
        rest = data[end + 4 :]
        exchange.begin(follows=bool(rest) and self._reads is Reads.BODY)
        return rest

    def _wait_for_more(self, begun: bytes, scanned: int) -> None:
        """A head has begun; it may take its time, but neither grow without bound nor be wrong already."""
        if len(begun) > _MOST_HEAD:
            self._refuse(TOO_LONG)
            return
        if cannot_become_a_head(begun, max(0, scanned - 1)):
            read_request(begun)  # says why
            raise BadMessage("it does not begin as a request does")
        self.tick = self._house.tick
        self._held, self._scanned = begun, len(begun)

    def _read_body(self, data: bytes) -> bytes:
        rest = b""
        if len(data) > self._left:
            data, rest = data[: self._left], data[self._left :]
        self._left -= len(data)
        assert self._exchange is not None
        if not self._left:
            self._reads = Reads.NOTHING_YET
            self._exchange.body_complete = True
        self._exchange.send_body(data, data)
        return rest

    def _read_chunks(self, data: bytes) -> bytes:
        assert self._chunks is not None
        assert self._exchange is not None
        payloads: list[bytes] = []
        end = self._chunks.feed(data, payloads)
        # framed anew: extensions and odd spellings of sizes go no further
        for payload in payloads:
            self._exchange.send_body(b"%x\r\n%b\r\n" % (len(payload), payload), payload)
        if end < 0:
            return b""
        trailers = passing_trailers(self._chunks.trailers)
        self._reads = Reads.NOTHING_YET
        self._exchange.body_complete = True
        self._exchange.send_body(b"0\r\n%b\r\n" % trailers, b"")
        return data[end:]

    def _keep_for_later(self, data: bytes) -> bytes:
        self._held += data
        if len(self._held) > _MOST_AHEAD:
            self._ahead_paused = True
            self._set_reading()
        return b""

    def _pass_on(self, data: bytes) -> bytes:
        if self._exchange is not None:
            self._exchange.tunnel_to_upstream(data)
        return b""

    def _ignore(self, _: bytes) -> bytes:
        return b""

    def _take_up_held(self) -> None:
        self._ahead_paused = False
        if self._held:
            # from the event loop and not from here: a thousand pipelined requests must not nest a thousand deep
            asyncio.get_running_loop().call_soon(self._resume)

    def _resume(self) -> None:
        held, self._held = self._held, b""
        if held and not self.transport.is_closing():
            self.data_received(held)

    def _set_reading(self) -> None:
        wanted = not (self._ahead_paused or self._upload_paused)
        if wanted != self._is_reading and not self.transport.is_closing():
            self._is_reading = wanted
            self.transport.resume_reading() if wanted else self.transport.pause_reading()

    # ---- ends

    def _refuse(self, own: OwnAnswer) -> None:
        """What was sent can't be a request; or the present one's body can't be read."""
        if self._exchange is not None:
            self._exchange.bad_body(own)
            return
        self._house.counters.add("relayed_requests", own.code)
        self.write(own.to_bytes(closes=True))
        self._close(all_read=False)

    def _close(self, *, all_read: bool) -> None:
        self._held = b""
        if all_read or not self.transport.can_write_eof():
            self.transport.close()
            return
        self._reads = Reads.THE_REST
        self.tick = self._house.tick
        self._ahead_paused = self._upload_paused = False
        self._set_reading()
        self.transport.write_eof()


_STEPS = (
    Client._read_head, Client._read_body, Client._read_chunks, Client._keep_for_later, Client._pass_on, Client._ignore
)  # fmt: skip
"""One for each of Reads. A table of the class, not of each connection: ten thousand may be idle."""
