"""Captured requests: what is kept, what is found, what is forgotten."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from spex_proxy.facts.errors import NotFound, SpexError, VerificationFailed
from spex_proxy.facts.exchange import TraceRef
from spex_proxy.facts.seals import salted_seal
from spex_proxy.store import browse, codec, exchanges, explanations, games, lookup, outbox
from spex_proxy.store.connect import reading
from spex_proxy.store.tables import contents, marks, metadata, texts
from spex_proxy.store.tables import exchanges as table
from tests.contract.store.samples import Make

TRACE = TraceRef("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", is_sampled=False)
CHOICE: dict[str, Any] = {"explain": True, "why": "explain_rate", "explain_probability": 0.125}
UNTRACED: dict[str, Any] = {"trace": None, "traceparent": None, "tracestate": None}


def test_an_exchange_survives(engine: sa.Engine, make: Make) -> None:
    exchange = make.exchange()
    with engine.begin() as conn:
        assert exchanges.save_captured(conn, [exchanges.Kept(exchange, TRACE, "00-caller", "a=b", **CHOICE)])
    with reading(engine) as conn:
        assert exchanges.load_exchange(conn, exchange.id) == exchange
        assert exchanges.load_trace(conn, exchange.id) == TRACE
        row = conn.execute(sa.select(table)).one()
    assert (row.explain, row.explain_why, row.explain_probability) == (True, "explain_rate", 0.125)
    assert (row.capture_probability, row.n_messages) == (0.25, 2)
    assert (row.traceparent, row.tracestate) == ("00-caller", "a=b")


def test_an_exchange_of_missing_things_survives(engine: sa.Engine, make: Make) -> None:
    exchange = make.exchange(
        kind="completion", finish_reason=None, upstream_id=None, prompt_tokens=None, output_tokens=None,
        prompt_ids=None, output_ids=(), messages=(), request={}, output_text="",
    )  # fmt: skip
    with engine.begin() as conn:
        exchanges.save_captured(conn, [exchanges.Kept(exchange, **UNTRACED, **CHOICE)])
        assert exchanges.load_exchange(conn, exchange.id) == exchange
        assert exchanges.load_trace(conn, exchange.id) is None


def test_saving_again_changes_nothing(engine: sa.Engine, make: Make) -> None:
    exchange = make.exchange()
    with engine.begin() as conn:
        assert exchanges.save_captured(conn, [exchanges.Kept(exchange, **UNTRACED, **CHOICE)])
        salt = exchanges.load_salt(conn, exchange.id)
    with engine.begin() as conn:
        again = make.exchange(id=exchange.id, output_text="other")
        assert not exchanges.save_captured(conn, [exchanges.Kept(again, **UNTRACED, **CHOICE)])
        assert exchanges.load_exchange(conn, exchange.id) == exchange
        assert exchanges.load_salt(conn, exchange.id) == salt


def test_a_batch_keeps_what_is_new_and_the_first_of_equal_ids(engine: sa.Engine, make: Make) -> None:
    known, one, other = make.exchange(), make.exchange(), make.exchange(project="elsewhere")
    twin = make.exchange(id=one.id, output_text="other")
    with engine.begin() as conn:
        assert exchanges.save_captured(conn, []) == set()
        assert exchanges.save_captured(conn, [exchanges.Kept(known, **UNTRACED, **CHOICE)]) == {known.id}
        assert exchanges.known_among(conn, [known, one, other]) == {known.id}
        batch = [exchanges.Kept(each, **UNTRACED, **CHOICE) for each in (one, known, other, twin)]
        assert exchanges.save_captured(conn, batch) == {one.id, other.id}
    with reading(engine) as conn:
        for each in (known, one, other):
            assert exchanges.load_exchange(conn, each.id, project=each.project) == each


def test_every_exchange_has_a_salt_of_its_own(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        salts = {exchanges.load_salt(conn, make.saved(conn).id) for _ in range(5)}
    assert len(salts) == 5
    assert {len(salt) for salt in salts} == {32}


def test_the_first_token_ids_stay(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        exchange = make.saved(conn)
        assert exchanges.load_tokens(conn, exchange.id) is None
        assert exchanges.save_tokens(conn, exchange.id, make.tokens())
        assert not exchanges.save_tokens(conn, exchange.id, make.tokens())
        assert exchanges.load_tokens(conn, exchange.id) == make.tokens()


def test_what_is_not_there_is_said(engine: sa.Engine, make: Make) -> None:
    with reading(engine) as conn:
        for load in (exchanges.load_exchange, exchanges.load_salt, exchanges.load_tokens, exchanges.load_trace):
            with pytest.raises(NotFound, match="'nobody' in project 'default'"):
                load(conn, "nobody")
    with engine.begin() as conn, pytest.raises(NotFound):
        exchanges.save_tokens(conn, "nobody", make.tokens())


def test_projects_do_not_see_each_other(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        a = make.saved(conn, project="a", id="same-id-in-both", output_text="of a")
        b = make.saved(conn, project="b", id="same-id-in-both", output_text="of b")
        assert exchanges.load_exchange(conn, a.id, project="a") == a
        assert exchanges.load_exchange(conn, b.id, project="b") == b
        assert lookup.find(conn, a.id, "a").project == "a"
        assert len(browse.newest(conn, "a", 20)) == 1
        with pytest.raises(NotFound):
            exchanges.load_exchange(conn, a.id)


def test_content_stands_where_it_is_erased_only(engine: sa.Engine, make: Make) -> None:
    """Search every column of every other table for the text, as whoever steals the file would."""
    with engine.begin() as conn:
        exchange = make.saved(conn, output_text="SECRET answer", messages=(), request={"user": "SECRET"})
        exchanges.save_tokens(conn, exchange.id, make.tokens())
        game = games.save_game(conn, make.game(exchange.id))
        games.append_block(conn, game.id, make.block())
        explanations.save_explanation(conn, make.explanation(exchange.id, (game.id,)))
        outbox.enqueue(conn, exchange_id=exchange.id, recipe=make.recipe, why="drawn")
        for table in metadata.sorted_tables:
            if table not in (contents, marks, texts):
                assert "SECRET" not in str(conn.execute(sa.select(table)).all())


def test_erasing_content_leaves_the_evidence(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        exchange = make.saved(conn)
        exchanges.save_tokens(conn, exchange.id, make.tokens())
        game = games.save_game(conn, make.game(exchange.id))
        games.append_block(conn, game.id, make.block())
        explanation = make.explanation(exchange.id, (game.id,))
        explanations.save_explanation(conn, explanation)
    at = exchange.received_at + timedelta(days=200)
    with engine.begin() as conn:
        assert exchanges.erase_content(conn, exchange.id, at) == 2
        assert exchanges.erase_content(conn, exchange.id, at) == 0
        assert conn.execute(sa.select(contents.c.blob, contents.c.salt)).all() == [(None, None)] * 2
        for load in (exchanges.load_exchange, exchanges.load_salt, exchanges.load_tokens):
            with pytest.raises(NotFound, match=r"was erased at 2027-06-10T12:00:00\.123456\+00:00"):
                load(conn, exchange.id)
        with pytest.raises(NotFound, match="erased"):
            exchanges.save_tokens(conn, exchange.id, make.tokens())
    with engine.begin() as conn:  # and with the rows gone altogether
        conn.execute(sa.delete(contents))
    with reading(engine) as conn:
        assert games.load_game(conn, game.id) == game
        assert games.load_blocks(conn, game.id)[0].digest() == make.block().digest()
        assert explanations.load_explanation(conn, explanation.id).interactions == explanation.interactions
        assert lookup.find(conn, exchange.upstream_id).exchange_id == exchange.id
        assert browse.newest(conn, "default", 20)[0].answer == ""


def test_without_the_salt_a_guess_can_not_be_checked(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        exchange = make.saved(conn)
        salt = exchanges.load_salt(conn, exchange.id)
        kept = salted_seal(salt, b"yes")
        exchanges.erase_content(conn, exchange.id, exchange.received_at)
        assert not conn.execute(sa.select(marks)).all()
        assert not conn.execute(sa.select(texts)).all()
        everything = repr([conn.execute(sa.select(table)).all() for table in metadata.sorted_tables])
    assert repr(salt) not in everything
    assert kept != salted_seal(b"", b"yes")


def test_damaged_content_is_said(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        exchange = make.saved(conn)
        conn.execute(sa.update(contents).values(blob=b"SPJ1 nonsense"))
        with pytest.raises(VerificationFailed, match=f"content of {exchange.id} is damaged"):
            exchanges.load_exchange(conn, exchange.id)


def test_content_of_a_newer_version_is_refused_by_name(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        exchange = make.saved(conn)
        future = codec.unpack_json(codec.encode_content(exchange), "it")
        future["messages"][0]["channel"] = "voice"
        conn.execute(sa.update(contents).values(blob=codec.pack_json(future)))
        with pytest.raises(SpexError, match="channel"):
            exchanges.load_exchange(conn, exchange.id)


# -------------------------------------------------------------------------------------- any id finds it


def test_any_id_finds_it(engine: sa.Engine, make: Make) -> None:
    exchange = make.exchange()
    with engine.begin() as conn:
        exchanges.save_captured(conn, [exchanges.Kept(exchange, TRACE, None, None, **CHOICE)])
        older = make.explanation(exchange.id, (), trace_id=None)
        newer = make.explanation(exchange.id, (), created_at=older.created_at + timedelta(seconds=1))
        explanations.save_explanation(conn, older)
        explanations.save_explanation(conn, newer)
    both = (newer.id, older.id)
    expected: dict[str, tuple[lookup.FoundBy, tuple[str, ...]]] = {
        exchange.id: ("exchange", both),
        f" {exchange.upstream_id}\n": ("response", both),
        TRACE.trace_id: ("trace", both),
        older.id: ("explanation", (older.id,)),
        newer.trace_id: ("trace", (newer.id,)),
        exchange.id[:8]: ("exchange", both),
        exchange.upstream_id[:-1]: ("response", both),
        TRACE.trace_id[:12]: ("trace", both),
        older.id[:9]: ("explanation", (older.id,)),
    }
    with reading(engine) as conn:
        for text, (found_by, explanation_ids) in expected.items():
            found = lookup.find(conn, text)
            assert found == lookup.Found("default", exchange.id, explanation_ids, found_by)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "nothing-like-it",
        "019b3c5",
        "%9b3c5d-%",
        "019B3C5D",
        "chatcmpl",
        "' OR 1=1 --",
        "\0" * 9,
        "\ud800" * 9,
    ],
)
def test_what_finds_nothing_says_what_was_tried(engine: sa.Engine, make: Make, text: str) -> None:
    """Too short, other case, wildcards, injections; the last two letters of `chatcmpl` must not be enough."""
    with engine.begin() as conn:
        make.saved(conn, upstream_id=None)
    with reading(engine) as conn, pytest.raises(NotFound, match=r"finds nothing|response ids and trace ids"):
        lookup.find(conn, text)


def test_an_ambiguous_id_names_the_candidates(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        kept = [make.exchange() for _ in range(7)]
        for exchange in kept:
            exchanges.save_captured(conn, [exchanges.Kept(exchange, TRACE, None, None, **CHOICE)])
        for text in (TRACE.trace_id, TRACE.trace_id[:10], "chatcmpl-"):
            with pytest.raises(NotFound, match=r"more than one thing: exchange .*, \.\.\.\. Use one") as caught:
                lookup.find(conn, text)
            assert sum(exchange.id in str(caught.value) for exchange in kept) == 5


def test_an_exchange_and_its_explanation_are_one_thing_to_a_shared_beginning(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        exchange = make.saved(conn, id="0190a2b3-aaaa-7000-8000-000000000001")
        explanation = make.explanation(exchange.id, (), id="0190a2b3-bbbb-7000-8000-000000000002")
        explanations.save_explanation(conn, explanation)
        found = lookup.find(conn, "0190a2b3")
        assert (found.exchange_id, found.explanation_ids) == (exchange.id, (explanation.id,))
        other = make.saved(conn, id="0190a2b3-cccc-7000-8000-000000000003")
        with pytest.raises(NotFound, match=f"exchange {other.id}"):
            lookup.find(conn, "0190a2b3")


def test_a_whole_id_wins_over_a_beginning(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        make.saved(conn, upstream_id="chatcmpl-1234")
        short = make.saved(conn, upstream_id="chatcmpl-123")
        assert lookup.find(conn, "chatcmpl-123").exchange_id == short.id


def test_an_explanation_without_an_exchange_is_found(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        explanation = make.explanation(None, ())
        explanations.save_explanation(conn, explanation)
        found = lookup.find(conn, explanation.id)
        assert (found.exchange_id, found.explanation_ids) == (None, (explanation.id,))


# ---------------------------------------------------------------------------------------------- lists


def test_a_list_says_what_became_of_each(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        first = make.exchange().received_at
        explained, waiting, failed, drawn_not = (
            make.saved(conn, received_at=first + timedelta(seconds=i), output_text="an\nanswer " * (i + 6))
            for i in range(4)
        )
        for exchange in (failed, waiting):
            outbox.enqueue(conn, exchange_id=exchange.id, recipe=make.recipe, why="drawn")
        job = outbox.claim(conn, "w")
        assert job is not None
        outbox.fail(conn, job, "no players", final=True)
        job = outbox.claim(conn, "w")
        assert job is not None
        outbox.hold(conn, job, r2=0.625)
        explanations.save_explanation(conn, make.explanation(explained.id, (), verdict="unreliable"))
        again = make.explanation(explained.id, (), created_at=first + timedelta(days=1))
        explanations.save_explanation(conn, again)
    with reading(engine) as conn:
        rows = browse.newest(conn, "default", 20)
        assert [row.exchange_id for row in rows] == [drawn_not.id, failed.id, waiting.id, explained.id]
        assert [row.state for row in rows] == [
            "captured", "failed: no players", "running, R2 0.62 so far", "reliable",
        ]  # fmt: skip
        assert rows[0].answer.startswith("an answer an")
        assert [len(row.answer) for row in rows] == [60, 60, 60, 59]
        assert (rows[3].explanation_id, rows[3].r2) == (again.id, 0.9)
        assert rows[0].upstream_id == drawn_not.upstream_id
        assert [row.exchange_id for row in browse.newest(conn, "default", 1)] == [drawn_not.id]
        assert browse.newest(conn, "nobody", 20) == []


def test_numbers_of_numpy_are_numbers(engine: sa.Engine, make: Make) -> None:
    """What a parser or an engine hands over need not be Python's own."""
    with engine.begin() as conn:
        saved = make.saved(conn, first_byte_s=np.float64(0.1), prompt_tokens=int(np.int64(7)))
        assert exchanges.load_exchange(conn, saved.id) == saved
