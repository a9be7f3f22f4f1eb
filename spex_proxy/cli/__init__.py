"""The command line. Each command: read settings, hand over to wiring, show what came out.

A command imports what it runs with when it is run: a worker starts without the web framework, and help
without either.
"""

from __future__ import annotations

import typer

from spex_proxy.cli import asking, checking, flagging, querying, results, serving
from spex_proxy.cli.audit import audit
from spex_proxy.cli.database import db
from spex_proxy.cli.gaming import game
from spex_proxy.cli.queue import queue
from spex_proxy.cli.rules import rules
from spex_proxy.cli.shell import fail
from spex_proxy.facts.errors import PluginError, SpexError
from spex_proxy.store.connect import StoreError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # local variables hold people's texts and the operator's keys
    rich_markup_mode="markdown",
    help=(
        "Why did the model say that? An OpenAI-compatible proxy in front of vLLM that explains a "
        "sample of production answers, in the background, on the same GPUs.\n\n"
        "Start with `spex-proxy up --upstream http://your-vllm:8000`, then change one base URL in your app."
    ),
)
app.add_typer(db, name="db")
app.add_typer(queue, name="queue")
app.add_typer(audit, name="audit")
app.add_typer(rules, name="rules")
app.add_typer(game, name="game")

for command in (
    serving.up,
    serving.serve,
    serving.work,
    asking.explain,
    asking.why,
    flagging.flag,
    results.show,
    checking.table,
    checking.retest,
    checking.report,
    results.verify,
    asking.doctor,
):
    app.command()(command)
app.command(name="list")(results.list_)
for query in (querying.find, querying.export, querying.aggregate, querying.index, querying.compare):
    app.command()(query)


def main() -> None:
    """The console script. Errors of ours are for people: one line, no traceback."""
    try:
        app()
    except PluginError as error:  # its author wants the cause's own words; a terminal may show them, a store may not
        fail(f"{error}: {error.__cause__}" if error.__cause__ else str(error))
    except SpexError as error:
        fail(str(error))
    except StoreError as error:
        # not the error itself: it quotes the statement with its parameters
        fail(f"the store failed: {getattr(error, 'orig', None) or type(error).__name__}")
