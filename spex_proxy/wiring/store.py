"""The store, for all who use it."""

from __future__ import annotations

from sqlalchemy import Engine

from spex_proxy.facts.errors import SettingsError
from spex_proxy.settings import Settings
from spex_proxy.store.connect import address_of, open_store, revision_state


def ready_store(settings: Settings) -> Engine:
    """The store, if its schema is the one that this code needs; else SettingsError says what to run."""
    store = open_store(settings.store, create=False)
    state = revision_state(store)
    if not state.is_current:
        store.dispose()
        raise SettingsError(
            f"the store {address_of(store.url)} is at revision {state.current or 'none'}, "
            f"this version needs {state.head}: run `spex-proxy db upgrade`"
        )
    return store
