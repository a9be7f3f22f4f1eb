"""Who may run beside whom: any number together, or one alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Company:
    """For jobs whose worker died: one of them may have killed it, and is not to take others along."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._together = 0
        self._is_one_alone = False
        self._waiting_to_be_alone = 0

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        """With others of this kind; not past one that waits to be alone."""
        async with self._changed:
            await self._changed.wait_for(lambda: not (self._is_one_alone or self._waiting_to_be_alone))
            self._together += 1
        try:
            yield
        finally:
            async with self._changed:
                self._together -= 1
                self._changed.notify_all()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """With nobody."""
        async with self._changed:
            self._waiting_to_be_alone += 1
            try:
                await self._changed.wait_for(lambda: not (self._is_one_alone or self._together))
                self._is_one_alone = True
            finally:
                self._waiting_to_be_alone -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            async with self._changed:
                self._is_one_alone = False
                self._changed.notify_all()
