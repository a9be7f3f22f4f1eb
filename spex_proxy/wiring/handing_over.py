"""The door for vLLM's capture middleware: from the second port's loop to the relay's, where the intake takes."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import replace

from spex_proxy.flows.handover import Outcome, take
from spex_proxy.flows.relay import Callers, Watcher
from spex_proxy.ports.counters import Counters
from spex_proxy.settings import Settings
from spex_proxy.web.handover import HandoverDoor
from spex_proxy.wire.handed import HEAD_BYTES, Handed


def handover_door(settings: Settings, watcher: Watcher, counters: Counters) -> HandoverDoor | None:
    """None without a key. Call it on the relay's loop."""
    if settings.handover_key is None:
        return None
    loop = asyncio.get_running_loop()
    # whoever asks vLLM itself is no local caller of the relay's
    strangers = Callers(everybody=settings.explain_callers == "anyone", key=watcher.sampler.callers.key)
    behind = replace(watcher, sampler=replace(watcher.sampler, callers=strangers))

    async def over(handed: Handed) -> Outcome:
        done: Future[Outcome] = Future()

        def then(outcome: Outcome) -> None:
            if not done.done():
                done.set_result(outcome)

        loop.call_soon_threadsafe(take, handed, behind, counters.add, then)  # RuntimeError: it is closed
        return await asyncio.wrap_future(done)

    most = 2 * settings.max_body_bytes + HEAD_BYTES
    return HandoverDoor(settings.handover_key.get_secret_value().encode(), most, over)
