"""What every command shares: consoles, options, settings, how a coroutine is run and how it fails."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from spex_proxy.cli.shown import paragraph
from spex_proxy.facts.errors import SettingsError, SpexError
from spex_proxy.settings import Settings

console = Console()
errors = Console(stderr=True)

Upstream = Annotated[
    list[str] | None,
    typer.Option(
        help="Base URL of the vLLM server, without /v1, or unix:/PATH; once for each replica. [env: SPEX_UPSTREAM]"
    ),
]
Store = Annotated[str | None, typer.Option(help="SQLAlchemy URL of the store. [env: SPEX_STORE]")]
AnyId = Annotated[
    str, typer.Argument(metavar="ID", help="Ours, vLLM's (chatcmpl-...), a trace id, or the first 8 characters of one.")
]


def settings_from(**options: Any) -> Settings:
    """A list is an option that was given several times; an empty one was not given."""
    given = {name: value for name, value in options.items() if value is not None and value != []}
    joined: dict[str, Any] = {n: ",".join(value) if isinstance(value, list) else value for n, value in given.items()}
    try:
        settings = Settings(**joined)
    except ValidationError as error:
        lines = [_trouble(str(e["loc"][0]) if e["loc"] else "settings", e["msg"]) for e in error.errors()]
        raise SettingsError("these settings can't work:\n  " + "\n  ".join(lines)) from None
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return settings


def _trouble(name: str, message: str) -> str:
    return f"{name} (SPEX_{name.upper()}): {message.removeprefix('Value error, ')}"


def run_until_stopped(
    main_coroutine: Callable[[asyncio.Event], Coroutine[Any, Any, Any]],
    new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> Any:
    """Run until done, or until SIGINT or SIGTERM sets the event."""

    async def run() -> Any:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, stop.set)
        return await main_coroutine(stop)

    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(run())
    except asyncio.CancelledError:
        fail("stopped; what was measured so far is stored and will not be asked again")
    except ExceptionGroup as group:  # two servers run together: the first error of ours tells what is wrong
        ours, others = group.split(SpexError)
        if ours is None or others is not None:
            raise
        raise ours.exceptions[0] from None


def progress_bar(unit: str = "masks") -> Progress:
    return Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit),
        TimeElapsedColumn(), TextColumn("[dim]left at most[/dim]"), TimeRemainingColumn(), console=console,
    )  # fmt: skip


def fail(message: str) -> NoReturn:
    errors.print(f"[bold red]spex-proxy:[/bold red] {paragraph(message)}", highlight=False, emoji=False)
    sys.exit(1)
