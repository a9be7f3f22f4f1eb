"""The event loop that the relay is measured on."""

from __future__ import annotations

import asyncio

try:
    from uvloop import new_event_loop
except ImportError:  # no uvloop for this platform
    new_event_loop = asyncio.new_event_loop  # type: ignore[assignment] # the same, less precisely

__all__ = ["new_event_loop"]
