"""A client of raw sockets: sends exact bytes, and says exactly what came back and how it ended."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Self

HOP_BY_HOP = {b"connection", b"keep-alive", b"transfer-encoding"}


@dataclass
class Answer:
    """Status, header lines and body without its framing."""

    status: int = 0
    lines: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    is_whole: bool = False
    """Whether the body ended as its framing promised. False: the client knows that something is missing."""

    def value(self, name: bytes) -> bytes | None:
        return next((v for n, v in self.lines if n == name), None)

    def comparable(self) -> tuple[int, list[tuple[bytes, bytes]], bytes, bool]:
        """What a relayed answer must share with a direct one.

        Left out: hop-by-hop lines, which belong to one connection; our own `x-spex-*` lines;
        the order and casing of lines, the reason phrase and the borders of chunks, none of
        which HTTP lets anybody rely on, and none of which an ASGI server lets us choose.
        """
        lines = [(n, v) for n, v in self.lines if n not in HOP_BY_HOP and not n.startswith(b"x-spex-")]
        return self.status, sorted(lines), self.body, self.is_whole


class RawClient:
    """One connection."""

    def __init__(self, port: int, timeout_s: float = 10.0, *, path: str | None = None) -> None:
        """To a port of loopback, or to the unix socket at `path`."""
        if path is None:
            self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        else:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(timeout_s)
            self._socket.connect(path)
        self._held = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def local_port(self) -> int:
        port: int = self._socket.getsockname()[1]
        return port

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def peek(self) -> bytes:
        """What has come so far, without taking it and without waiting."""
        try:
            return self._held + self._socket.recv(1 << 20, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return self._held

    def stop_sending(self) -> None:
        """Half of a close: answers may still come."""
        self._socket.shutdown(socket.SHUT_WR)

    def leave(self) -> None:
        """Close at once, as a client that crashed or was cancelled does."""
        self._socket.close()

    def read_head(self) -> Answer:
        """The head of the next answer, `100 Continue` and the like included."""
        head = self._read_until(b"\r\n\r\n")
        first, *rest = head.split(b"\r\n")
        lines = [(n.lower(), v.strip()) for n, _, v in (line.partition(b":") for line in rest)]
        return Answer(int(first.split(b" ")[1]), lines)

    def read_answer(self, method: bytes = b"GET") -> Answer:
        """A whole answer, or as much of it as came before the connection broke. Interim ones are passed over."""
        while (answer := self.read_head()).status < 200:
            pass
        try:
            self._read_body(answer, method)
        except ConnectionError:
            pass
        return answer

    def read_chunk(self) -> bytes:
        """One chunk of a chunked body; b"" is the last."""
        size = int(self._read_until(b"\r\n"), 16)
        data = self.read_exactly(size)
        self.read_exactly(2)
        return data

    def _read_body(self, answer: Answer, method: bytes) -> None:
        length = answer.value(b"content-length")
        if method == b"HEAD" or answer.status in (204, 304):
            answer.is_whole = True
        elif answer.value(b"transfer-encoding") == b"chunked":
            while data := self.read_chunk():
                answer.body += data
            answer.is_whole = True
        elif length is not None:
            while len(answer.body) < int(length):
                answer.body += self._take(int(length) - len(answer.body))
            answer.is_whole = True
        else:
            self._read_to_the_end(answer)

    def _read_to_the_end(self, answer: Answer) -> None:
        try:
            while True:
                answer.body += self._take(65536)
        except EndOfStream:
            answer.is_whole = True

    def _read_until(self, mark: bytes) -> bytes:
        while mark not in self._held:
            self._held += self._receive()
        found, _, self._held = self._held.partition(mark)
        return found

    def read_exactly(self, size: int) -> bytes:
        while len(self._held) < size:
            self._held += self._receive()
        found, self._held = self._held[:size], self._held[size:]
        return found

    def _take(self, most: int) -> bytes:
        self._held = self._held or self._receive()
        found, self._held = self._held[:most], self._held[most:]
        return found

    def _receive(self) -> bytes:
        data = self._socket.recv(1 << 20)
        if not data:
            raise EndOfStream("the peer closed the connection")
        return data


class EndOfStream(ConnectionError):
    """The peer closed in good order."""


def ask(port: int, request: bytes) -> Answer:
    """One request on a connection of its own."""
    with RawClient(port) as client:
        client.send(request)
        return client.read_answer(request.split(b" ", 1)[0])


def request(method: str, target: str, *lines: str, body: bytes | None = None) -> bytes:
    """The bytes of a request. The order of lines is kept; a body brings its length."""
    head = [f"{method} {target} HTTP/1.1", "Host: proxy.example", *lines]
    if body is not None:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + (body or b"")


def chat_request(body: bytes, *lines: str) -> bytes:
    return request("POST", "/v1/chat/completions", "Content-Type: application/json", *lines, body=body)
