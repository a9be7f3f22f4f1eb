"""The commands that ask the store: find, export, aggregate, index, compare. Their filters are facts.query's."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer
from rich.table import Table
from rich.text import Text

from spex_proxy.cli.shell import AnyId, Store, console, errors, fail, settings_from
from spex_proxy.cli.shown import paragraph
from spex_proxy.facts.query import NOUNS, Noun, Query, fields_of
from spex_proxy.store.connect import StoreError, reading
from spex_proxy.wiring.store import ready_store

SHOWN = {
    "exchanges": ("received_at", "id", "model", "state", "r2", "finish_reason"),
    "explanations": ("created_at", "id", "verdict", "r2", "n_segments", "method"),
    "interactions": ("created_at", "explanation_id", "rank", "segments", "origins", "effect"),
}
Json = Annotated[bool, typer.Option("--json", help="For programs.")]
Limit = Annotated[int, typer.Option(help="How many, newest first.", min=1, max=10_000)]
Kind = Annotated[str, typer.Argument(metavar="WHAT", help="exchanges, explanations or interactions.")]


def with_filters(command: Callable[..., None]) -> Callable[..., None]:
    """The command with one option for each filter; it is called with `query` in their place."""

    def run(**given: Any) -> None:
        said: dict[str, Any] = {}
        for f in fields_of("explanations") + fields_of("exchanges"):
            value = given.pop(f.name, None)
            if value not in (None, [], ()):
                said[f.name] = _told(f.name, value)
        command(query=Query(**said), **given)

    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "query"]
    hints = get_type_hints(Query)
    names = {f.name: f for noun in NOUNS for f in fields_of(noun)}
    options = [
        inspect.Parameter(
            f.name, inspect.Parameter.KEYWORD_ONLY, default=None,
            annotation=Annotated[_kind(hints[f.name]), typer.Option(help=f.metadata["help"].replace("`", ""))],
        )
        for f in names.values()
    ]  # fmt: skip
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + options
    )
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def _kind(hint: Any) -> Any:
    """What typer reads: texts are checked against literals by `_told`, which says what there is."""
    bare = next((p for p in get_args(hint) if p is not type(None)), hint) if _is_union(hint) else hint
    if get_origin(bare) is tuple:
        return list[str] | None
    if bare in (int, float):
        return bare | None
    return str | None


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _told(name: str, value: Any) -> Any:
    if name in ("since", "until"):
        return _moment(name, value)
    hint = get_type_hints(Query)[name]
    literals = [a for part in (hint, *get_args(hint)) for a in get_args(part) if isinstance(a, str)]
    for one in value if isinstance(value, list) else [value]:
        if literals and one not in literals:
            fail(f"--{name.replace('_', '-')} can't be {one!r}; there is {', '.join(literals)}")
    return tuple(value) if isinstance(value, list) else value


def _moment(name: str, text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        fail(f"--{name} is no date and time: write 2026-11-22 or 2026-11-22T12:00:00Z")
    return at if at.tzinfo else at.replace(tzinfo=UTC)


@contextmanager
def _reader(store: str | None) -> Iterator[tuple[Callable[..., Any], str]]:
    """(`read(function, ...)`, the project)."""
    settings = settings_from(store=store)
    engine = ready_store(settings)

    def read(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        with reading(engine) as connection:
            return function(connection, *arguments, **options)

    try:
        yield read, settings.project
    finally:
        engine.dispose()


def _rows(read: Callable[..., Any], project: str, noun: Noun, query: Query) -> Iterator[dict[str, Any]]:
    from spex_proxy.web.api_query import rows_of
    from spex_proxy.web.filters import checked, with_whole_id

    query, cursor = read(with_whole_id, checked(query, noun), project), None
    while True:
        rows, cursor = rows_of(noun, read, query, project, cursor)
        yield from rows
        if cursor is None:
            return


def _noun(what: str) -> Noun:
    found = next((noun for noun in NOUNS if what in (noun, noun.removesuffix("s"))), None)
    if found is None:
        fail(f"there are no {what!r}: say exchanges, explanations or interactions")
    return found


@with_filters
def find(query: Query, what: Kind, limit: Limit = 20, is_json: Json = False, store: Store = None) -> None:
    """Look for exchanges, explanations or interactions, newest first."""
    noun = _noun(what)
    with _reader(store) as (read, project):
        rows = [row for row, _ in zip(_rows(read, project, noun, query), range(limit), strict=False)]
    if is_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table(*SHOWN[noun], box=None)
    for row in rows:
        table.add_row(*(Text(_cell(row[name])) for name in SHOWN[noun]))
    console.print(table if rows else "nothing fits")


def _cell(value: Any) -> str:
    from spex_proxy.study.terminal import harmless

    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list):
        return "+".join(map(str, value))
    return "" if value is None else harmless(str(value))


@with_filters
def export(
    query: Query,
    what: Kind,
    out: Annotated[Path, typer.Option("--out", help="The file: .jsonl, or .parquet (needs pyarrow).")],
    store: Store = None,
) -> None:
    """Write all that fits to a file: JSON, one object a line, or Parquet. Without texts of prompts or answers."""
    from spex_proxy.cli.files import whole, write_jsonl, write_parquet

    noun = _noun(what)
    if out.suffix not in (".jsonl", ".parquet"):
        fail(f"{out} ends neither in .jsonl nor in .parquet")
    with _reader(store) as (read, project):
        rows = _rows(read, project, noun, query)
        try:
            with whole(out) as part:
                count = (write_jsonl if out.suffix == ".jsonl" else write_parquet)(part, noun, rows)
        except OSError as error:
            fail(f"{out} can't be written: {error.strerror or error}")
        except (StoreError, KeyboardInterrupt):
            errors.print(f"the export broke off: {paragraph(str(out))} is not written", highlight=False)
            raise
    console.print(f"{count} {noun} in {out}", highlight=False, markup=False)


@with_filters
def aggregate(
    query: Query,
    document: Annotated[str | None, typer.Option(help="Words that mark a text: which share depends on it?")] = None,
    depth: Annotated[int, typer.Option(help="How many of the strongest terms count.", min=1, max=32)] = 3,
    by: Annotated[str | None, typer.Option(help="model, rule, day or hour.")] = None,
    is_json: Json = False,
    store: Store = None,
) -> None:
    """What share of all answers depends on a tool result, the system prompt, a document? Needs --since."""
    from pydantic import TypeAdapter

    from spex_proxy.store.population import GROUPINGS, population
    from spex_proxy.web.filters import checked, with_whole_id
    from spex_proxy.web.query_replies import aggregate_record

    if by is not None and by not in GROUPINGS:
        fail(f"--by can't be {by!r}; there is {', '.join(GROUPINGS)}")
    with _reader(store) as (read, project):
        whole = read(with_whole_id, checked(query, "explanations"), project)
        try:
            found = read(population, project, whole, depth=depth, document=document, by=by)
        except ValueError as error:
            fail(str(error))
    made = aggregate_record(found, depth)
    if is_json:
        typer.echo(TypeAdapter(type(made)).dump_json(made, indent=2).decode())
        return
    table = Table("of all requests", "share", "95% interval", "from", box=None)
    for shares in (made.whole, *made.groups):
        rows = [(s.name, s.share) for s in shares.verdicts]
        rows += [(f"depends on {s.name}", s.share) for s in shares.origins]
        rows += [("depends on the document", shares.document)] if shares.document else []
        for name, share in rows:
            cells = (f"{shares.name}: {name}" if shares.name else name, *_shown(share))
            table.add_row(*(Text(_cell(cell)) for cell in cells))
    console.print(table)
    for note in made.notes:
        console.print(note, style="dim", highlight=False, markup=False)


def _shown(share: Any) -> tuple[str, str, str]:
    if share.value is None:
        return "–", "", "0"
    return f"{share.value:.1%}", f"{share.low:.1%} to {share.high:.1%}", str(share.n)


def index(
    any_id: AnyId,
    index: Annotated[
        str, typer.Option(help="fourier, moebius, bv, bii, sv, sii, k-sii, stii, fbii, fsii, or.")
    ] = "fsii",
    order: Annotated[int, typer.Option(help="Largest sets.", min=1, max=8)] = 2,
    limit: Annotated[int, typer.Option(help="How many, the largest first.", min=1)] = 20,
    store: Store = None,
) -> None:
    """Any index of an explanation, from its stored spectrum."""
    from spex_proxy.engine import interactions
    from spex_proxy.store import browse
    from spex_proxy.web.query_replies import index_record

    with _reader(store) as (read, project):
        explanation = read(browse.story, any_id, project).explanation
    try:
        found = interactions.index(explanation.spectrum, index, order)
    except ValueError as error:
        fail(str(error))
    table = Table("segments", index, box=None)
    for entry in index_record(explanation.id, found, limit).entries:
        table.add_row(" + ".join(map(str, entry.segments)) or "(none)", f"{entry.value:+.4f}")
    console.print(table)


def compare(
    any_id: AnyId,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="The explanation to compare it with; any id.")],
    store: Store = None,
) -> None:
    """Two explanations side by side: which segments are the same, and what changed."""
    from spex_proxy.web.api_query import load_comparison

    with _reader(store) as (read, project):
        found = read(load_comparison, any_id, other, project)
    for note in found.notes:
        console.print(Text(note))
    if found.rank_correlation is not None:
        console.print(f"rank correlation of effects: {found.rank_correlation:.2f}")
    table = Table("first", "second", "change", "segment", box=None)
    for pair in found.pairs:
        shown = pair.first or pair.second
        cells = [f"{s.effect:+.2f}" if s else "–" for s in (pair.first, pair.second)]
        cells.append("–" if pair.change is None else f"{pair.change:+.2f}")
        table.add_row(*cells, Text(_cell(shown.label() if shown else "")))
    console.print(table)
    for words, those in (
        ("in both", found.shared),
        ("only in the first", found.lost),
        ("only in the second", found.gained),
    ):
        for one in those:
            console.print(f"{words}: {' + '.join(map(str, one.numbers))}", highlight=False)
