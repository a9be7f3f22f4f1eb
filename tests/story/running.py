"""The real relay on a real port, in a thread with its own uvloop, as `spex-proxy serve` runs it."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from spex_proxy.facts.exchange import RawExchange, RequestHead, Skipped
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.rules import Rule, RuleBook, When
from spex_proxy.flows.relay import Sampler, Watcher
from spex_proxy.ports.counters import Counters
from spex_proxy.ports.load_board import Slot
from spex_proxy.relay import House, serve
from spex_proxy.relay.bystander import Watcher as AnyWatcher
from spex_proxy.wire.tap import Tap, TapBudget, TapLimits

SECRET = b"only for tests"


@dataclass
class Proxy:
    """A running relay, and what its watcher was handed."""

    port: int
    counters: Counters
    budget: TapBudget
    loop: asyncio.AbstractEventLoop
    outcomes: list[RawExchange | Skipped] = field(default_factory=list)

    def tasks(self) -> int:
        """Tasks of the relay's loop beside those that serve it; none may be left by a request."""
        return len(asyncio.all_tasks(self.loop)) - 2

    def outcome(self) -> RawExchange | Skipped | None:
        return self.outcomes[-1] if self.outcomes else None


def sampler(capture: float, explain: float, recipe: Recipe | None = None, *, exact_token_ids: bool = False) -> Sampler:
    """One rule for everything."""
    rule = Rule("all", When(), capture, explain, recipe or Recipe(segmenter="auto"), exact_token_ids=exact_token_ids)
    book = RuleBook("sha256:test", (rule,))
    return Sampler(lambda: book, SECRET)


class Nobody:
    """A watcher that watches nothing."""

    hold = None

    def passes_by(self, request_id: str, path: str) -> bool:
        return True

    def consider(self, head: RequestHead) -> Tap | None:
        return None

    def offer(self, outcome: RawExchange | Skipped) -> bool:
        raise AssertionError("nothing was watched")


@contextmanager
def relay(
    upstream_url: str,
    *more_upstreams: str,
    capture_rate: float = 1.0,
    limits: TapLimits | None = None,
    watcher: AnyWatcher | None = None,
    offer: Callable[[RawExchange | Skipped], bool] | None = None,
    counters: Counters | None = None,
    exact_token_ids: bool = False,
    host: str = "127.0.0.1",
    ca: Path | None = None,
    board: Slot | None = None,
) -> Iterator[Proxy]:
    counters = counters or Counters()
    budget = TapBudget(1 << 26)
    outcomes: list[RawExchange | Skipped] = []

    def record(outcome: RawExchange | Skipped) -> bool:
        outcomes.append(outcome)
        return True

    rules = sampler(capture_rate, 0.0, exact_token_ids=exact_token_ids)
    own = Watcher(rules, limits or TapLimits(), budget, offer or record, counters.add)
    upstreams = [upstream_url, *more_upstreams]
    house = House(upstreams, watcher or own, counters, connect_timeout_s=2.0, ca=ca, board=board)
    started: queue.Queue[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = queue.Queue()

    async def main() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        await serve(house, host, 0, stop=stop, ready=lambda port: started.put((port, loop, stop)), grace_s=1)

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())

    thread = threading.Thread(target=run, name="relay-under-test")
    thread.start()
    port, loop, stop = started.get(timeout=10)
    try:
        yield Proxy(port, counters, budget, loop, outcomes)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        assert not thread.is_alive()
