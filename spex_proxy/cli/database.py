"""The commands that look after the store itself: `db upgrade`, `db reindex`."""

from __future__ import annotations

from typing import Annotated

import typer

from spex_proxy.cli.shell import Store, console, progress_bar, settings_from

db = typer.Typer(no_args_is_help=True, help="The store's schema and indexes.")


@db.command()
def upgrade(store: Store = None) -> None:
    """Bring the store to the schema of this version."""
    from spex_proxy.wiring.schema import migrate

    console.print(f"the store is at revision {migrate(settings_from(store=store))}")


@db.command()
def reindex(
    everything: Annotated[bool, typer.Option("--all", help="Index all of it anew, not only what is missing.")] = False,
    store: Store = None,
) -> None:
    """Make what is stored findable by words, users, tags and origins: what was there before the index was.

    Beside a running relay and worker; stop it and start it again as you like.
    """
    from functools import partial

    from spex_proxy.store import reindex as again
    from spex_proxy.store.connect import reading
    from spex_proxy.wiring.store import ready_store

    engine = ready_store(settings_from(store=store))
    with reading(engine) as connection:
        total = again.count(connection)
    changed = unreadable = 0
    with progress_bar("rows") as bar:
        task = bar.add_task("indexing", total=total)
        for step in (partial(again.index_words, everything=everything), again.index_origins):
            place: again.Place | None = None
            while True:
                with engine.begin() as connection:
                    done = step(connection, place)
                changed, unreadable, place = changed + done.changed, unreadable + done.unreadable, done.place
                bar.advance(task, done.looked)
                if place is None:
                    break
    engine.dispose()
    rest = "nothing was missing" if not changed else "the rest was findable already"
    console.print(f"{changed} of {total} indexed" + (f": {rest}" if changed < total else ""), highlight=False)
    if unreadable:
        console.print(f"{unreadable} can't be read, and were left as they are: spex-proxy verify says more")
