"""One request and its answer: what ties a client's connection to an upstream's.

It is driven from both sides by callbacks, without a task of its own, and ends exactly once:
`_over` counts the outcome, hands on what was watched and sets both connections free.
"""

from __future__ import annotations

import logging

from spex_proxy.ports.load_board import Pulse
from spex_proxy.relay.answers import DISCONNECTED, INVALID, RELAY_FAULT, TARGET, OwnAnswer, answer_for
from spex_proxy.relay.bystander import Bystander, watch
from spex_proxy.relay.caller import Caller
from spex_proxy.relay.heads import CHUNKED, TO_THE_END, BadMessage, Request, Response, pairs
from spex_proxy.relay.held import Held
from spex_proxy.relay.house import House
from spex_proxy.relay.rewritten import Rewritten
from spex_proxy.relay.upstream import Upstream
from spex_proxy.wire.tap import Ending

_LOG = logging.getLogger(__name__)

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# Sent twice they do no harm (RFC 9110, 9.2.1); a POST is never sent again once a byte of it left.
_SAFE_METHODS = frozenset((b"GET", b"HEAD", b"OPTIONS"))
_MOST_WAITING = 256 * 1024
"""Bytes of a body that may wait for the connection to the upstream."""


class Exchange:
    """Begins when the request's head is complete."""

    __slots__ = (
        "_beside", "_follows", "_head_down", "_head_up", "_held", "_house", "_is_over", "_is_retried", "_keeps_client",
        "_outcome", "_pulse", "_response", "_rewritten", "_waiting", "_waiting_size", "_wraps", "body_complete",
        "client", "request", "upstream", "wants_payloads",
    )  # fmt: skip

    def __init__(self, house: House, client: Caller, request: Request) -> None:
        self._house = house
        self.client: Caller = client
        self.request = request
        self.upstream: Upstream | None = None
        self.body_complete = not request.length
        """Whether the client has sent all of its request."""
        self._response: Response | None = None
        """Once its head has gone to the client, or is about to."""
        self._head_up = self._head_down = b""
        """A head whose body begins in the same read: both leave in one write. The event loop makes a system call
        of each write, and that is the largest part of what a small exchange costs."""
        self._follows = False
        self._waiting: list[bytes] = []
        self._waiting_size = 0
        self._wraps = False
        """Whether a body that came without a length goes on in chunks."""
        self._keeps_client = request.keep_alive
        self._is_retried = self._is_over = False
        self._outcome = ""
        self._pulse: Pulse | None = None
        """None for what costs the model nothing."""
        self._beside: Bystander | None = None
        self._held: Held | None = None
        """Under durable hand-off: the client, as far as it waits."""
        self._rewritten: Rewritten | None = None
        """None nearly always: bytes pass as they are."""
        self.wants_payloads = not request.minor

    def begin(self, *, follows: bool = False) -> None:
        """`follows`: `send_body` is called next, with what came behind the head."""
        self._follows = follows
        request = self.request
        # Joined to a path before it, `*` or `host:port` would become another target.
        if not request.target.startswith(b"/"):
            self._answer_ourselves(TARGET, "upstream_unreachable")
            return
        if self._house.board is not None and request.method == b"POST":
            self._pulse = self._house.board.arrived()
        self._beside = watch(self._house.watcher, self._house.counters, request)
        if self._beside is not None:
            self.wants_payloads = True
            if self._house.watcher.hold is not None:
                self.client = self._held = Held(self.client, self._house.watcher.hold, self._house.counters)
            if self._beside.rewriter is not None:
                self._rewritten = Rewritten(self._beside.rewriter, request)
                if self.body_complete:
                    self._rewritten.gather(b"", b"", is_last=True)
                elif request.expects_continue:
                    self.client.write(_CONTINUE)
        # a connection that is taken early may be closed, as idle, while a body is gathered
        if self._rewritten is None or self._rewritten.is_ready:
            self._house.pool.acquire(self)

    # ---- the way up

    def connected(self, upstream: Upstream) -> None:
        if self._is_over:  # the client has left meanwhile
            self._house.pool.release(upstream)
            return
        self.upstream = upstream
        upstream.serve(self)
        if self.client.is_full:
            upstream.set_reading(False)
        is_expecting = self.request.expects_continue and not self.body_complete and self._rewritten is None
        if is_expecting and not self._waiting:
            self.client.write(_CONTINUE)
        self._send_up(upstream)

    def _send_up(self, upstream: Upstream) -> None:
        address, rewritten = upstream.replica.address, self._rewritten
        head = self.request.bytes_for(address.prefix, address.authority)
        if rewritten is not None:
            self._waiting = rewritten.up + self._waiting
            head = rewritten.head(head)
            if rewritten.is_passing:
                self._rewritten = None
        if self._follows and not self._waiting:
            self._head_up = head
        else:
            upstream.write(b"".join([head, *self._waiting]))
        if self._waiting_size > _MOST_WAITING:
            self.client.pause_upload(False)
        self._waiting.clear()

    def not_connected(self, error: BaseException) -> None:
        if not self._is_over:
            own = answer_for(error)
            if own is RELAY_FAULT:
                self._note_fault(error)
            self._answer_ourselves(own, "upstream_unreachable")

    def send_body(self, wire: bytes, payload: bytes) -> None:
        """A piece of the request's body: framed for the upstream, and what is in it."""
        rewritten, self._follows, is_whole = self._rewritten, False, False
        if rewritten is not None and not rewritten.is_ready:
            is_whole = rewritten.gather(wire, payload, is_last=self.body_complete)
        elif self.upstream is not None:
            head, self._head_up = self._head_up, b""
            self.upstream.write(head + wire if head else wire)
        else:
            self._waiting.append(wire)
            was, self._waiting_size = self._waiting_size, self._waiting_size + len(wire)
            if was <= _MOST_WAITING < self._waiting_size:
                self.client.pause_upload(True)
        if self._beside is not None and payload:
            self._beside.request_chunk(payload)
        if is_whole:
            self._house.pool.acquire(self)

    def pause_upload(self, wanted: bool) -> None:
        self.client.pause_upload(wanted)

    # ---- the way down

    def interim(self, response: Response) -> None:
        """1xx. We have answered `Expect` ourselves, and HTTP/1.0 knows no interim answers."""
        if response.status != 100 and self.request.minor:
            self.client.write(b"HTTP/1.1 %d%b%b\r\n\r\n" % (response.status, response.reason, response.passing))

    def answer_started(self, response: Response, *, follows: bool) -> None:
        if self._rewritten is None or self._rewritten.begins(response):
            self._write_head(response)
            if not follows or self._rewritten is not None or self._held is not None or not self.request.minor:
                self._write_down(b"")
        if self._beside is not None:
            self._beside.response_start(response.status, pairs(response.block))

    def _write_head(self, response: Response) -> None:
        self._response = response
        keeps = self._keeps_client and self.body_complete and not self._house.is_draining
        framing = b""
        if response.length in (CHUNKED, TO_THE_END):
            if self.request.minor:
                framing = b"\r\nTransfer-Encoding: chunked"
                self._wraps = response.length == TO_THE_END or self._rewritten is not None
            else:
                keeps = False
        self._keeps_client = keeps
        if not keeps:
            framing += b"\r\nConnection: close"
        elif not self.request.minor:
            framing += b"\r\nConnection: keep-alive"
        if self._beside is not None:
            framing += b"\r\nx-spex-request-id: " + self._beside.request_id.encode("ascii")
        self._head_down = b"HTTP/1.1 %d%b%b%b\r\n\r\n" % (response.status, response.reason, response.passing, framing)

    def _write_down(self, data: bytes) -> None:
        """To the client, behind the answer's head if that still waits."""
        head, self._head_down = self._head_down, b""
        self.client.write(head + data if head else data)

    def answer_ending(self) -> None:
        if self._held is not None:
            self._held.begin()

    def _hold_end(self, data: bytes) -> None:
        """Clients leave at a stream's last event: under durable hand-off it waits, with all that follows."""
        if self._held is not None and self._beside is not None and self._beside.sees_end(data):
            self._held.begin()

    def answer_plain(self, data: bytes) -> None:
        if self._pulse is not None:
            self._pulse.beat()
        self._hold_end(data)
        if self._rewritten is None:
            self._write_down(data)
        else:
            self._write_rewritten(*self._rewritten.feed(data))
        if self._beside is not None:
            self._beside.response_chunk(data)

    def answer_to_the_end(self, data: bytes) -> None:
        if self._pulse is not None:
            self._pulse.beat()
        self._hold_end(data)
        if self._rewritten is None:
            self._write_framed(data)
        else:
            self._write_rewritten(*self._rewritten.feed(data))
        if self._beside is not None:
            self._beside.response_chunk(data)

    def answer_chunks(self, raw: bytes, payloads: list[bytes] | None) -> None:
        """`raw` is a piece of a chunked body, `payloads` what is in it, if that is wanted."""
        if self._pulse is not None:
            self._pulse.beat()
        if self._held is not None and payloads:
            self._hold_end(b"".join(payloads))
        if self._rewritten is not None:
            for payload in payloads or ():
                self._write_rewritten(*self._rewritten.feed(payload))
        elif self.request.minor:
            self._write_down(raw)
        elif payloads:
            self.client.write(b"".join(payloads))
        if self._beside is not None and payloads:
            for payload in payloads:
                self._beside.response_chunk(payload)

    def _write_rewritten(self, head: Response | None, data: bytes) -> None:
        if head is not None:
            self._write_head(head)
            self._write_down(b"")
        if data:
            self._write_framed(data)

    def _write_framed(self, data: bytes) -> None:
        self._write_down(b"%x\r\n%b\r\n" % (len(data), data) if self._wraps else data)

    def answer_ended(self, *, reusable: bool) -> None:
        upstream, self.upstream = self.upstream, None
        assert upstream is not None
        self.answer_ending()
        if self._rewritten is not None:
            self._write_rewritten(*self._rewritten.finish())
        assert self._response is not None
        if self._wraps:
            self.client.write(b"0\r\n\r\n")
        if reusable and self.body_complete:
            self._house.pool.release(upstream)
        else:
            self._house.pool.drop(upstream, at_once=not self.body_complete)
        self._over(f"{self._response.status // 100}xx", "complete", keeps=self._keeps_client)

    # ---- tunnels

    def switch_protocols(self, response: Response, first: bytes) -> None:
        if not self.request.upgrades or response.upgrade is None:
            raise BadMessage("a switch of protocols that nobody asked for")
        self.client.become_tunnel(
            b"HTTP/1.1 101%b%b\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n%b"
            % (response.reason, response.passing, response.upgrade, first)
        )

    def tunnel_to_client(self, data: bytes) -> None:
        self.client.write(data)

    def tunnel_to_upstream(self, data: bytes) -> None:
        if self.upstream is not None:
            self.upstream.write(data)

    def tunnel_closed(self) -> None:
        """Either side has closed; what is on its way still arrives."""
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            self._house.pool.drop(upstream, at_once=False)
        self._over("1xx", "complete", keeps=False)

    # ---- bad ends

    def client_gone(self) -> None:
        self._cut("client_gone", "client_gone")

    def stop(self) -> None:
        """The proxy's deadline for stopping has come."""
        self._cut("stopped", "stopped")

    def bad_body(self, own: OwnAnswer) -> None:
        """The client's chunks can't be read; nothing after them can be either."""
        self._drop_upstream()
        self._answer_ourselves(own, "client_gone")

    def upstream_lost(self) -> None:
        """The upstream's connection ended before its answer did."""
        upstream = self.upstream
        if upstream is not None and self._may_ask_again(upstream):
            self._is_retried = True
            self._drop_upstream()
            self._house.pool.acquire(self, fresh=True)
            return
        self._drop_upstream()
        self._answer_ourselves(DISCONNECTED, "upstream_unreachable")

    def upstream_invalid(self, why: str) -> None:
        _LOG.warning("the upstream sent %s", why)
        self._drop_upstream()
        self._answer_ourselves(INVALID, "upstream_unreachable")

    def fault(self, error: BaseException) -> None:
        self._note_fault(error)
        self._drop_upstream()
        self._answer_ourselves(RELAY_FAULT, "upstream_unreachable")

    def _may_ask_again(self, upstream: Upstream) -> bool:
        was_stale = upstream.idle_since > 0 and not upstream.has_said_something
        is_safe = self.request.method in _SAFE_METHODS and not self.request.length
        return was_stale and is_safe and not self._is_retried

    def _note_fault(self, error: BaseException) -> None:
        self._house.counters.add("faults", "relay")
        _LOG.error("relaying failed", exc_info=error)

    def _answer_ourselves(self, own: OwnAnswer, ending: Ending) -> None:
        """An error of ours; or, where an answer has begun, a break that the client sees."""
        if self._is_over:
            return
        if self._response is not None:
            if self._head_down:
                self._write_down(b"")
            self.client.break_off(framed=self._wraps or self._ends_by_itself(self._response))
            self._over("upstream_broken", "upstream_broken", keeps=False)
            return
        keeps = self._keeps_client and self.body_complete and not self._house.is_draining and self.request.minor == 1
        self.client.write(own.to_bytes(closes=not keeps, is_head=self.request.method == b"HEAD"))
        self._over(own.code, ending, keeps=keeps)

    def _ends_by_itself(self, response: Response) -> bool:
        """Whether the client can tell a whole answer from a half one. HTTP/1.0 is given no chunks: there the
        connection's end is the answer's."""
        return response.length >= 0 or (response.length == CHUNKED and self.request.minor == 1)

    def _cut(self, outcome: str, ending: Ending) -> None:
        self._drop_upstream()
        self._over(outcome, ending, keeps=False)

    def _drop_upstream(self) -> None:
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            self._house.pool.drop(upstream, at_once=True)

    def _over(self, outcome: str, ending: Ending, *, keeps: bool) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._waiting.clear()
        self._head_up = b""
        if self._pulse is not None:
            self._pulse.end()
        self._house.counters.add("relayed_requests", outcome)
        is_kept_first = self._beside is not None and self._beside.finish(ending, self._held)
        if self._held is not None and not is_kept_first:
            self._held.let_go()
        self.client.exchange_over(keeps=keeps)
