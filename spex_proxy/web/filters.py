"""The filters of lists as parameters of requests, made from the one definition in facts/query.py."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import Field, replace
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from fastapi import Query as Parameter
from sqlalchemy import Connection

from spex_proxy.facts.query import Noun, Query, fields_of, misplaced
from spex_proxy.store.fitting import refuse_broad
from spex_proxy.store.lookup import find
from spex_proxy.store.search import match_of
from spex_proxy.web.doors import Moment
from spex_proxy.web.errors import Refused

_TYPES = get_type_hints(Query)


def filters_of(noun: Noun) -> Callable[..., Query]:
    """A dependency of FastAPI: the query that a request's parameters say."""

    def query(**given: Any) -> Query:
        said: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in given.items()
            if value is not None
        }
        return checked(Query(**said), noun)

    parameters = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotated(f))
        for f in fields_of(noun)
    ]
    query.__signature__ = inspect.Signature(parameters, return_annotation=Query)  # type: ignore[attr-defined]
    return query


def checked(query: Query, noun: Noun) -> Query:
    """Raises Refused for what no schema can say: not every query was made from the parameters of a list."""
    wrong = misplaced(query.said(), noun)
    if wrong is not None:
        raise Refused(422, "invalid_request", wrong[1], f"query.{wrong[0]}")
    refuse_broad(query, noun)
    try:
        if query.text is not None:
            match_of(query.text)
    except ValueError as error:
        raise Refused(422, "invalid_request", str(error), "query.text") from None
    if query.tag is not None and "=" not in query.tag:
        raise Refused(422, "invalid_request", "write a tag as `key=value`", "query.tag")
    return query


def with_whole_id(conn: Connection, query: Query, project: str) -> Query:
    """Any id of an exchange -> its own. Raises NotFound."""
    if query.exchange is None:
        return query
    found = find(conn, query.exchange, project).exchange_id
    return replace(query, exchange=found or query.exchange)


def _annotated(f: Field[Any]) -> Any:
    """`tuple[State, ...]` becomes a parameter that may be repeated, a moment one that has a zone."""
    kind = _bare(_TYPES[f.name])
    if get_origin(kind) is tuple:
        kind = list[get_args(kind)[0]]  # type: ignore[misc]
    elif f.name in ("since", "until"):
        kind = Moment
    options = f.metadata["limits"]
    return Annotated[kind | None, Parameter(description=f.metadata["help"], **options)]


def _bare(kind: Any) -> Any:
    """`X | None` -> X."""
    if get_origin(kind) in (Union, UnionType) and get_origin(kind) is not Literal:
        return next(part for part in get_args(kind) if part is not type(None))
    return kind
