"""What a worker does every so often, beside its jobs: a table of chores, each with its interval."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Chore:
    """Something that may fail now and be done later."""

    name: str
    every_s: float
    do: Callable[[], Awaitable[object]]


async def keep_doing(chores: Sequence[Chore]) -> None:
    """Each of them, for ever, until cancelled; one that fails keeps none of the others from being done."""
    async with asyncio.TaskGroup() as together:
        for chore in chores:
            together.create_task(_keep_doing(chore), name=f"chore: {chore.name}")


async def _keep_doing(chore: Chore) -> None:
    has_failed = False
    while True:
        try:
            await chore.do()
        except Exception as error:
            if not has_failed:  # said once, not at every try
                words = str(getattr(error, "orig", None) or error).splitlines() or [""]
                log.warning("chore %r failed, trying on: %s: %s", chore.name, type(error).__name__, words[0])
                log.debug("the whole of it", exc_info=error)
            has_failed = True
        else:
            if has_failed:
                log.warning("chore %r works again", chore.name)
            has_failed = False
        await asyncio.sleep(chore.every_s)
