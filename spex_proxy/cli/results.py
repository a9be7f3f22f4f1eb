"""The commands that read the store: show, list, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from spex_proxy.cli.shell import AnyId, Store, console, fail, settings_from
from spex_proxy.store.connect import reading
from spex_proxy.wiring.store import ready_store


def show(
    any_id: AnyId,
    store: Store = None,
    html: Annotated[Path | None, typer.Option(help="Write it as one HTML file instead, which needs no other.")] = None,
) -> None:
    """Show why an answer came out: the prompt highlighted, what moved it, what acted together."""
    from spex_proxy.store import browse
    from spex_proxy.study.terminal import explanation_panel
    from spex_proxy.study.view import make_view

    settings = settings_from(store=store)
    engine = ready_store(settings)
    if html is not None:
        from spex_proxy.study.html import standalone
        from spex_proxy.study.stored import load_sheet

        with reading(engine) as connection:
            sheet, _ = load_sheet(connection, any_id, settings.project)
        try:
            html.write_text(standalone(sheet), encoding="utf-8")
        except OSError as error:
            fail(f"{html} can't be written: {error.strerror}")
        console.print(f"[dim]{escape(str(html))} holds prompt and answer too: share it as you would share those[/dim]")
        return
    with reading(engine) as connection:
        story = browse.story(connection, any_id, settings.project)
    console.print(explanation_panel(make_view(story.explanation, story.game, story.exchange)))
    console.print(f"[dim]check it against its evidence: spex-proxy verify {story.explanation.id[:12]}[/dim]")


def list_(store: Store = None, limit: Annotated[int, typer.Option(help="How many, newest first.")] = 20) -> None:
    """The newest exchanges and what became of them."""
    from spex_proxy.store import browse
    from spex_proxy.study.terminal import listing

    settings = settings_from(store=store)
    engine = ready_store(settings)
    with reading(engine) as connection:
        rows = browse.newest(connection, settings.project, limit)
    console.print(listing(rows, console.width))


def verify(any_id: AnyId, store: Store = None) -> None:
    """Check an explanation against its stored evidence: no GPU, no network. Exit code 1 if it fails."""
    from spex_proxy.flows.verify import verify as verify_flow
    from spex_proxy.plug.load import Plugins
    from spex_proxy.store import browse
    from spex_proxy.study.terminal import checks_table

    settings = settings_from(store=store)
    engine = ready_store(settings)
    with reading(engine) as connection:
        story = browse.story(connection, any_id, settings.project)
        checks = verify_flow(connection, story.explanation.id, settings.project, Plugins())
    console.print(checks_table(checks))
    if not all(check.is_passed for check in checks):
        fail("this explanation does NOT follow from the evidence that is stored with it")
    console.print(f"[green]{story.explanation.id[:12]} follows from its evidence[/green]")
