"""`db upgrade`, and the first thing that `up` does."""

from __future__ import annotations

from spex_proxy.settings import Settings
from spex_proxy.store.connect import open_store, revision_state
from spex_proxy.store.migrate import upgrade


def make_missing(settings: Settings) -> None:
    """A new store where there is none yet. One that is there is left as it is, whatever its revision."""
    store = open_store(settings.store)
    if revision_state(store).current is None:
        upgrade(store)
    store.dispose()


def migrate(settings: Settings) -> str:
    """Bring the store to the newest schema; returns its revision."""
    store = open_store(settings.store)
    upgrade(store)
    state = revision_state(store)
    store.dispose()
    return state.head
