"""`game`: explain what is no production request: attention heads, training examples, examples in a prompt."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from spex_proxy.cli.asking import explain_here
from spex_proxy.cli.results import show as show_result
from spex_proxy.cli.shell import Store, Upstream, console, run_until_stopped, settings_from
from spex_proxy.facts.errors import SettingsError

if TYPE_CHECKING:
    from spex_proxy.facts.explanation import Explanation
    from spex_proxy.flows.game import Stored
    from spex_proxy.settings import Settings

game = typer.Typer(no_args_is_help=True, help="Games over a model's components or its training data.")


@game.command(name="list")
def list_() -> None:
    """The games that are installed, and by what. docs/games.md says where each is described."""
    from spex_proxy.plug.load import Plugins

    plugins = Plugins()
    for name in plugins.names("game"):
        plugin = plugins.get("game", name)
        said = (type(plugin.instance).__doc__ or "").strip().splitlines()
        console.print(
            f"[bold]{escape(name)}[/bold]  {escape(said[0] if said else '')} [dim]({plugin.provenance})[/dim]"
        )


@game.command()
def run(
    maker: Annotated[
        str, typer.Argument(metavar="GAME", help="components, training, in_context, table, or a plugin's.")
    ],
    config: Annotated[Path, typer.Option(help="YAML or JSON: what to play with. docs/ has an example of each.")],
    upstream: Upstream = None,
    store: Store = None,
    budget: Annotated[int | None, typer.Option(help="Most masks to measure.")] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed measures other masks.")] = None,
    method: Annotated[str | None, typer.Option(help="How the spectrum is recovered: stack, spex, ...")] = None,
    target_r2: Annotated[float | None, typer.Option(help="Stop when out-of-fold R2 surely reaches this.")] = None,
    exchange: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Of components: a stored answer in place of the file's questions."),
    ] = None,
    queue: Annotated[bool, typer.Option("--queue", help="Leave it to a worker, which goes on after crashes.")] = False,
    shares: Annotated[int, typer.Option(min=1, max=64, help="With --queue: so many workers measure it together.")] = 1,
) -> None:
    """Play a game now, and show which players caused its value, alone and together.

    Interrupted, it goes on where it was: the same file finds the masks that were measured before.
    """
    from spex_proxy.flows.game import enqueue_game, store_game
    from spex_proxy.wiring.schema import make_missing
    from spex_proxy.wiring.shared import make_recipe
    from spex_proxy.wiring.worker import worker_parts

    if shares > 1 and not queue:
        raise SettingsError("--shares divides a queued game among workers: say --queue too")
    read = read_config(config)
    settings = settings_from(
        upstream=upstream, store=store, budget=budget, seed=seed, method=method, target_r2=target_r2
    )

    make_missing(settings)
    if exchange is not None:
        read["questions"] = [_stored_question(settings, exchange)]

    async def play(stop: asyncio.Event) -> Explanation | None:
        async with worker_parts(settings, in_foreground=True) as parts:
            with console.status(f"opening the game {escape(maker)}"):
                stored = await store_game(maker, read, parts, project=settings.project)
            _tell(stored)
            if queue:
                job = await enqueue_game(stored, make_recipe(settings), parts, shares)
                console.print(f"queued as job {job}; spex-proxy show {stored.exchange.id[:12]} when it is done")
                return None
            return await explain_here(stored.exchange.id, make_recipe(settings), parts, settings.project, stop)

    explanation = run_until_stopped(play)
    if explanation is not None:
        show_result(explanation.id, store=store)


def _stored_question(settings: Settings, any_id: str) -> dict[str, Any]:
    """Which heads produced this answer? The weights are loaded here, beside the server, which knows nothing of it."""
    from spex_proxy.flows.written_game import question_of
    from spex_proxy.store.connect import reading
    from spex_proxy.store.exchanges import load_exchange
    from spex_proxy.store.lookup import find
    from spex_proxy.wiring.store import ready_store

    store = ready_store(settings)
    with reading(store) as connection:
        found = find(connection, any_id, settings.project)
        stored = load_exchange(connection, str(found.exchange_id), project=settings.project)
    store.dispose()
    return question_of(stored)


def read_config(file: Path) -> dict[str, Any]:
    """Raises SettingsError for what is no file, no YAML, or no mapping that JSON can hold."""
    import yaml

    try:
        read = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{file} can't be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} is neither YAML nor JSON: {error}") from None
    if not isinstance(read, dict):
        raise SettingsError(f"{file} must hold names and values (`model: ...`), not a {type(read).__name__}")
    try:
        loaded: dict[str, Any] = json.loads(json.dumps(read, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise SettingsError(
            f"{file} holds a value that can't be stored ({error}); quote dates, leave out NaN"
        ) from None
    return loaded


def _tell(stored: Stored) -> None:
    rules = stored.rules
    known = "" if stored.is_new else ", stored before: what was measured is not measured again"
    console.print(
        f"{len(rules.players)} players of {escape(rules.subject)}, {len(rules.items)} value(s) per coalition in "
        f"{escape(rules.unit)}; one coalition costs {escape(rules.cost)}{known}",
        highlight=False,
    )
    for note in rules.notes:
        console.print(f"[dim]{escape(note)}[/dim]", highlight=False)
