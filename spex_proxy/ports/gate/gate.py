"""The gate: waits until background work may ask, and ends what is being asked when production comes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from spex_proxy.facts.load import Gaps, Production, Unseen
from spex_proxy.facts.token_budget import Hours
from spex_proxy.ports.gate.pace import ENOUGH, LEAST, LONGEST_WINDOW_S, WINDOW_S, Batch, Pace
from spex_proxy.ports.gate.rules import (
    Manner,
    ServerLoad,
    closed_by_middleware,
    closed_by_production,
    closed_by_server,
    closed_by_the_clock,
)

T = TypeVar("T")

LOOK_S = 0.002
"""Between two looks at the load board while something of ours runs or waits for production to end: production's
request is seen at most so much after it arrived. A look costs some 10 microseconds."""
REST_S = 0.1
"""Between two looks while the reason to wait is one that lasts."""
PAUSES_S = 1.0
"""Where production was seen to pause within so long, its next pause is waited for: what is asked beside a stream
lengthens that stream's next gap, whatever the pace; in a pause it lengthens nothing."""
ABOUT_S = 10.0
"""For so long after production was in flight it is taken to come again: a batch that began wide in its pause would make
the next request wait for a step with eight prompts in it (seen on a CPU: a first token after 10 s instead of 3)."""
HELD_S = 20.0
"""Where production comes and goes, a batch that the server holds back is ended after so long, so that whoever asks can
look whether it is still to be asked; what was answered is kept."""
FRUITLESS_S = 120.0
"""For so long a server is asked beside production's streams, after a whole HELD_S in which no pause was long enough."""
MOMENT_S = 0.25
"""Of the pace's tokens, what one batch may have."""
LONGEST_WAIT_S = 2.0
"""Then whoever waits is told why, and looks whether it is still to wait at all."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One question, or one batch of them."""

    tokens: int
    """Prompt tokens that the server has to compute for it."""
    questions: int
    manner: Manner
    server: str = ""
    """Base URL of the replica that is asked."""
    answered: Callable[[], int] = lambda: 0
    """How many of the questions have been answered so far."""


@dataclass(frozen=True, slots=True)
class Leave:
    """On which terms a question may be put."""

    width: int | None = None
    """Most questions that the server should hold at once; None: as many as it likes."""
    yields: bool = False
    """The server is to keep them out of its engine while production is there."""


Question = Callable[[Leave], Awaitable[T]]


@dataclass(frozen=True, slots=True)
class Kept:
    """Kept out, or thrown out, and why."""

    why: str


