"""What stands behind the doors: handed in by wiring, so that `web` opens, starts and configures nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

from fastapi import Header, Path, Query
from pydantic import AfterValidator, AwareDatetime, BeforeValidator
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from spex_proxy.facts.explanation import Check
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.review import LABELS
from spex_proxy.flows.acting import Orders
from spex_proxy.plug.load import Plugins
from spex_proxy.store.cases import USUAL_HOLD
from spex_proxy.store.connect import reading
from spex_proxy.store.listing import decode_cursor, encode_cursor

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Doors:
    """Handlers are synchronous and run in threads, as the store is."""

    store: Callable[[], Engine]
    """Raises SettingsError or StoreError while the store can't be used."""
    project: str
    """Where a request names no project."""
    recipe: Recipe
    """How to explain what a person asks for, but for what the request says."""
    plugins: Plugins
    verify: Callable[[str, str], Sequence[Check]]
    """(explanation id, project) -> checks. Takes seconds: wiring runs it where it disturbs nobody."""
    is_stopping: Callable[[], bool]
    """True once the server wants to end: streams end by themselves then."""
    host: str = "127.0.0.1"
    """Address that the second port listens on."""
    names: tuple[str, ...] = ()
    """Names that it may be reached under; see web/guard.py."""
    relay: str = "http://127.0.0.1:8080"
    """Where apps reach the relay; shown to people."""
    labels: tuple[str, ...] = LABELS
    """What a reviewer's verdict may be."""
    hold: timedelta = USUAL_HOLD
    """How long a reviewer's claim holds."""
    orders: Orders | None = None
    """Which rules act upon flags from outside; None: none does."""

    def read(self, function: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        """`function(connection, ...)` on one consistent state of the store."""
        with reading(self.store()) as connection:
            return function(connection, *arguments, **options)

    def write(self, function: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        """`function(connection, ...)` in one transaction; once more if another one took its key meanwhile."""
        try:
            with self.store().begin() as connection:
                return function(connection, *arguments, **options)
        except IntegrityError:
            with self.store().begin() as connection:
                return function(connection, *arguments, **options)


# ---------------------------------------------------------------------- parameters of many requests

MOST_ROWS = 200
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_SHAPE = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d")
CURSOR_EXAMPLE = encode_cursor(datetime(2026, 11, 22, 17, 0, 7, tzinfo=UTC), "01a20433-68dc-7fe9-b901-53f5e246a0ef")


def _shaped(value: object) -> object:
    """Only what looks like a date and time: pydantic would take `12` as twelve seconds after 1970."""
    if isinstance(value, str) and not _SHAPE.match(value):
        raise ValueError("write a date and time with a zone: 2026-11-22T12:00:00Z")
    return value


def _number(value: object) -> object:
    """JSON's numbers only, 64.0 too; pydantic would take `"64"` and `true` for numbers."""
    if isinstance(value, str | bool):
        raise ValueError("write a number, without quotes")
    return value


def _in_utc(moment: datetime) -> datetime:
    """Or the end of all time that it is nearest to: with a zone, the first and last day reach beyond it."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return _FIRST if moment.year == 1 else _LAST


def _cursor(value: str) -> str:
    decode_cursor(value)  # ValueError is answered 422, and names the parameter
    return value


Number = BeforeValidator(_number)
AnyId = Annotated[
    str,
    Path(
        description="Ours, vLLM's (`chatcmpl-...`), a trace id, or at least the first 8 characters of one.",
        min_length=1,
        max_length=200,
    ),
]
JobId = Annotated[str, Path(description="The job's id, whole.", min_length=1, max_length=200)]
Project = Annotated[str | None, Query(description="Instead of the server's own project.", min_length=1, max_length=200)]
Moment = Annotated[AwareDatetime, BeforeValidator(_shaped), AfterValidator(_in_utc)]
Since = Annotated[Moment | None, Query(description="At this moment or later.")]
Until = Annotated[Moment | None, Query(description="Before this moment.")]
Limit = Annotated[int, Query(description="Most rows of one page.", ge=1, le=MOST_ROWS)]
Cursor = Annotated[
    Annotated[str, AfterValidator(_cursor)] | None,
    Query(
        description="`next_cursor` of the page before; the filters stay the same.",
        min_length=1,
        max_length=400,
        examples=[CURSOR_EXAMPLE],
    ),
]
IdempotencyKey = Annotated[
    str | None,
    Header(description="Asking again with the same key gives the same job.", min_length=1, max_length=200),
]
