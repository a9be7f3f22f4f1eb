"""`verify` as a process of its own, which imports this file and little else."""

from __future__ import annotations

from spex_proxy.facts.explanation import Check
from spex_proxy.flows.verify import verify
from spex_proxy.plug.load import Plugins
from spex_proxy.store.connect import open_store, reading


def verify_stored(url: str, explanation_id: str, project: str) -> list[Check]:
    """`verify` with a store of its own."""
    store = open_store(url, create=False)
    try:
        with reading(store) as connection:
            return verify(connection, explanation_id, project, Plugins())
    finally:
        store.dispose()