class Gate:
    """One for all jobs of a worker. Of one event loop.

    What the model servers say of themselves is looked at for the replica that is asked, so that a full one keeps nobody
    from another. What the relays know they know of all replicas together.
    """

    def __init__(
        self,
        production: Callable[[], Production | Unseen],
        server: Callable[[str], ServerLoad | Unseen | None] = lambda _url: None,
        hours: Hours | None = None,
        *,
        most_per_batch: int = 32,
        longest_wait_s: float = LONGEST_WAIT_S,
        count: Callable[[str, str], None] = lambda _name, _label: None,
    ) -> None:
        """`count`: a counter's name and label."""
        self._production = production
        self._server = server
        self._hours = hours
        self._longest_wait_s = longest_wait_s
        self._count = count
        self._own: Counter[str] = Counter()
        """Questions that run, by replica."""
        self._pace, self._credit = Pace(), 0.0
        self._window_at = self._credit_at = time.monotonic()
        self._window_gaps = Gaps()
        self._window_asked = 0
        self._paused_at = self._busy_at = float("-inf")
        """When production was last seen to pause, and to be in flight."""
        self._fruitless_at: dict[str, float] = {}
        """When a replica had last answered nothing in production's pauses."""
        self.batch = Batch(most_per_batch, most_per_batch)
        self.counts: Counter[str] = Counter()
        """`asked`, `aborted`, in batches."""

    def at_once(self, tokens: int, server: str = "") -> int:
        """Most questions of so many tokens each in one batch. Beside streams no more than the pace allows in a moment:
        a batch that has to be saved up for would stand for seconds, and be felt all at once."""
        production = self._production()
        if not isinstance(production, Production) or not self._streams(production, server) or self._pauses(server):
            return self.batch.size
        return max(1, min(self.batch.size, int(self._pace.tokens_s * MOMENT_S / max(1, tokens))))

    async def ask(self, turn: Turn, question: Question[T]) -> T | Kept:
        """Put a question as soon as the gate is open. Kept out: it stayed closed for `LONGEST_WAIT_S`, or
        production came and the question was ended; try again, with `batch.size` questions at most."""
        if (why := await self._opened(turn)) is not None:
            return Kept(why)
        self._own[turn.server] += turn.questions
        self._window_asked += turn.questions
        self.counts["asked"] += 1
        outcome = "failed"
        try:
            answer = await self._unless_closed(turn, question)
            outcome = "aborted" if isinstance(answer, Kept) else "answered"
        finally:
            self._own[turn.server] -= turn.questions
            self._count("gate_batches", outcome)
        if isinstance(answer, Kept):
            self.counts["aborted"] += 1
            if turn.manner == "alone":  # lost whole; the others keep what had come
                self.batch = self.batch.aborted(turn.questions)
        else:
            self.batch = self.batch.answered()
        return answer

    async def _opened(self, turn: Turn) -> str | None:
        """Wait until it is open; or why it stays closed."""
        deadline = time.monotonic() + self._longest_wait_s
        while (closed := self._closed(turn)) is not None:
            why, pause = closed
            if time.monotonic() > deadline:
                return why
            await asyncio.sleep(pause)
        return None

    def _closed(self, turn: Turn) -> tuple[str, float] | None:
        """Why to wait, and how long until the next look."""
        if why := closed_by_the_clock(self._hours, datetime.now(UTC).time()):
            return why, REST_S
        production = self._production()
        if isinstance(production, Production):
            self._tick(production)
        manner = self._manner(turn)
        if why := closed_by_production(production, manner):
            return why, REST_S if isinstance(production, Unseen) else LOOK_S
        if why := closed_by_server(self._server(turn.server), self._own[turn.server], manner):
            return why, REST_S
        assert isinstance(production, Production)
        if manner == "yields":
            return None
        streams = self._streams(production, turn.server)
        if streams and self._pauses(turn.server):
            return f"{streams} request(s) of production are in flight, which pauses often", LOOK_S
        if streams and not self._has_credit(turn.tokens, is_seen=production.in_flight > 0):
            return "the pace beside production's streams", LOOK_S
        return None

    def _manner(self, turn: Turn) -> Manner:
        """How this question bears on production now: where that leaves no pauses, a server that waited for one would
        wait for ever."""
        return "beside" if turn.manner == "yields" and not self._pauses(turn.server) else turn.manner

    def _leave(self, turn: Turn, manner: Manner) -> Leave:
        """While production is about, one question at once: the next request waits for the step that it finds, and a
        step with one question in it is short."""
        is_about = time.monotonic() - self._busy_at < ABOUT_S or self._is_fruitless(turn.server)
        return Leave(1 if is_about else None, manner == "yields")

    def _pauses(self, server: str) -> bool:
        """Whether production leaves pauses that are worth waiting for."""
        return time.monotonic() - self._paused_at < PAUSES_S and not self._is_fruitless(server)

    def _is_fruitless(self, server: str) -> bool:
        return time.monotonic() - self._fruitless_at.get(server, float("-inf")) < FRUITLESS_S

    def _streams(self, production: Production, server: str) -> int:
        """Requests of production in flight. Of those that passed no relay the server knows, and it is believed where
        its pauses were of no use."""
        others = self._server(server) if self._is_fruitless(server) else None
        return max(production.in_flight, others.in_flight if isinstance(others, ServerLoad) else 0)

    def _tick(self, production: Production) -> None:
        """Learn from what is seen, and from the window that has ended."""
        now = time.monotonic()
        if production.in_flight:
            self._busy_at = now
        else:
            self._paused_at = now
        age, gaps = now - self._window_at, production.gaps.since(self._window_gaps)
        if age < WINDOW_S or (gaps.total < ENOUGH and age < LONGEST_WINDOW_S):
            return
        self._pace = self._pace.after(gaps, self._window_asked)
        self._window_at, self._window_gaps, self._window_asked = now, production.gaps, self._own.total()

    def _has_credit(self, tokens: int, *, is_seen: bool) -> bool:
        """Take the tokens of a question from what the pace allows; at most a second's worth is saved up. Of streams
        that no relay sees nobody knows the gaps: then it is the least pace."""
        now = time.monotonic()
        rate = (0.0 if self._pace.is_off else self._pace.tokens_s) if is_seen else LEAST
        self._credit = min(self._credit + rate * (now - self._credit_at), max(rate, float(tokens)))
        self._credit_at = now
        if not rate or self._credit < tokens:
            return False
        self._credit -= tokens
        return True

    async def _unless_closed(self, turn: Turn, question: Question[T]) -> T | Kept:
        """The answer; or production came, or, of a question that yields, has stayed. Ending the question closes its
        connection, which vLLM notices."""
        manner, began = self._manner(turn), time.monotonic()
        told = self._server(turn.server)
        by_middleware = isinstance(told, ServerLoad) and told.production is not None  # not read for nothing
        asking = asyncio.ensure_future(question(self._leave(turn, manner)))
        try:
            while not asking.done():
                why = self._ends(manner) or (self._ends_held(turn, began) if manner == "yields" else None)
                if why is None and by_middleware:
                    why = closed_by_middleware(self._server(turn.server), manner)
                if why is not None:
                    return Kept(why)
                await asyncio.wait({asking}, timeout=LOOK_S)
            return asking.result()
        finally:
            if not asking.done():
                asking.cancel()
                await asyncio.wait({asking})

    def _ends(self, manner: Manner) -> str | None:
        """Why a question that runs is ended now, or None."""
        production = self._production()
        if isinstance(production, Production):
            self._tick(production)
        if why := closed_by_the_clock(self._hours, datetime.now(UTC).time()):
            return why
        return closed_by_production(production, manner)

    def _ends_held(self, turn: Turn, began: float) -> str | None:
        """Why one that the server holds back is: its pauses are of no use, or it is time to look anew. Not where there
        is no production at all: then it is slow, and nobody to make room for."""
        if not self._pauses(turn.server):
            return "production leaves no pauses any more"
        now = time.monotonic()
        if now - began < HELD_S:
            return None
        server = self._server(turn.server)
        if self._busy_at < began and not (isinstance(server, ServerLoad) and server.in_flight):
            return None
        if turn.answered():
            return "production comes and goes; what was answered is kept"
        self._fruitless_at[turn.server] = now
        return f"no pause of production's was long enough for a masked query, for {HELD_S:.0f} s"
