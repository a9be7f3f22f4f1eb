"""The tables of searching. All that stands in them is somebody's content, and dies with it (search.forget)."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TSVECTOR

from spex_proxy.store.columns import Id, UtcDateTime, metadata, of, project_column, required

marks = sa.Table(
    "marks",
    metadata,
    project_column(),
    sa.Column("exchange_id", Id, primary_key=True),
    sa.Column("name", Id, primary_key=True),  # `user`, or `tag`
    sa.Column("value", Id, primary_key=True),  # who asked; `key=value` of the request's metadata
    required("received_at", UtcDateTime),  # the exchange's own: lists are by time
    of("exchanges", "exchange_id"),
    sa.Index("ix_marks_value_time", "project", "name", "value", "received_at", "exchange_id"),
)
"""What a client said of itself and of its request."""

texts = sa.Table(
    "texts",
    metadata,
    project_column(),
    sa.Column("exchange_id", Id, primary_key=True),
    # In the order of time: microseconds since 1970, then 11 bits that tell exchanges of one microsecond apart.
    required("number", sa.BigInteger()),
    # Words and their places on PostgreSQL; on SQLite the words alone, whose places stand in `text_index`.
    required("words", sa.String().with_variant(TSVECTOR(), "postgresql")),
    of("exchanges", "exchange_id"),
    sa.Index("uq_texts_number", "number", unique=True),
    sa.Index("ix_texts_words", "words", postgresql_using="gin").ddl_if(dialect="postgresql"),
)
"""The words of prompt and answer, to be found by (wire.terms)."""

MAKE_TEXT_INDEX = (
    "CREATE VIRTUAL TABLE text_index USING fts5(words, content='texts', content_rowid='number', columnsize=0, "
    "tokenize='unicode61 remove_diacritics 0')"
)
"""Of SQLite: it is told of every row of `texts` that comes or goes."""

sa.event.listen(texts, "after_create", sa.DDL(MAKE_TEXT_INDEX).execute_if(dialect="sqlite"))  # type: ignore[no-untyped-call]
sa.event.listen(texts, "before_drop", sa.DDL("DROP TABLE text_index").execute_if(dialect="sqlite"))  # type: ignore[no-untyped-call]
