"""`rules`: look at sampling rules before they are in force."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from spex_proxy.cli.shell import console, settings_from

rules = typer.Typer(no_args_is_help=True, help="Sampling rules.")


@rules.callback()
def _group() -> None:
    """Sampling rules: see docs/rules.md."""


@rules.command()
def check(file: Annotated[Path, typer.Argument(help="The YAML file.", metavar="FILE")]) -> None:
    """Say what each rule of a file would do, or what is wrong and where. Touches nothing."""
    from spex_proxy.flows.rules.tell import never_reached, tell
    from spex_proxy.wiring.sampling import load_book

    book = load_book(settings_from(), file)
    for paragraph in tell(book):
        console.print(escape(paragraph), highlight=False, soft_wrap=True)
    for name in never_reached(book):
        console.print(f"[bold]never reached[/bold]: {escape(name)}, because an earlier rule fits everything")
    console.print(f"these rules work: {book.digest}", highlight=False, soft_wrap=True)
