"""The hot path: `House`, `serve` and `reserve` are all of it that anybody else uses."""

from spex_proxy.relay.house import House
from spex_proxy.relay.server import serve
from spex_proxy.relay.sockets import reserve

__all__ = ["House", "reserve", "serve"]
