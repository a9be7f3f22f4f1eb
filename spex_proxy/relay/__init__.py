"""The hot path: `House` and `serve` are all of it that anybody else uses."""

from spex_proxy.relay.house import House
from spex_proxy.relay.server import serve

__all__ = ["House", "serve"]
