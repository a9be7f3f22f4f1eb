"""The store is synchronous, the flows' loop must not wait: one transaction, in a thread.

A database that restarts, is locked or has no room comes back: what the model has answered meanwhile is
held and written then. So a function may run twice, and the first time may have been committed after all.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from spex_proxy.store.connect import reading

log = logging.getLogger(__name__)

Result = TypeVar("Result")

PATIENCE_S = 90.0
"""How long a store that can't be used is tried again: a restart takes seconds, a lock is held for a minute at
most. After that the job is given back, to be tried later."""
PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Between tries; the last repeats."""


async def read(store: Engine, function: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
    """`function(connection, *arguments)` on one consistent state of the store."""

    def run() -> Result:
        with reading(store) as connection:
            return function(connection, *arguments, **options)

    return await _patiently(run)


async def write(store: Engine, function: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
    """`function(connection, *arguments)` in one transaction; committed when this returns."""

    def run() -> Result:
        with store.begin() as connection:
            return function(connection, *arguments, **options)

    return await _patiently(run)


async def write_once(store: Engine, function: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
    """`write`, for what is done every few seconds anyway."""

    def run() -> Result:
        with store.begin() as connection:
            return function(connection, *arguments, **options)

    return await asyncio.to_thread(run)


async def _patiently(run: Callable[[], Result]) -> Result:
    started, tries = time.monotonic(), 0
    while True:
        try:
            return await asyncio.to_thread(run)
        except DBAPIError as error:
            if not may_pass(error) or time.monotonic() - started > PATIENCE_S:
                raise
            log.warning("the store can't be used, trying again: %s", str(error.orig).partition("\n")[0])
        await asyncio.sleep(PAUSES_S[min(tries, len(PAUSES_S) - 1)])
        tries += 1


def may_pass(error: Exception) -> bool:
    """Whether the database failed, and not the statement."""
    if not isinstance(error, DBAPIError):
        return False
    return isinstance(error, (OperationalError, InterfaceError)) or error.connection_invalidated
