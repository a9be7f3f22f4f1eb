"""The process that explains, under the bench's command: the flow, the gate and the scorer of a real worker.

    python -m bench.interference.asker          its settings are SPEX_*; commands come as lines

`on MODE` explains one exchange of the store after the other, each with all of its masks, until `off`; then
one line of JSON says what was done. Modes: `gate` (as a worker does), `free` (whenever there is a mask to ask), `equal`
(the same, and at production's own priority). What was begun and not finished goes on in the next window of its mode.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cache

from sqlalchemy import text

from spex_proxy.facts.errors import SpexError
from spex_proxy.flows.explain import Parts, Progress, explain
from spex_proxy.ports.model_server import ModelServer
from spex_proxy.ports.scorers.choose import Scorers
from spex_proxy.settings import Settings
from spex_proxy.wiring.shared import make_recipe
from spex_proxy.wiring.worker import worker_parts

MODES = ("gate", "free", "equal")


@dataclass
class Asker:
    """Explains while it is told to."""

    modes: dict[str, Parts]
    exchanges: list[str]
    settings: Settings
    number: int = 0
    finished: int = 0
    trouble: list[str] = field(default_factory=list)
    waits: Counter[str] = field(default_factory=Counter)

    def counts(self) -> dict[str, int]:
        """Masks that were answered so far, and their tokens, out of the store."""
        with self.modes["gate"].store.connect() as connection:
            row = connection.execute(
                text(
                    "SELECT coalesce(sum(n_masks), 0), coalesce(sum(prompt_tokens), 0), "
                    "coalesce(sum(cached_tokens), 0) FROM evidence_blocks"
                )
            ).one()
        return dict(zip(("masks", "prompt_tokens", "cached_tokens"), map(int, row), strict=True))

    async def work(self, mode: str) -> None:
        recipe = make_recipe(self.settings)
        while True:
            if self.number >= len(self.exchanges):
                self.trouble.append("no exchange is left: give more --exchanges")
                return
            exchange, one = self.exchanges[self.number], replace(recipe, target_r2=1.0)
            try:
                await explain(exchange, one, self.modes[mode], project=self.settings.project, on_progress=self.hear)
                self.finished += 1
                self.number += 1
            except SpexError as error:
                self.trouble.append(str(error))
                await asyncio.sleep(0.2)

    def hear(self, progress: Progress) -> None:
        """Why nothing is asked, if so."""
        if progress.note.startswith("waiting"):
            self.waits[re.sub(r"\d+", "N", progress.note)] += 1

    async def window(self, mode: str, off: asyncio.Event) -> dict[str, object]:
        before, finished = self.counts(), self.finished
        parts = self.modes[mode]
        gate = dict(parts.gate.counts) if parts.gate else {}
        working = asyncio.create_task(self.work(mode))
        await asyncio.wait({working, waiting := asyncio.create_task(off.wait())}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
        after = self.counts()
        told: dict[str, object] = {name: after[name] - before[name] for name in after}
        aborted = parts.gate.counts["aborted"] - gate.get("aborted", 0) if parts.gate else 0
        trouble, self.trouble = self.trouble[:1], []
        waits, self.waits = dict(self.waits), Counter()
        return told | {"finished": self.finished - finished, "aborted": aborted, "trouble": trouble, "waits": waits}


async def main() -> None:
    os.nice(10)  # fits take a core of their own where there is one; here they give way to the server's
    settings = Settings()  # type: ignore[call-arg]
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def listen() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line.strip())
        loop.call_soon_threadsafe(lines.put_nowait, "end")

    async with worker_parts(settings) as parts:
        equal = cache(lambda server: _scorers_of(server, settings))
        free = replace(parts, gate=None)
        modes = {"gate": parts, "free": free, "equal": replace(free, scorers=equal, priority=0)}
        with parts.store.connect() as connection:
            exchanges = list(connection.execute(text("SELECT id FROM exchanges ORDER BY id")).scalars())
        asker = Asker(modes, exchanges, settings)
        listening = asyncio.create_task(asyncio.to_thread(listen))
        print(json.dumps({"exchanges": len(exchanges)}), flush=True)
        while (said := await lines.get()) != "end":
            off = asyncio.Event()
            window = asyncio.create_task(asker.window(said.split()[1], off))
            stopping = await lines.get()
            off.set()
            print(json.dumps(await window), flush=True)
            if stopping == "end":
                break
        listening.cancel()


def _scorers_of(server: ModelServer, settings: Settings) -> Scorers:
    return Scorers(server, settings.scorer, 0)


if __name__ == "__main__":
    asyncio.run(main())
