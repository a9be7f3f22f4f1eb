"""The store is synchronous, the flows' loop must not wait: one transaction, in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Engine

from spex_proxy.store.connect import reading

Result = TypeVar("Result")


async def read(store: Engine, function: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
    """`function(connection, *arguments)` on one consistent state of the store."""

    def run() -> Result:
        with reading(store) as connection:
            return function(connection, *arguments, **options)

    return await asyncio.to_thread(run)


async def write(store: Engine, function: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
    """`function(connection, *arguments)` in one transaction; committed when this returns."""

    def run() -> Result:
        with store.begin() as connection:
            return function(connection, *arguments, **options)

    return await asyncio.to_thread(run)
