"""Games, evidence and explanations: kept once, loaded equal, tampering seen."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import numpy as np
import pytest
import sqlalchemy as sa

from spex_proxy.facts.errors import NotFound, SpexError, VerificationFailed
from spex_proxy.facts.evidence import Evidence
from spex_proxy.facts.exchange import Segmentation
from spex_proxy.facts.explanation import Explanation
from spex_proxy.store import explanations, games
from spex_proxy.store.connect import reading
from spex_proxy.store.tables import evidence_blocks, interactions
from spex_proxy.store.tables import explanations as table
from tests.contract.store.samples import Make


def assert_equal(a: Explanation, b: Explanation) -> None:
    """Arrays have no equality of their own, so that the facts have none either."""
    for field in dataclasses.fields(Explanation):
        before, after = getattr(a, field.name), getattr(b, field.name)
        if field.name == "spectrum":
            assert before.players() == after.players()
            assert before.coefficients.tobytes() == after.coefficients.tobytes()
            assert before.standard_errors.tobytes() == after.standard_errors.tobytes()
        elif field.name == "how":
            np.testing.assert_equal(after, dict(before))
        else:
            assert before == after, field.name


# --------------------------------------------------------------------------------------------- games


def test_a_game_survives(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        exchange = make.saved(conn)
        coarse = games.save_game(conn, make.game(exchange.id))
        fine = make.game(exchange.id, parent_game_id=coarse.id, digest="hmac-sha256:11")
        assert games.save_game(conn, fine) == fine
        assert games.load_game(conn, coarse.id) == coarse
        assert games.load_game(conn, fine.id) == fine
        with pytest.raises(NotFound, match="no game 'nobody'"):
            games.load_game(conn, "nobody")


def test_roles_of_strange_letters_survive(engine: sa.Engine, make: Make) -> None:
    """A client may call a role anything that JSON can spell."""
    segment = make.players(1).segments[0]
    strange = dataclasses.replace(segment, role="a\0b", provenance="\ud800 'x'; DROP TABLE games")
    with engine.begin() as conn:
        game = make.game(None, players=Segmentation("word", (strange,)))
        games.save_game(conn, game)
        assert games.load_game(conn, game.id) == game


def test_the_same_question_is_the_same_game(engine: sa.Engine, make: Make) -> None:
    """With an exchange and without one: in SQL, two NULLs are never equal."""
    with engine.begin() as conn:
        for exchange_id in (make.saved(conn).id, None):
            first = games.save_game(conn, make.game(exchange_id))
            assert games.save_game(conn, make.game(exchange_id)) == first
            assert games.save_game(conn, first) == first
            other = make.game(exchange_id, digest="hmac-sha256:other")
            assert games.save_game(conn, other) == other


def test_an_id_is_not_given_to_two_games(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        game = games.save_game(conn, make.game(None))
        with pytest.raises(ValueError, match="is taken"):
            games.save_game(conn, dataclasses.replace(game, digest="hmac-sha256:other"))


def test_workers_that_race_get_the_same_game(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        exchange = make.saved(conn)
    barrier = threading.Barrier(4)

    def save(_: int) -> str:
        game = make.game(exchange.id)
        barrier.wait()
        with engine.begin() as conn:
            return games.save_game(conn, game).id

    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(save, range(4)))) == 1


# ------------------------------------------------------------------------------------------ evidence


def test_evidence_survives_in_order(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        game = games.save_game(conn, make.game(None))
        assert games.load_blocks(conn, game.id) == ()
        for number in (2, 0, 1):
            assert games.append_block(conn, game.id, make.block(number, m=number + 1))
        loaded = games.load_blocks(conn, game.id)
        assert [block.number for block in loaded] == [0, 1, 2]
        assert [b.digest() for b in loaded] == [make.block(n, m=n + 1).digest() for n in range(3)]
        assert (loaded[0].prompt_tokens, loaded[0].cached_tokens, loaded[0].seconds) == (400, 100, 0.7)
        assert len(Evidence.from_blocks(3, loaded)) > 0


def test_the_first_answer_stands(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        game = games.save_game(conn, make.game(None))
        first = make.block(0)
        assert games.append_block(conn, game.id, first)
        late = dataclasses.replace(first, values=first.values + 1)
        assert not games.append_block(conn, game.id, late)
        assert games.load_blocks(conn, game.id)[0].digest() == first.digest()


def test_a_block_needs_its_game(engine: sa.Engine, make: Make) -> None:
    with pytest.raises(sa.exc.IntegrityError), engine.begin() as conn:
        games.append_block(conn, "nobody", make.block())


@pytest.mark.parametrize("column", ["masks", "mask_values", "logprobs", "replicates"])
def test_one_changed_bit_is_seen(engine: sa.Engine, make: Make, column: str) -> None:
    with engine.begin() as conn:
        game = games.save_game(conn, make.game(None))
        games.append_block(conn, game.id, make.block(0))
        games.append_block(conn, game.id, make.block(1))
        blob = conn.execute(sa.select(evidence_blocks.c[column]).where(evidence_blocks.c.number == 1)).scalar_one()
        changed = bytes([blob[0] ^ 0x80]) + blob[1:]
        conn.execute(sa.update(evidence_blocks).where(evidence_blocks.c.number == 1).values({column: changed}))
        with pytest.raises(VerificationFailed, match=f"evidence block 1 of game {game.id} was changed"):
            games.load_blocks(conn, game.id)


def test_a_block_moved_to_another_place_is_seen(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        game = games.save_game(conn, make.game(None))
        games.append_block(conn, game.id, make.block(0))
        conn.execute(sa.update(evidence_blocks).values(number=5))
        with pytest.raises(VerificationFailed, match="evidence block 5"):
            games.load_blocks(conn, game.id)


# -------------------------------------------------------------------------------------- explanations


def test_an_explanation_survives(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        exchange = make.saved(conn)
        cited = tuple(games.save_game(conn, make.game(exchange.id, digest=f"hmac-sha256:{i}")).id for i in range(3))
        explanation = make.explanation(exchange.id, cited[::-1])
        explanations.save_explanation(conn, explanation)
    with reading(engine) as conn:
        assert_equal(explanation, explanations.load_explanation(conn, explanation.id))


def test_an_explanation_of_nothing_survives(engine: sa.Engine, make: Make) -> None:
    nan = float("nan")
    with engine.begin() as conn:
        explanation = make.explanation(
            None, (), interactions=(), flags=(), how={}, verdict="nothing_to_explain", trace_id=None, span_id=None,
            fidelity=dataclasses.replace(make.explanation(None, ()).fidelity, r2=nan, r2_low=nan, r2_high=nan),
        )  # fmt: skip
        explanations.save_explanation(conn, explanation)
        loaded = explanations.load_explanation(conn, explanation.id)
        assert np.isnan(loaded.fidelity.r2)
        assert (loaded.interactions, loaded.flags, loaded.how) == ((), (), {})
        assert conn.scalar(sa.select(table.c.r2)) is None


def test_the_newest_explanation_is_the_one_that_counts(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        exchange = make.saved(conn)
        assert explanations.latest_for_exchange(conn, exchange.id) is None
        newer = make.explanation(exchange.id, ())
        older = make.explanation(exchange.id, (), created_at=newer.created_at - timedelta(hours=1))
        explanations.save_explanation(conn, newer)
        explanations.save_explanation(conn, older)
        latest = explanations.latest_for_exchange(conn, exchange.id)
        assert latest is not None
        assert_equal(newer, latest)


def test_an_explanation_needs_its_games(engine: sa.Engine, make: Make) -> None:
    with pytest.raises(sa.exc.IntegrityError), engine.begin() as conn:
        explanations.save_explanation(conn, make.explanation(None, ("nobody",)))
    with reading(engine) as conn:
        assert conn.scalar(sa.select(sa.func.count()).select_from(table)) == 0


def test_interactions_are_for_searching_and_few(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        explanation = make.explanation(None, ())
        explanations.save_explanation(conn, explanation)
        found = conn.execute(
            sa.select(interactions.c.rank, interactions.c.players).where(interactions.c.size == 2)
        ).all()
        assert found == [(0, [1, 2])]
        many = make.explanation(None, (), interactions=explanation.interactions * 17)
        with pytest.raises(ValueError, match="34 interactions; at most 32"):
            explanations.save_explanation(conn, many)


def test_a_damaged_spectrum_is_seen(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        explanation = make.explanation(None, ())
        explanations.save_explanation(conn, explanation)
        blob = conn.execute(sa.select(table.c.spectrum)).scalar_one()
        conn.execute(sa.update(table).values(spectrum=blob[:40] + b"\x01" + blob[41:]))
        with pytest.raises(VerificationFailed, match=f"spectrum of explanation {explanation.id} is damaged"):
            explanations.load_explanation(conn, explanation.id)
        with pytest.raises(NotFound, match="no explanation 'nobody'"):
            explanations.load_explanation(conn, "nobody")


@pytest.mark.parametrize("column", ["recipe", "target", "fidelity"])
def test_an_explanation_of_a_newer_version_is_refused_by_name(engine: sa.Engine, make: Make, column: str) -> None:
    with engine.begin() as conn:
        explanation = make.explanation(None, ())
        explanations.save_explanation(conn, explanation)
        stored = conn.execute(sa.select(table.c[column])).scalar_one()
        conn.execute(sa.update(table).values({column: stored | {"hue": 1}}))
        with pytest.raises(SpexError, match=f"{column} of explanation {explanation.id} .*newer.*hue"):
            explanations.load_explanation(conn, explanation.id)
