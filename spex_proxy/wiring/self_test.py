"""`doctor --relay`: two relays on loopback, in this process, and what tests them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

from spex_proxy.facts.exchange import RawExchange, Skipped
from spex_proxy.facts.rules import Rule, RuleBook, When
from spex_proxy.flows.relay import Sampler, Watcher
from spex_proxy.flows.self_test import SelfTest
from spex_proxy.ports.counters import Counters
from spex_proxy.ports.look import Answer, Looker
from spex_proxy.ports.passage import Passage
from spex_proxy.ports.reach import unix_path
from spex_proxy.relay import House, serve
from spex_proxy.settings import Settings
from spex_proxy.wire.about import read_models
from spex_proxy.wire.tap import TapBudget, TapLimits
from spex_proxy.wiring.shared import make_recipe


@asynccontextmanager
async def self_test(settings: Settings, upstream: str, model: str | None) -> AsyncIterator[SelfTest]:
    """Two relays before this upstream for as long as the block lasts; what they capture is let go."""
    key = settings.upstream_api_key.get_secret_value() if settings.upstream_api_key else None
    url = urlsplit(upstream)
    async with AsyncExitStack() as stack:
        passage, passing = None, upstream
        if url.scheme == "http" and url.hostname and not url.username:
            passage = await stack.enter_async_context(Passage(url.hostname, url.port or 80))
            passing = f"http://127.0.0.1:{passage.port}{url.path}"
        elif path := unix_path(upstream):
            passage = await stack.enter_async_context(Passage(path))
            passing = f"http://127.0.0.1:{passage.port}"
        off = await stack.enter_async_context(_relay(settings, upstream, 0.0))
        on = await stack.enter_async_context(_relay(settings, passing, 1.0))
        yield SelfTest(
            direct=upstream, off=off, on=on, model=model or await _first_model(settings, upstream, key),
            api_key=key, passage=passage, secrets=tuple(word for word in (key, url.password) if word),
            ca=settings.upstream_ca,
        )  # fmt: skip


@asynccontextmanager
async def _relay(settings: Settings, upstream: str, capture: float) -> AsyncIterator[str]:
    """A relay's base URL."""
    book = RuleBook("sha256:self-test", (Rule("self-test", When(), capture, 0.0, make_recipe(settings)),))

    def let_go(_: RawExchange | Skipped) -> bool:
        return True

    watcher = Watcher(Sampler(lambda: book, b"self-test"), TapLimits(), TapBudget(settings.queue_bytes), let_go)
    stop, bound = asyncio.Event(), asyncio.get_running_loop().create_future()
    house = House([upstream], watcher, Counters(), ca=settings.upstream_ca)
    serving = asyncio.create_task(serve(house, "127.0.0.1", 0, stop=stop, ready=bound.set_result, grace_s=1))
    try:
        yield f"http://127.0.0.1:{await bound}"
    finally:
        stop.set()
        await serving


async def _first_model(settings: Settings, upstream: str, key: str | None) -> str | None:
    async with Looker(ca=settings.upstream_ca) as looker:
        look = await looker.get(upstream, "/v1/models", key)
    cards = read_models(look.body) if isinstance(look, Answer) and look.status == 200 else None
    return cards[0].name if cards else None
