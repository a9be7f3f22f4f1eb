"""Server-sent events, decoded from bytes that arrive in any pieces.

The rules are those of the HTML standard: lines end at CRLF, LF or CR and nowhere
else (text may hold U+2028 and other "line breaks" of Python's splitlines), a line
that begins with a colon is a comment, several `data` lines join with LF, a blank
line ends the event, an event without data is none. Data stays bytes: a character
split over two chunks is then no special case.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from spex_proxy.facts.errors import BadReply

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BOM = b"\xef\xbb\xbf"
DEFAULT_MAX_EVENT_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its data, and its type (empty unless the server named one)."""

    data: bytes
    type: bytes = b""


class SseDecoder:
    """Feed it chunks, get events. Holds at most one unfinished event, and that is bounded."""

    def __init__(self, max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._held = 0
        self._line: list[bytes] = []
        self._data: list[bytes] = []
        self._type = b""
        self._skip_lf = False
        self._at_start = True

    @property
    def is_between_events(self) -> bool:
        """Whether nothing is held: a stream that ends now has lost nothing."""
        return not (self._line or self._data)

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that this chunk completes.

        Raises BadReply when one event grows over the bound; what was held is let go.
        """
        if self._skip_lf and chunk:
            # The CR that ended the last chunk has ended its line already; this LF belongs to it.
            chunk = chunk.removeprefix(b"\n")
            self._skip_lf = False
        *ended, rest = _LINE_END.split(chunk)
        events = [event for line in ended if (event := self._end_line(line)) is not None]
        if rest:
            self._hold(rest, self._line)
        elif chunk.endswith(b"\r"):
            self._skip_lf = True
        return events

    def _end_line(self, tail: bytes) -> Event | None:
        line = b"".join(self._line) + tail
        self._held -= len(line) - len(tail)
        self._line.clear()
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._end_event()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._hold(value, self._data)
        elif name == b"event":
            self._type = value
        return None

    def _end_event(self) -> Event | None:
        event = Event(b"\n".join(self._data), self._type) if self._data else None
        self._let_go()
        return event

    def _hold(self, piece: bytes, pieces: list[bytes]) -> None:
        self._held += len(piece) + 1  # empty data lines count too: they cost memory as well
        pieces.append(piece)
        if self._held > self._max:
            self._line.clear()
            self._let_go()
            raise BadReply(f"one server-sent event is longer than {self._max} bytes")

    def _let_go(self) -> None:
        self._data.clear()
        self._type = b""
        self._held = 0
