"""The way to spex_proxy: one thread, a bounded queue before it, every loss counted and told with the next exchange.

What is offered is never waited for. Where spex_proxy does not answer, it is asked again while the queue fills; what
has no room then is lost. Whatever it does answer is its last word: what it drops, it counts itself.
"""

from __future__ import annotations

import http.client
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from spex_proxy_vllm.handing import Finished, pack

PATH = "/spex/handover"
PATIENCE_S = 10.0
PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Between two tries; the last one again and again."""
TELL_EVERY_S = 60.0
"""In the log."""
_LOG = logging.getLogger("spex_proxy_vllm")


@dataclass(frozen=True, slots=True)
class Way:
    """Where exchanges go, and how many bytes may wait."""

    url: str
    """`http://HOST:PORT` or `https://HOST:PORT`: spex_proxy's second port."""
    key: str = field(repr=False)
    most_bytes: int = 64 << 20
    """All that is watched or waits, together."""
    most_of_one: int = 8 << 20
    """An exchange, request and answer together."""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Way | None:
        """None without a key."""
        key = environment.get("SPEX_HANDOVER_KEY")
        return cls(environment.get("SPEX_HANDOVER_URL", "http://127.0.0.1:8081"), key) if key else None


class Sender:
    """`take` and `give_back` bytes, `offer` what is finished; then `close`."""

    def __init__(self, way: Way) -> None:
        self.way = way
        self._waiting: queue.SimpleQueue[Finished | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._lost: Counter[str] = Counter()
        self._held = 0
        self._closing = threading.Event()
        self._deadline = float("inf")
        self._thread: threading.Thread | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._told_at = float("-inf")

    def take(self, size: int) -> bool:
        """Whether so many bytes more may be held; `give_back` returns them."""
        with self._lock:
            if self._held + size > self.way.most_bytes:
                return False
            self._held += size
            return True

    def give_back(self, size: int) -> None:
        with self._lock:
            self._held -= size

    def lose(self, reason: str, count: int = 1) -> None:
        """Something is not handed over."""
        with self._lock:
            self._lost[reason] += count
        if time.monotonic() - self._told_at > TELL_EVERY_S:
            self._told_at = time.monotonic()
            _LOG.warning("not handed to spex_proxy at %s: %s", self.way.url, dict(self._lost))

    def offer(self, finished: Finished) -> None:
        """Takes it with the bytes that were taken for it. Never waits."""
        if self._closing.is_set():
            self.give_back(finished.size)
            self.lose("shutdown")
            return
        if self._thread is None:  # not before: a process that forks takes no thread along
            self._thread = threading.Thread(target=self._run, name="spex-handover", daemon=True)
            self._thread.start()
        self._waiting.put(finished)

    def close(self, within_s: float) -> None:
        """Hand over what waits, for so long at most."""
        self._deadline = time.monotonic() + within_s
        self._closing.set()
        self._waiting.put(None)
        if self._thread is not None:
            self._thread.join(within_s + 1)

    # ---- the thread

    def _run(self) -> None:
        while (finished := self._waiting.get()) is not None:
            try:
                self._hand_over(finished)
            except Exception:  # noqa: BLE001 - a bug costs one exchange, never the thread
                _LOG.exception("an exchange was not handed over")
                self.lose("fault")
            self.give_back(finished.size)
        self._drop()

    def _hand_over(self, finished: Finished) -> None:
        """Until there is an answer, or no time left."""
        tries = 0
        while time.monotonic() < self._deadline:
            with self._lock:
                told = +self._lost
            status = self._post(pack(finished, told))
            if status is not None and status < 500:
                if 200 <= status < 300:
                    with self._lock:
                        self._lost -= told
                else:
                    _LOG.debug("spex_proxy answered %d", status)
                    self.lose("refused")
                return
            pause = PAUSES_S[min(tries, len(PAUSES_S) - 1)]
            self._closing.wait(pause) if not self._closing.is_set() else time.sleep(min(pause, 0.2))
            tries += 1
        self.lose("shutdown")

    def _post(self, payload: bytes) -> int | None:
        """The answer's status; None if there was none."""
        headers = {"authorization": f"Bearer {self.way.key}", "content-type": "application/octet-stream"}
        try:
            if self._connection is None:
                self._connection = connection(self.way.url)
            self._connection.request("POST", PATH, payload, headers)
            answer = self._connection.getresponse()
            answer.read()
            if answer.will_close:
                self._drop()
            return answer.status
        except (OSError, http.client.HTTPException):
            self._drop()
            return None

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def connection(url: str) -> http.client.HTTPConnection:
    """Raises ValueError for an address that is none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"SPEX_HANDOVER_URL must be http://HOST:PORT or https://HOST:PORT, not {url!r}")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname, parts.port, timeout=PATIENCE_S)
