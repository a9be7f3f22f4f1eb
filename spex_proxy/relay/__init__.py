"""The hot path: `make_app` and `serve` are all of it that anybody else uses."""

from spex_proxy.relay.app import make_app
from spex_proxy.relay.server import serve

__all__ = ["make_app", "serve"]
