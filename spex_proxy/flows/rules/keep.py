"""The rules in force: read at the start, read again when the file changes, kept when a new version has an error."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from spex_proxy.facts.errors import SettingsError
from spex_proxy.facts.rules import RuleBook
from spex_proxy.ports.counters import Counters

_LOG = logging.getLogger(__name__)

Stamp = tuple[int, int, int]
"""Inode, size, time of change: an editor changes at least one of them."""


class RulesInForce:
    """`book` may be read from any thread at any time. `start()` begins to look at the file, `close()` ends it."""

    def __init__(
        self,
        load: Callable[[], RuleBook],
        path: Path | None,
        counters: Counters,
        on_new: Callable[[RuleBook], None],
        poll_s: float = 1.0,
    ) -> None:
        """Raises SettingsError if the file makes no sense now: better no proxy than one with rules nobody wrote."""
        self._load = load
        self._path = path
        self._counters = counters
        self._on_new = on_new
        self._poll_s = poll_s
        self._stamp = _stamp(path)
        self.book = load()
        self.trouble: str | None = None
        """Why the file's newest version is not in force; None if it is."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="spex-rules", daemon=True)
        counters.watch("rules_stale", lambda: self.trouble is not None)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> bool:
        """Read the file if it changed; whether other rules are in force now. Raises nothing."""
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            book = self._load()
        except SettingsError as error:
            self.trouble = f"the rules were not changed, the old ones ({self.book.digest[:15]}) hold: {error}"
            self._counters.add("rules_loaded", "refused")
            _LOG.error("%s", self.trouble)
            return False
        self.trouble = None
        is_new = book.digest != self.book.digest
        self.book = book
        if is_new:
            self._counters.add("rules_loaded", "accepted")
            _LOG.info("new rules are in force: %d of the file, %s", len(book.rules) - 1, book.digest[:15])
            self._on_new(book)
        return is_new

    def _watch(self) -> None:
        self._safely(lambda: self._on_new(self.book))
        while not self._closing.wait(self._poll_s):
            self._safely(self.look)

    def _safely(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception:  # noqa: BLE001 - a bug here must not end the looking, nor the relay
            self._counters.add("faults", "rules")
            _LOG.exception("looking at the rules failed; those in force hold")


def _stamp(path: Path | None) -> Stamp | None:
    """None for a file that is not there: it being gone is a change too."""
    if path is None:
        return None
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
