"""`flag`: say that an exchange needs looking at, from the command line."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer
from rich.markup import escape

from spex_proxy.cli.shell import AnyId, Store, console, settings_from
from spex_proxy.facts.explanation import Flag
from spex_proxy.wiring.store import ready_store


def flag(
    any_id: AnyId,
    name: Annotated[str, typer.Argument(help="One word: what is wrong.")],
    detail: Annotated[str | None, typer.Option(help="For whoever looks at it.")] = None,
    score: Annotated[float | None, typer.Option(help="How strong.")] = None,
    who: Annotated[str | None, typer.Option(help="Instead of your user name.")] = None,
    store: Store = None,
) -> None:
    """Flag an exchange. Any id will do, `chatcmpl-...` too; rules that ask for this flag act upon it."""
    from spex_proxy.flows.outside_flags import flag_from_outside
    from spex_proxy.plug.load import Plugins
    from spex_proxy.ports.counters import Counters
    from spex_proxy.wiring.sampling import load_book, make_orders

    settings = settings_from(store=store)
    book = load_book(settings, settings.rules)
    counters = Counters()
    orders = make_orders(settings, lambda: book, Plugins(), counters)
    me = who or getpass.getuser()
    engine = ready_store(settings)
    try:
        with engine.begin() as connection:
            sent = flag_from_outside(
                connection, any_id, Flag(name, detail or name, score, me), who=me, key=None,
                project=settings.project, orders=orders,
            )  # fmt: skip
    finally:
        engine.dispose()
    done = counters.snapshot()["rule_actions"]
    said = ", ".join(str(kind) for kind in done) if isinstance(done, dict) and done else "no rule acts upon it"
    state = "flagged" if sent.is_new else "was flagged so before"
    console.print(f"{sent.raised.exchange_id} {state}: {escape(name)}; {said}", highlight=False, soft_wrap=True)
