"""A scripted model server whose time is spent as an engine spends it: in steps that all running requests share.

    python -m bench.interference.engine --port 9000 --policy priority

A step takes a fixed time and a time for each token in it: one for each stream that runs, the prompts of those that
begin, up to a budget. So a masked query lengthens every step that it takes part in, for everybody, which is what the
gate is there to prevent; and a queue is worked off by priority or by arrival. There is no model: a stream says `word`
so many times, a mask is worth a sum over its tokens. No prefix cache: each mask is read whole, the worst case.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import re
import socket
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import numpy as np
import uvloop

from bench.interference.stamps import Stamps
from spex_proxy_vllm import PROTOCOL
from spex_proxy_vllm.asked import Asked, read
from spex_proxy_vllm.presence import Presence
from spex_proxy_vllm.scoring import Answer, lines

STEP_S = 0.004
TOKEN_S = 0.000_02
"""Of a step: 4 ms, and 20 microseconds for each token in it. A small model on a large card."""
BUDGET = 2048
"""Tokens of a step."""
MODEL = "scripted"
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_PIECE = re.compile(r"\s*\S+|\s+")
_COMMON = b"HTTP/1.1 200 OK\r\nserver: scripted\r\n"
_STREAM_HEAD = _COMMON + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_LINES_HEAD = _COMMON + b"content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"
_EVENT = (
    b'data: {"id":"chatcmpl-s","object":"chat.completion.chunk","created":1,"model":"scripted","choices":'
    b'[{"index":0,"delta":{"content":"%b"},"finish_reason":%b}]}\n\n'
)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_WORD = chunk(_EVENT % (b" word", b"null"))
_END = chunk(_EVENT % (b"", b'"stop"')) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


@dataclass(slots=True, eq=False)
class Work:
    """One request in the engine."""

    prompt: int
    """Tokens of its prompt that are still to be read."""
    words: int
    """Still to be said."""
    priority: int
    connection: Connection | None = None
    done: asyncio.Event | None = None
    is_gone: bool = False


@dataclass(slots=True)
class Engine:
    """The steps. `prompt_tokens` counts what was read for requests that came to their first token, as vLLM does."""

    by_priority: bool
    stamps: Stamps
    production: Presence = field(default_factory=Presence)
    waiting: list[Work] = field(default_factory=list)
    running: list[Work] = field(default_factory=list)
    prompt_tokens: int = 0
    steps: int = 0
    _stepped_at: float = field(default_factory=time.monotonic)
    _awake: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, work: Work) -> Work:
        self.waiting.append(work)
        self._awake.set()
        return work

    def load(self) -> dict[str, Any]:
        """As our plugin tells it."""
        ours = [work for work in (*self.waiting, *self.running) if work.done is not None and not work.is_gone]
        engine = {
            "engine": 0, "step": self.steps, "running": len(self.running), "waiting": len(self.waiting),
            "kv_usage": 0.1, "age_s": round(time.monotonic() - self._stepped_at, 3),
        }  # fmt: skip
        return {"own": len(ours), "engines": [engine], "yields": True}

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self.waiting and not self.running:
                self._awake.clear()
                await self._awake.wait()
            tokens = self._begin()
            ends = loop.time() + STEP_S + TOKEN_S * tokens
            await asyncio.sleep(max(0.0, ends - loop.time()))
            self._end()
            self.steps, self._stepped_at = self.steps + 1, time.monotonic()

    def _begin(self) -> int:
        """Take requests into the step; how many tokens it has."""
        self.running = [work for work in self.running if not work.is_gone]
        self.waiting = [work for work in self.waiting if not work.is_gone]
        if self.by_priority:
            self.waiting.sort(key=lambda work: work.priority)  # stable: then by arrival
        tokens = sum(work.prompt or 1 for work in self.running)
        while self.waiting and tokens + self.waiting[0].prompt <= BUDGET:
            work = self.waiting.pop(0)
            tokens += work.prompt
            self.running.append(work)
        return tokens

    def _end(self) -> None:
        left = []
        for work in self.running:
            if work.is_gone:
                continue
            if work.prompt:
                self.prompt_tokens += work.prompt
                work.prompt = 0
            if work.done is not None:
                work.done.set()
                continue
            work.words -= 1
            assert work.connection is not None
            work.connection.say(_WORD if work.words else _WORD + _END, is_last=not work.words)
            if work.words:
                left.append(work)
        self.running = left

    async def ask(self, prompt: list[int], asked: Asked, *, whole: bool) -> Answer:  # noqa: ARG002 - there is no cache
        """For our plugin's own code."""
        work = self.add(Work(len(prompt) + len(asked.output_ids), 0, asked.priority, done=asyncio.Event()))
        size = work.prompt
        with self.stamps.query():
            try:
                assert work.done is not None
                await work.done.wait()
            finally:
                work.is_gone = True
        value = -2.0 - float(np.sum(np.asarray(prompt) % 97)) / (97 * len(asked.ids))
        return Answer(np.full(len(asked.output_ids), value, dtype=np.float32), size, 0)


