"""The removal re-test: ask the model again without the segments that are said to have caused its answer.

Two requests, both at temperature 0 and below production's priority: the whole prompt (the control) and the
prompt without the segments. An explanation says what the segments do to the likelihood of one answer; this
says what the model does without them. The flaggers that had flagged the answer look at both new ones.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from spex_proxy.engine.indices import banzhaf_values
from spex_proxy.facts.errors import CannotExplain, NotFound
from spex_proxy.facts.exchange import Exchange, TextRange
from spex_proxy.facts.explanation import Explanation
from spex_proxy.facts.game import Game
from spex_proxy.facts.records import FINAL_STATES
from spex_proxy.facts.retest import MOST_REMOVED, Answers, Raised, Retest, compare, original_text, spoken
from spex_proxy.flows.explain import Parts, go_on
from spex_proxy.flows.flags_again import answering, flags_again
from spex_proxy.flows.transactions import read, write
from spex_proxy.ports.gate.gate import Kept, Turn
from spex_proxy.ports.model_server import ModelServer
from spex_proxy.ports.speaking import speak
from spex_proxy.store import exchanges, explanations, flags, games, outbox, retests
from spex_proxy.wire.answer import Answer
from spex_proxy.wire.chat import read_plain
from spex_proxy.wire.removal import repeatable

WHY = "asked"


@dataclass(frozen=True, slots=True)
class AskedRetest:
    """The re-test that answers the question."""

    retest: Retest
    is_new: bool
    """False if the same is being asked already."""


def top(explanation: Explanation, count: int) -> tuple[int, ...]:
    """The players that made the answer likelier, the strongest `count` of them: what to take out if the answer
    is to change. Raises CannotExplain if none did."""
    effects = banzhaf_values(explanation.spectrum)
    raising = [player for player in range(len(effects)) if effects[player] > 0]
    if explanation.verdict == "nothing_to_explain" or not raising:
        raise CannotExplain("no segment made this answer likelier, so there is none to take out")
    strongest = sorted(raising, key=lambda player: (-effects[player], player))[:count]
    return tuple(sorted(strongest))


def ask_retest(conn: Connection, explanation_id: str, players: Sequence[int], *, who: str, project: str) -> AskedRetest:
    """Leave a job that re-tests, ahead of all that was sampled; the one that is under way for the same players
    if there is one. Raises NotFound, CannotExplain if the content was erased, ValueError for players that
    are not of the game.
    """
    explanation = explanations.load_explanation(conn, explanation_id, project=project)
    chosen = tuple(sorted(set(players)))
    if not 1 <= len(chosen) <= MOST_REMOVED:
        raise ValueError(f"choose 1 to {MOST_REMOVED} different segments to take out, not {len(chosen)}")
    if chosen[0] < 0 or chosen[-1] >= explanation.spectrum.n_players:
        raise ValueError(f"choose segments between 1 and {explanation.spectrum.n_players}")
    if explanation.exchange_id is None:
        raise CannotExplain("this explanation belongs to no exchange, so there is nothing to ask again")
    _still_there(conn, explanation.exchange_id, project)
    for known in retests.stories(conn, explanation.exchange_id, project=project):
        is_same = (known.retest.explanation_id, known.retest.players) == (explanation_id, chosen)
        if is_same and known.state not in FINAL_STATES:
            return AskedRetest(known.retest, is_new=False)
    retest_id = uuid.uuid4().hex
    trace = exchanges.load_trace(conn, explanation.exchange_id, project=project)
    job_id = outbox.enqueue(
        conn, exchange_id=explanation.exchange_id, recipe=explanation.recipe, why=WHY,
        priority=outbox.Priority.ASKED, traceparent=trace.traceparent() if trace else None, project=project,
        kind="retest", task={"retest_id": retest_id},
    )  # fmt: skip
    retest = Retest(retest_id, project, explanation.exchange_id, explanation_id, job_id, chosen, who, datetime.now(UTC))
    retests.save(conn, retest)
    return AskedRetest(retest, is_new=True)


def _still_there(conn: Connection, exchange_id: str, project: str) -> None:
    try:
        kind = exchanges.load_exchange(conn, exchange_id, project=project).kind
    except NotFound as error:
        raise CannotExplain(f"there is nothing left to ask again: {error}") from error
    if kind == "game":
        raise CannotExplain("this explains a game, no request, so there is no prompt to ask again")


async def run_retest(job: outbox.Job, parts: Parts) -> None:
    """Ask, compare, store. Raises UpstreamBusy (try later) or another SpexError (final)."""
    task = job.task or {}
    retest = await read(parts.store, retests.load, str(task.get("retest_id")), project=job.project)
    exchange = await read(parts.store, exchanges.load_exchange, retest.exchange_id, project=job.project)
    explanation = await read(parts.store, explanations.load_explanation, retest.explanation_id, project=job.project)
    game = await read(parts.store, games.load_game, explanation.game_ids[0], project=job.project)
    request = await read(parts.store, exchanges.load_trace, exchange.id, project=job.project)
    salt = f"spex-{secrets.token_hex(16)}"
    server = await parts.servers.choose(exchange.id)
    less = ranges(game, retest.players)
    with parts.telemetry.job_span(exchange, job.id, request):
        said: list[Answer] = []
        for removed in ((), less):
            body = repeatable(exchange, removed, parts.priority, salt)
            said.append(read_plain(exchange.kind, await _spoken(job, parts, server, exchange, body)))
    control, other = said
    answers = Answers(spoken(control.choices[0]), spoken(other.choices[0]))
    looked: tuple[Raised, ...] = ()
    if parts.orders is not None:
        known = await read(parts.store, flags.of_exchange, exchange.id, project=job.project)
        looked = flags_again(
            parts.orders, exchange, known, answering(exchange, control), answering(exchange, other, less)
        )
    outcome = compare(
        original_text(exchange),
        answers,
        looked,
        prompt_tokens=sum(answer.prompt_tokens or 0 for answer in said),
        output_tokens=sum(answer.output_tokens or 0 for answer in said),
    )

    def keep(conn: Connection) -> None:
        known = outbox.load_job(conn, job.id, project=job.project)
        if known.state == "done":
            return  # committed before, when the answer to the commit was lost
        outbox.hold(conn, job)
        retests.keep_answers(conn, retest.id, answers, outcome, datetime.now(UTC), job.project)
        outbox.finish(conn, job, explanation.id)

    await write(parts.store, keep)


async def _spoken(
    job: outbox.Job, parts: Parts, server: ModelServer, exchange: Exchange, body: Mapping[str, Any]
) -> bytes:
    """The answer's body, once production leaves room. Raises ClaimLost if the job is not to be worked on meanwhile."""
    if parts.gate is None:
        return await speak(server, exchange.kind, body, parts.priority)
    turn = Turn((exchange.prompt_tokens or 0) + (exchange.output_tokens or 0), 1, "alone", server.base_url)
    while True:
        said = await parts.gate.ask(turn, lambda _: speak(server, exchange.kind, body, parts.priority))
        if not isinstance(said, Kept):
            return said
        go_on(await write(parts.store, outbox.hold, job))


def ranges(game: Game, players: Sequence[int]) -> tuple[TextRange, ...]:
    """Where the players stand in the messages."""
    chosen = (game.players.segments[player] for player in players)
    return tuple(TextRange(segment.message, segment.char_start, segment.char_end) for segment in chosen)
