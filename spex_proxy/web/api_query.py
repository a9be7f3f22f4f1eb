"""Questions over many explanations, or about their numbers: interactions, indices, comparisons, aggregates, export."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Response
from fastapi import Query as Parameter
from fastapi.responses import StreamingResponse
from pydantic import TypeAdapter

from spex_proxy.engine.interactions import TABLES, index
from spex_proxy.facts.errors import SpexError, TooBroad
from spex_proxy.facts.query import NOUNS, Noun, Query
from spex_proxy.facts.records import AggregateRecord, ComparisonRecord, IndexRecord, InteractionPage
from spex_proxy.store import browse
from spex_proxy.store.browse_explanations import list_explanations
from spex_proxy.store.browse_interactions import list_interactions
from spex_proxy.store.listing import list_exchanges
from spex_proxy.store.population import USUAL_DEPTH, GroupBy, population
from spex_proxy.study.compare import Comparison, Side, compare, side
from spex_proxy.web import examples_of_queries, query_replies, replies
from spex_proxy.web.doors import AnyId, Cursor, Doors, Limit, Project
from spex_proxy.web.errors import Refused, documented
from spex_proxy.web.filters import filters_of, with_whole_id

JSONL_TYPE = "application/x-ndjson"
MOST_ORDER = 8
EXPORT_PAGE = 200

Document = Annotated[
    str | None,
    Parameter(description="Words that mark a text: which share depends on it?", min_length=1, max_length=400),
]
Depth = Annotated[int, Parameter(description="How many of the strongest terms count.", ge=1, le=32)]


def make_router(doors: Doors) -> APIRouter:
    router = APIRouter(tags=["queries"])
    _add_interactions(router, doors)
    _add_numbers(router, doors)
    _add_aggregates(router, doors)
    for noun in NOUNS:
        _add_export(router, doors, noun)
    return router


def _add_interactions(router: APIRouter, doors: Doors) -> None:
    @router.get("/interactions", responses={200: examples_of_queries.INTERACTION_PAGE, **documented(400, 404, 422)})
    def interactions(
        filters: Annotated[Query, Depends(filters_of("interactions"))],
        limit: Limit = 50,
        cursor: Cursor = None,
        project: Project = None,
    ) -> InteractionPage:
        """Terms of explanations: what alone, or together, moved answers. At most the 32 strongest of each."""
        chosen = project or doors.project
        page = doors.read(
            list_interactions, chosen, doors.read(with_whole_id, filters, chosen), cursor=cursor, limit=limit
        )
        return InteractionPage(tuple(query_replies.interaction_row(line) for line in page.lines), page.next_cursor)


def _add_numbers(router: APIRouter, doors: Doors) -> None:
    errors = documented(400, 404, 409, 422)

    @router.get("/explanations/{any_id}/indices", responses={200: examples_of_queries.INDEX, **errors})
    def indices(
        any_id: AnyId,
        index: Annotated[
            Literal["fourier", "moebius", "bv", "bii", "sv", "sii", "k-sii", "stii", "fbii", "fsii", "or"],
            Parameter(description="Which one; docs/engine.md has their formulas."),
        ] = "fsii",
        order: Annotated[int, Parameter(description="Largest sets.", ge=1, le=MOST_ORDER)] = 2,
        limit: Annotated[int, Parameter(description="Most sets, the largest values first.", ge=1, le=10_000)] = 200,
        project: Project = None,
    ) -> IndexRecord:
        """Any index of cooperative game theory, from the stored spectrum: nothing is asked again."""
        explanation = doors.read(browse.story, any_id, project or doors.project).explanation
        return query_replies.index_record(explanation.id, _index(explanation, index, order), limit)

    @router.get("/explanations/{any_id}/compare", responses={200: examples_of_queries.COMPARISON, **errors})
    def comparison(
        any_id: AnyId,
        other: Annotated[str, Parameter(description="The second explanation; any id.", min_length=1, max_length=200)],
        project: Project = None,
    ) -> ComparisonRecord:
        """Two explanations side by side: which segments are the same, and what changed."""
        found = doors.read(load_comparison, any_id, other, project or doors.project)
        return query_replies.comparison_record(found)


def _index(explanation: Any, name: str, order: int) -> Any:
    if name not in TABLES:
        raise Refused(422, "invalid_request", f"there is no index {name!r}", "query.index")
    spectrum = explanation.spectrum
    try:
        return index(spectrum, name, min(order, max(1, spectrum.n_players)))
    except ValueError as error:
        raise Refused(409, "conflict", str(error), "query.order") from None


def load_comparison(conn: Any, first: str, second: str, project: str) -> Comparison:
    """Two explanations behind any ids. Raises NotFound."""

    def load(any_id: str) -> Side:
        told = browse.story(conn, any_id, project)
        return side(told.explanation, told.game, told.exchange)

    return compare(load(first), load(second))


def _add_aggregates(router: APIRouter, doors: Doors) -> None:
    @router.get("/aggregates", responses={200: examples_of_queries.AGGREGATE, **documented(400, 404, 422)})
    def aggregates(
        filters: Annotated[Query, Depends(filters_of("explanations"))],
        document: Document = None,
        depth: Depth = USUAL_DEPTH,
        by: Annotated[GroupBy | None, Parameter(description="Say it of each group too.")] = None,
        project: Project = None,
    ) -> AggregateRecord:
        """What share of all answers depends on a tool result, on the system prompt, on a document: estimated from
        the explanations of a window (`since` is required; at most 10,000), weighed by their stored probabilities."""
        chosen = project or doors.project
        whole = doors.read(with_whole_id, filters, chosen)
        try:
            found = doors.read(population, chosen, whole, depth=depth, document=document, by=by)
        except ValueError as error:
            raise Refused(422, "invalid_request", str(error), "query.document") from None
        return query_replies.aggregate_record(found, depth)


def _add_export(router: APIRouter, doors: Doors, noun: Noun) -> None:
    stream = {
        200: {"content": {JSONL_TYPE: {"schema": {"type": "string"}}}, "description": "One JSON object a line."},
        **documented(400, 404, 422),
    }

    def export(filters: Query, project: Project = None) -> Response:
        """All rows that fit, one JSON object a line, streamed. Give a time range or another indexed filter."""
        chosen = project or doors.project
        whole = doors.read(with_whole_id, filters, chosen)
        if not whole.said():
            raise TooBroad("an export of everything must be asked for: give at least `since`")
        return StreamingResponse(lines(doors, noun, whole, chosen), media_type=JSONL_TYPE)

    export.__annotations__["filters"] = Annotated[Query, Depends(filters_of(noun))]  # text could not name `noun`
    router.add_api_route(
        f"/{noun}.jsonl", export, methods=["GET"], name=f"export_{noun}", responses=stream,
        response_class=Response,
    )  # fmt: skip


def lines(doors: Doors, noun: Noun, query: Query, project: str) -> Iterator[bytes]:
    """Page by page, each one consistent state: a reader that is slow holds no transaction open.

    Raises SpexError where the server stops before the last page: so the body stays without its end, and no client
    takes it for the whole.
    """
    cursor: str | None = None
    while True:
        rows, cursor = rows_of(noun, doors.read, query, project, cursor)
        yield b"".join(json.dumps(row, ensure_ascii=True, allow_nan=False).encode() + b"\n" for row in rows)
        if cursor is None:
            return
        if doors.is_stopping():
            raise SpexError(f"an export of {noun} was broken off, because the server is stopping")


def rows_of(
    noun: Noun, read: Callable[..., Any], query: Query, project: str, cursor: str | None
) -> tuple[list[dict[str, Any]], str | None]:
    """One page of records as plain JSON, and where the next begins. `read(function, ...)` opens the store."""
    options: dict[str, Any] = {"cursor": cursor, "limit": EXPORT_PAGE}
    made: list[Any]
    if noun == "exchanges":
        page = read(list_exchanges, project, query, with_answers=False, **options)
        made = [replies.exchange_row(row, project, preview=False) for row in page.rows]
    elif noun == "explanations":
        page = read(list_explanations, project, query, **options)
        made = [replies.explanation_row(line) for line in page.lines]
    else:
        page = read(list_interactions, project, query, **options)
        made = [query_replies.interaction_row(line) for line in page.lines]
    dumped = [TypeAdapter(type(one)).dump_python(one, mode="json") for one in made]
    return dumped, page.next_cursor
