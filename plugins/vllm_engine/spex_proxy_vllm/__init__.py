"""spex_proxy's part inside a vLLM server. Imports nothing of spex_proxy: golden/ holds what both sides agree on."""

__version__ = "0.1.0"
PROTOCOL = 2
"""Of the routes. A client that knows another number must not ask."""
HANDOVER = 1
"""Of the form in which the capture middleware hands exchanges over."""
