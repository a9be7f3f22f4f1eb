"""What explains where less is to be had: the first token alone, and answers generated anew by any server."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from rich.console import Console
from sqlalchemy import Engine

from spex_proxy.facts.errors import BadReply
from spex_proxy.facts.evidence import Probe
from spex_proxy.flows import batch as batch_flow
from spex_proxy.flows.transactions import read
from spex_proxy.flows.work import Retries
from spex_proxy.ports.model_server import OTHER, ModelInfo, ModelServer
from spex_proxy.ports.scorers.choose import Scorers
from spex_proxy.store import exchanges, games
from spex_proxy.study.sheet import make_sheet
from spex_proxy.study.terminal import explanation_panel
from spex_proxy.study.view import make_view
from spex_proxy.wire.engine import Layout
from tests.story.explaining import Desk, question, sentences
from tests.story.scripted_model import ANSWER, NAME, SERVER, ScriptedModel, planted
from tests.story.upstream import Seen, Step, answer

GAME = planted(-12, {("Bravo",): 1.5, ("Echo",): -0.5, ("Alpha", "Delta"): 4})
ONLY = {"/v1/models", "/v1/chat/completions"}


class OtherServer(ScriptedModel):
    """Speaks OpenAI's chat language and nothing else: no version, no tokenizer, no log-probabilities of a prompt; and
    refuses fields that it does not know. Its answer tells which of the words it has read."""

    def __init__(self) -> None:
        super().__init__(GAME)
        self.says = lambda prompt: (
            ("It is so" if "Alpha" in prompt and "Delta" in prompt else "No")
            + (" today." if "Bravo" in prompt else ".")
        )
        self.bodies: list[dict[str, Any]] = []

    async def _respond(self, seen: Seen) -> Sequence[Step]:
        path = seen.target.decode()
        if path not in ONLY:
            return [answer(b'{"error": {"message": "Not Found"}}', status="404 Not Found")]
        if path == "/v1/chat/completions":
            body = json.loads(seen.body)
            if unknown := {"priority", "cache_salt", "prompt_logprobs"} & set(body):
                said = json.dumps({"error": {"message": f"unknown field {unknown.pop()}"}}).encode()
                return [answer(said, status="400 Bad Request")]
            self.bodies.append(body)
        return await super()._respond(seen)


@pytest.fixture
def other() -> Iterator[OtherServer]:
    with OtherServer() as server:
        yield server


def make_desk(model: ScriptedModel, store: Engine, scorer: str) -> Desk:
    return Desk(model.url, store, scorer=scorer, retries=Retries(pause_s=0.0))


# ---- regenerate


async def test_any_server_is_explained_by_what_it_says_without_segments(other: OtherServer, store: Engine) -> None:
    """Words of the answer that come again: `It is so` takes two segments together, `today` one, the full stop none."""
    desk = make_desk(other, store, "auto")
    exchange_id = desk.ask(question(sentences(5), max_tokens=500, temperature=0.7))
    found = await desk.explanation()
    assert found.fidelity.r2 == pytest.approx(1.0)
    assert (found.fidelity.value_full, found.fidelity.value_empty) == (5, 1)
    terms = {term.players: term.moebius for term in found.interactions if abs(term.moebius) > 1e-6}
    assert terms == pytest.approx({(0, 3): 3.0, (1,): 1.0})
    assert all(check.is_passed for check in desk.checks(found.id)), desk.checks(found.id)
    asked = other.bodies[1:]
    assert len(asked) == found.cost.masks == 32 + 2
    assert {body["temperature"] for body in asked} == {0}
    assert max(body["max_tokens"] for body in asked) < 500
    assert found.cost.prompt_tokens > 0

    exchange = await read(store, exchanges.load_exchange, exchange_id, project="default")
    game = await read(store, games.load_game, found.game_ids[0], project="default")
    assert (game.scorer.name, game.scorer.server) == ("regenerate", OTHER)
    assert [note for note in game.players.notes if "values are no log-probabilities" in note]
    shown = Console(width=160, record=True, file=io.StringIO())
    shown.print(explanation_panel(make_view(found, game, exchange)))
    said = " ".join(shown.export_text().split())
    assert "the scorer regenerate asked" in said
    assert "tokens of the answer that came again: 5.00 with all segments, 1.00 with none" in said
    assert "nats" not in said
    assert make_sheet(found, game, exchange, None).unit == "tokens"
    desk.close()


async def test_why_it_is_taken_is_told(other: OtherServer) -> None:
    async with ModelServer(other.url) as server:
        info = await server.info(NAME)
        choice = await Scorers(server, "auto", 100).choice(info)
    assert (info.server, choice.name) == (OTHER, "regenerate")
    for words in (
        "nothing else works",
        "no engine",
        "no generate: 404",
        "no completions: POST /tokenize answered 404",
    ):
        assert words in choice.why


async def test_an_exchange_that_was_cut_into_words_is_not_scored_by_ids(other: OtherServer, store: Engine) -> None:
    desk = make_desk(other, store, "regenerate")
    exchange = desk.ask(question(sentences(2)))
    await desk.explanation()
    desk.scorer = "completions"
    desk.queue_again(exchange, seed=1)
    (report,) = await desk.work_off()
    assert report.error is not None
    assert "was explained by its words" in report.error
    desk.close()


async def test_a_masker_that_fills_in_is_refused_with_the_reason(other: OtherServer, store: Engine) -> None:
    desk = make_desk(other, store, "regenerate")
    exchange = desk.ask(question(sentences(2)))
    await desk.work_off()
    desk.queue_again(exchange, masker="placeholder")
    (report,) = await desk.work_off()
    assert "the masker 'placeholder' puts tokens in their place" in str(report.error)
    desk.close()


async def test_where_ids_are_known_the_same_words_are_counted_by_tokens(store: Engine) -> None:
    """A vLLM server, told to regenerate: players and answer keep their token ids, and our fields are sent."""
    with ScriptedModel(GAME) as model:
        desk = make_desk(model, store, "regenerate")
        model.says = lambda prompt: ANSWER if "Bravo" in prompt else " Not now."
        desk.ask(question(sentences(3)))
        found = await desk.explanation()
        assert [term.players for term in found.interactions if abs(term.moebius) > 1e-6] == [(1,)]
        assert (found.fidelity.value_full, found.fidelity.value_empty) == (4, 1)  # the full stop comes always
        bodies = [json.loads(s.body) for s in model.upstream.requests if s.target == b"/v1/chat/completions"]
        assert {body.get("priority") for body in bodies[1:]} == {100}
        assert len({body.get("cache_salt") for body in bodies[1:]}) == 1
        assert all(check.is_passed for check in desk.checks(found.id))
        desk.close()


# ---- first_token


async def test_the_first_token_alone(store: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_flow, "BUSY_PAUSE_S", 0.001)
    with ScriptedModel(GAME) as model:
        desk = make_desk(model, store, "first_token")
        desk.ask(question(sentences(5)))
        found = await desk.explanation()
        assert found.fidelity.r2 == pytest.approx(1.0)
        assert next(i for i in found.interactions if i.players == (0, 3)).moebius == pytest.approx(4)
        assert (found.target.start, found.target.end, found.target.is_cut) == (0, 1, True)
        assert any(flag.name == "output_cut" for flag in found.flags)
        assert all(check.is_passed for check in desk.checks(found.id)), desk.checks(found.id)
        sent = [json.loads(s.body) for s in model.upstream.requests if b"logprob_token_ids" in s.body]
        assert {(body["max_tokens"], body["temperature"], body["priority"]) for body in sent} == {(1, 0, 100)}
        assert {len(body["prompt"]) for body in sent} == {1}
        assert found.cost.prompt_tokens == sum(len(ids) for body in sent for ids in body["prompt"])
        desk.close()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda choice: choice.update(logprobs=None), "does not know logprob_token_ids"),
        (lambda choice: choice["logprobs"]["top_logprobs"][0].clear(), "does not know logprob_token_ids"),
        (lambda choice: choice["logprobs"].update(top_logprobs=[{"token_id:9": 3.0}]), "positive"),
        (lambda choice: choice.update(index=5), "no index 0"),
    ],
)
async def test_a_reply_without_what_was_asked_is_refused(change: Any, why: str) -> None:
    with ScriptedModel(GAME) as model:
        model.ids_of(ANSWER)
        told = model._next_token

        def spoilt(body: Any) -> dict[str, Any]:
            reply = told(body)
            change(reply["choices"][-1])
            return reply

        first = model.ids_of(ANSWER)[0]
        model._next_token = spoilt  # type: ignore[method-assign]
        async with ModelServer(model.url) as server:
            scorer = await Scorers(server, "first_token", 100).make(ModelInfo(NAME, SERVER, 4096), Layout((1,), ()))
            probe = Probe(tuple(model.ids_of("Alpha Bravo")), (9,) if why == "positive" else (first,), "")
            if why == "positive":
                model.logprobs = lambda ids: [-1.0]  # type: ignore[method-assign, assignment]
            with pytest.raises(BadReply, match=why):
                await scorer.score([probe], {})
            with pytest.raises(ValueError, match="one token"):
                await scorer.score([Probe((1,), (2, 3), "")], {})
