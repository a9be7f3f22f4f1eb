"""spex_proxy: causal explanations of production LLM outputs.

Read `flows/relay.py` (one request) and `flows/explain.py` (one explanation)
first; `facts/` holds the nouns that they speak of. `spex_proxy.explain` explains any function
of masks, without a proxy (`library/`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spex_proxy.library.asking import explain
    from spex_proxy.library.study import Study
    from spex_proxy.library.zoom import explain_tree

__all__ = ["Study", "__version__", "explain", "explain_tree"]

__version__ = "0.1.0"

_LIBRARY = {
    "explain": "spex_proxy.library.asking",
    "explain_tree": "spex_proxy.library.zoom",
    "Study": "spex_proxy.library.study",
}


def __getattr__(name: str) -> Any:
    """The library comes when it is asked for: whoever imports the package for a version waits for no mathematics."""
    if name in _LIBRARY:
        return getattr(import_module(_LIBRARY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LIBRARY])
