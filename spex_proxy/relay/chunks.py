"""Chunked bodies (RFC 9112, 7.1), strictly: where they end, and what is in them. Pure."""

from __future__ import annotations

import re

from spex_proxy.relay.heads import BadMessage, passing_trailers

_MOST_HELD = 16 * 1024
"""Of a chunk's size line, or of a trailer section."""
# `int` alone would take `+5`, `0x5` and `5_0`.
_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})(?:[\t ]*;[\t\x20-\x7e\x80-\xff]*)?")
_END = b"\r\n"


class Chunks:
    """One chunked body, fed in any pieces."""

    __slots__ = ("_held", "_in_trailers", "_left", "trailers")

    def __init__(self) -> None:
        self._left = 0
        """Of the current chunk's data and the CR LF behind it."""
        self._held = b""
        """The beginning of a size line or of the trailer section."""
        self._in_trailers = False
        self.trailers = b""
        """After the end: the lines of the trailer section."""

    def feed(self, data: bytes, payloads: list[bytes] | None = None) -> int:
        """Read on; chunk data is appended to `payloads` if that is wanted.

        Returns -1 while the body goes on, else how many bytes of `data` belong to it. Raises BadMessage.
        """
        before = len(self._held)
        if before:
            data, self._held = self._held + data, b""
        position, end = 0, len(data)
        while position < end:
            if self._left:
                position = self._pass(data, position, payloads)
            elif self._in_trailers:
                after = self._end_of_trailers(data, position)
                return after if after < 0 else after - before
            else:
                line_end = data.find(_END, position)
                if line_end < 0:
                    self._hold(data[position:])
                    break
                self._begin(data, position, line_end)
                position = line_end + 2
        return -1

    @property
    def waiting(self) -> int:
        """Bytes of the trailer section that have come, while it is not whole."""
        return len(self._held) if self._in_trailers else 0

    def passing(self, data: bytes, end: int, waited: int) -> bytes:
        """Of what was just fed, with what came of it and what was `waiting` before, the bytes that may go on: chunks as
        they are; the trailer section once it is whole, but for lines that may not pass. Raises BadMessage."""
        if end < 0:
            return data[: max(0, len(data) - self.waiting)] if self._in_trailers else data
        if not waited and not self.trailers:
            return data if end == len(data) else data[:end]
        begins = end - (len(self.trailers) + len(_END) - waited)
        return data[:begins] + (passing_trailers(self.trailers) if self.trailers else b"") + _END

    def _pass(self, data: bytes, position: int, payloads: list[bytes] | None) -> int:
        """Step over chunk data and its CR LF, as far as they are here."""
        step = min(self._left, len(data) - position)
        inside = min(step, self._left - 2) if self._left > 2 else 0
        stop = position + step
        if inside < step:
            first = 2 - (self._left - inside)
            if data[position + inside : stop] != _END[first : first + step - inside]:
                raise BadMessage("a chunk that is longer or shorter than it says")
        if inside and payloads is not None:
            payloads.append(data[position : position + inside])
        self._left -= step
        return stop

    def _begin(self, data: bytes, position: int, line_end: int) -> None:
        found = _SIZE.fullmatch(data, position, line_end)
        if found is None or line_end - position > _MOST_HELD:
            raise BadMessage("a chunk size that is not a plain hexadecimal number")
        size = int(found[1], 16)
        if size:
            self._left = size + 2
        else:
            self._in_trailers = True

    def _end_of_trailers(self, data: bytes, position: int) -> int:
        if data.startswith(_END, position):
            return position + 2
        end = data.find(b"\r\n\r\n", position)
        if end < 0 or end - position > _MOST_HELD:
            self._hold(data[position:])
            return -1
        self.trailers = data[position : end + 2]
        return end + 4

    def _hold(self, rest: bytes) -> None:
        if len(rest) > _MOST_HELD:
            raise BadMessage("a chunk's size line or a trailer section that is too long")
        self._held = rest