class Tokenizer:
    """Words for tokens, numbered as they come."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._pieces: list[str] = []

    def pieces(self, text: str) -> list[str]:
        return _PIECE.findall(text)

    def ids(self, text: str) -> list[int]:
        for piece in self.pieces(text):
            if piece not in self._ids:
                self._ids[piece] = len(self._pieces)
                self._pieces.append(piece)
        return [self._ids[piece] for piece in self.pieces(text)]

    def text(self, ids: Sequence[int]) -> str:
        return "".join(self._pieces[number] for number in ids)


def rendered(body: dict[str, Any]) -> str:
    if "messages" not in body:
        return str(body["prompt"])
    return "".join(f"<{m['role']}> {m['content']}\n" for m in body["messages"]) + "<assistant>"


class Connection(asyncio.Protocol):
    """Answers one request after the other."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer) -> None:
        self._engine, self._tokenizer, self._stamps = engine, tokenizer, engine.stamps
        self._held = b""
        self._work: Work | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, _: Exception | None) -> None:
        if self._work is not None:
            self._work.is_gone = True
            self._ended()
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        held = self._held = self._held + data
        end = held.find(b"\r\n\r\n")
        if end < 0:
            return
        found = _LENGTH.search(held, 0, end + 2)
        size = end + 4 + (int(found[1]) if found else 0)
        if len(held) >= size:
            self._held = held[size:]
            self._answer(held[:end].split(b" ", 2)[1].decode(), held[end + 4 : size])

    def say(self, data: bytes, *, is_last: bool) -> None:
        self._transport.write(data)
        if is_last:
            self._ended()

    def _ended(self) -> None:
        self._work = None
        self._engine.production.went()

    def _answer(self, path: str, raw: bytes) -> None:
        if path == "/v1/spex/score":
            self._transport.write(_LINES_HEAD)
            self._task = asyncio.get_running_loop().create_task(self._score(raw))
            return
        body = json.loads(raw) if raw else {}
        if path == "/v1/chat/completions" and body.get("stream"):
            self._transport.write(_STREAM_HEAD)
            size = len(self._tokenizer.pieces(rendered(body)))
            self._engine.production.came()
            self._work = Work(size, int(body.get("max_tokens", 16)), int(body.get("priority", 0)), self)
            asyncio.get_running_loop().call_later(self._stamps.hold_s, self._engine.add, self._work)
            return
        status, told = self._plain(path, body)
        said = told if isinstance(told, bytes) else json.dumps(told).encode()
        head = b"HTTP/1.1 %d As It Is\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._transport.write(head % (status, len(said)) + said)

    async def _score(self, raw: bytes) -> None:
        async for line in lines(read(raw), self._engine, self._engine.production):
            self._transport.write(chunk(line))
        self._transport.write(b"0\r\n\r\n")

    def _plain(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        words = self._tokenizer
        if path == "/v1/chat/completions":
            text = " ".join(["word"] * int(body.get("max_tokens", 16)))
            usage = {"prompt_tokens": len(words.ids(rendered(body))), "completion_tokens": len(words.ids(text))}
            said = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            number = zlib.crc32(repr(body).encode())
            return 200, {"id": f"chatcmpl-{number}", "model": MODEL, "choices": [said], "usage": usage}
        if path == "/v1/chat/completions/render":
            ends = np.cumsum([0, *map(len, words.pieces(rendered(body)))]).tolist()
            offsets = list(pairwise(ends))
            return 200, {"token_ids": words.ids(rendered(body)), "token_offsets": offsets}
        if path == "/tokenize":
            pieces = [piece.replace(" ", "Ġ").replace("\n", "Ċ") for piece in words.pieces(rendered(body))]
            return 200, {"tokens": words.ids(rendered(body)), "token_strs": pieces}
        if path == "/metrics":
            return 200, self._metrics()
        plain = {
            "/version": {"version": "0.32.0"},
            "/health": {},
            "/v1/models": {"data": [{"id": MODEL, "max_model_len": 4096}]},
            "/stamps": self._stamps.events,
            "/v1/spex/load": {"plugin": "0", "protocol": PROTOCOL} | self._engine.load(),
            "/detokenize": {"prompt": words.text(body.get("tokens", []))},
        }
        return (200, plain[path]) if path in plain else (404, {"error": {"message": "Not Found"}})

    def _metrics(self) -> bytes:
        told = {
            "vllm:num_requests_waiting": len(self._engine.waiting),
            "vllm:kv_cache_usage_perc": 0.1,
            "vllm:prompt_tokens_total": self._engine.prompt_tokens,
            "vllm:prompt_tokens_cached_total": 0,
        }
        kinds = {name: "counter" if name.endswith("_total") else "gauge" for name in told}
        parts = [
            f'# TYPE {name} {kinds[name]}\n{name}{{model_name="{MODEL}"}} {value}\n' for name, value in told.items()
        ]
        return "".join(parts).encode()


async def serve(port: int, *, by_priority: bool, hold_s: float) -> None:
    engine, tokenizer = Engine(by_priority, Stamps(hold_s)), Tokenizer()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(engine, tokenizer), "127.0.0.1", port)
    async with server:
        await engine.run()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.interference.engine", description=__doc__)
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--policy", choices=("priority", "fcfs"), default="priority")
    parser.add_argument("--hold", type=float, default=0.0, help="ms that a stream waits before the engine hears of it")
    options = parser.parse_args()
    gc.freeze()
    uvloop.run(serve(options.port, by_priority=options.policy == "priority", hold_s=options.hold / 1000))


if __name__ == "__main__":
    main()
