"""The hot path: these four are all of it that anybody else uses."""

from spex_proxy.relay.house import House
from spex_proxy.relay.loop import new_event_loop
from spex_proxy.relay.server import serve
from spex_proxy.relay.sockets import reserve

__all__ = ["House", "new_event_loop", "reserve", "serve"]
