"""The event loop that the relay is measured on."""

from __future__ import annotations

import asyncio
import sys

try:
    from uvloop import new_event_loop as _new
except ImportError:  # no uvloop for this platform
    _new = asyncio.new_event_loop  # type: ignore[assignment] # the same, less precisely

GIVE_WAY_S = 0.0005
"""How long a thread that parses or stores may keep the interpreter while the loop has something to pass on. Python's
own 5 ms are many times what a request takes from end to end."""


def new_event_loop() -> asyncio.AbstractEventLoop:
    """For a process that relays: it sets how all threads of the process share the interpreter."""
    sys.setswitchinterval(GIVE_WAY_S)
    return _new()
