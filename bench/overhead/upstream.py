"""The scripted upstream: what a vLLM server says, at the moments that the prompt asks for, without a model.

    python -m bench.overhead.upstream --port 9000

One protocol on uvloop, its answers made beforehand. Peers drop headers and fields that they do not know, none
drops the prompt: so the script stands in it, as `script:first=0,gap=10,events=64,clock=1,tag=x;`

    first   ms before the first byte        gap     ms between events, by a schedule that does not drift
    events  of a stream                     clock   each event says when it was written: `@<monotonic ns>;`
    tag     under which `/seen` tells of an abort

`/seen`: {"live", "answered", "aborts": {tag: monotonic s}, "body": [bytes, sha256] of the newest request}.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import json
import re
import socket
import time
from collections import OrderedDict
from typing import cast

import uvloop

_SCRIPT = re.compile(rb"script:([a-z0-9=,._-]*);")
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream": ?true')
_MOST_TAGS = 1000

_TEXT = "The relay passes every byte of this answer on as it came. " * 9
_WHOLE = json.dumps({
    "id": "chatcmpl-scripted", "object": "chat.completion", "created": 1, "model": "scripted",
    "choices": [{
        "index": 0, "message": {"role": "assistant", "content": _TEXT, "refusal": None, "tool_calls": []},
        "logprobs": None, "finish_reason": "stop", "stop_reason": None, "token_ids": None,
    }],
    "usage": {"prompt_tokens": 250, "completion_tokens": 120, "total_tokens": 370},
}).encode()  # fmt: skip
_EVENT = (
    b'data: {"id":"chatcmpl-scripted","object":"chat.completion.chunk","created":1,"model":"scripted","choices":'
    b'[{"index":0,"delta":{"content":"%b"},"logprobs":null,"finish_reason":%b,"token_ids":null}]}\n\n'
)
_COMMON = b"HTTP/1.1 200 OK\r\nserver: scripted\r\n"
_STREAM_HEAD = _COMMON + b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(body: bytes) -> bytes:
    return _COMMON + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


_ANSWER = whole(_WHOLE)
_WORD = chunk(_EVENT % (b" word", b"null"))
_END = chunk(_EVENT % (b"", b'"stop"')) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Seen:
    """What all connections together know."""

    def __init__(self) -> None:
        self.live = self.answered = 0
        self.aborts: OrderedDict[str, float] = OrderedDict()
        self.body = b""

    def tell(self) -> bytes:
        body = [len(self.body), hashlib.sha256(self.body).hexdigest()]
        told = {"live": self.live, "answered": self.answered, "aborts": self.aborts, "body": body}
        return json.dumps(told).encode()

    def abort(self, tag: str) -> None:
        self.live -= 1
        self.aborts[tag] = time.monotonic()
        if len(self.aborts) > _MOST_TAGS:
            self.aborts.popitem(last=False)


class Connection(asyncio.Protocol):
    """Answers one request after the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seen: Seen) -> None:
        self._loop, self._seen = loop, seen
        self._held = b""
        self._is_busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._tag = ""
        self._left = 0
        self._gap = self._due = 0.0
        self._has_clock = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, _: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._is_busy:
            self._is_busy = False
            self._seen.abort(self._tag)

    def data_received(self, data: bytes) -> None:
        held = self._held = self._held + data if self._held else data
        end = held.find(b"\r\n\r\n")
        if self._is_busy or end < 0:
            return
        found = _LENGTH.search(held, 0, end + 2)
        size = end + 4 + (int(found[1]) if found else 0)
        if len(held) >= size:
            self._held = held[size:]
            self._answer(held[:end], held[end + 4 : size])

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET /seen"):
            self._transport.write(whole(self._seen.tell()))
            return
        if not head.startswith(b"POST"):
            self._transport.write(whole(b'{"object":"list","data":[{"id":"scripted","object":"model"}]}'))
            return
        self._seen.body = body
        self._seen.live += 1
        self._is_busy = True
        at = body.find(b"script:")
        found = _SCRIPT.match(body, at) if at >= 0 else None
        said = dict(pair.partition("=")[::2] for pair in found[1].decode().split(",")) if found else {}
        self._tag = said.get("tag", "")
        first = float(said.get("first", 0)) / 1000
        if _STREAM.search(body, max(0, len(body) - 200)) is None:
            begin = self._all
        else:
            self._left, self._gap = int(said.get("events", 16)), float(said.get("gap", 10)) / 1000
            self._has_clock = said.get("clock") == "1"
            begin = self._begin
        if first:
            self._timer = self._loop.call_later(first, begin)
        else:
            begin()

    def _all(self) -> None:
        self._transport.write(_ANSWER)
        self._done()

    def _begin(self) -> None:
        self._transport.write(_STREAM_HEAD)
        self._due = self._loop.time()
        self._event()

    def _event(self) -> None:
        if self._left <= 0:
            self._transport.write(_END)
            self._done()
            return
        self._left -= 1
        self._transport.write(chunk(_EVENT % (b"@%d;" % time.monotonic_ns(), b"null")) if self._has_clock else _WORD)
        self._due += self._gap
        self._timer = self._loop.call_at(self._due, self._event)

    def _done(self) -> None:
        self._timer = None
        self._is_busy = False
        self._seen.live -= 1
        self._seen.answered += 1
        if self._held:
            self._loop.call_soon(self.data_received, b"")


async def serve(port: int) -> None:
    loop, seen = asyncio.get_running_loop(), Seen()
    server = await loop.create_server(lambda: Connection(loop, seen), "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    gc.freeze()
    try:
        uvloop.run(serve(options.port))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
