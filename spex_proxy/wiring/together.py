"""`up`: relay and worker, each a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping

from spex_proxy.ports.processes import Program, run_together
from spex_proxy.settings import Settings


async def run_up(settings: Settings, stop: asyncio.Event) -> int:
    """Relay and worker as two processes of their own."""
    command = [sys.executable, "-m", "spex_proxy"]
    programs = [
        Program("the relay", [*command, "serve"], is_vital=True),
        Program("the worker", [*command, "work"], is_vital=False),
    ]
    return await run_together(programs, environment_of(settings), stop)


def environment_of(settings: Settings) -> Mapping[str, str]:
    """This process's environment with every setting in it, for child processes."""
    values = dict(os.environ)
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if value is not None:
            secret = getattr(value, "get_secret_value", None)
            values[f"SPEX_{name.upper()}"] = str(secret() if secret else value)
    return values
