"""One explanation through each scorer: the same values, every token counted, nothing answered asked again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from spex_proxy.facts.errors import BadReply, UpstreamError
from spex_proxy.facts.evidence import Probe
from spex_proxy.flows import batch as batch_flow
from spex_proxy.flows.work import Retries
from spex_proxy.ports.model_server import ModelInfo, ModelServer
from spex_proxy.ports.scorers.choose import Scorers
from spex_proxy.wire.engine import PROTOCOL, Layout
from tests.story.explaining import RECIPE, Desk, question, sentences
from tests.story.scripted_backends import BackedModel
from tests.story.scripted_model import ANSWER, NAME, SERVER, planted

GAME = planted(-12, {("Bravo",): 1.5, ("Echo",): -0.5, ("Alpha", "Delta"): 4})
INFO = ModelInfo(NAME, SERVER, 4096)
MASKS = 32 + 2
"""Of five players, the full prompt three times."""


@pytest.fixture
def model() -> Iterator[BackedModel]:
    with BackedModel(GAME) as server:
        yield server


@pytest.fixture
def desk(model: BackedModel, store: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(batch_flow, "BUSY_PAUSE_S", 0.001)
    made = Desk(model.url, store, scorer="auto", retries=Retries(pause_s=0.0))
    yield made
    made.close()


def scorer_of(store: Engine) -> str:
    with store.connect() as connection:
        return str(connection.exec_driver_sql("SELECT json_extract(scorer, '$.name') FROM games").scalar_one())


@pytest.mark.parametrize("backend", ["engine", "generate", "completions"])
async def test_each_scorer_finds_the_planted_game(backend: str, desk: Desk, model: BackedModel, store: Engine) -> None:
    model.backends = {backend}
    desk.ask(question(sentences(5)))
    found = await desk.explanation()
    assert scorer_of(store) == backend
    assert found.fidelity.r2 == pytest.approx(1.0)
    assert found.fidelity.noise_sigma == 0
    joint = next(i for i in found.interactions if i.players == (0, 3))
    assert (joint.fourier, joint.moebius) == pytest.approx((1, 4))
    assert found.cost.masks == MASKS
    assert all(check.is_passed for check in desk.checks(found.id))
    if backend != "completions":
        assert (found.cost.prompt_tokens, found.cost.cached_tokens) == (model.prompt_tokens, model.cached_tokens)
        assert found.cost.cached_tokens > found.cost.prompt_tokens / 4


async def test_a_mask_is_asked_once_but_for_rows_that_the_cache_swallowed(desk: Desk, model: BackedModel) -> None:
    model.backends = {"engine"}
    desk.ask(question(sentences(5)))
    await desk.explanation()
    often = Counter(model.asked)
    assert len(often) == 32
    full = max(often, key=len)
    assert often[full] == 3  # what measures noise; the plugin knows repeats, and reads no cache for them
    assert sum(often.values()) <= MASKS + 2  # no more than the retries of rows that ended inside a cached block


@pytest.mark.parametrize("lines", [1, 5, 20])
async def test_what_came_before_the_answer_broke_off_is_kept(desk: Desk, model: BackedModel, lines: int) -> None:
    model.backends = {"engine"}
    desk.ask(question(sentences(5)))
    model.cuts_after = lines
    found = await desk.explanation()
    assert found.fidelity.r2 == pytest.approx(1.0)
    assert found.cost.masks == MASKS
    first, *_ = desk.reports
    assert first.progress is not None
    blocks = [report.progress.masks for report in desk.reports if report.progress]
    assert lines in blocks  # a block of exactly what was answered


async def test_a_mask_for_which_there_is_no_room_is_asked_later(desk: Desk, model: BackedModel) -> None:
    model.backends = {"engine"}
    desk.ask(question(sentences(5)))
    model.busy_masks = {2, 3, 7}
    found = await desk.explanation()
    assert (found.cost.masks, found.fidelity.r2) == (MASKS, pytest.approx(1.0))
    assert len(Counter(model.asked)) == 32


async def test_no_room_for_any_mask_sends_the_job_back_to_the_queue(desk: Desk, model: BackedModel) -> None:
    model.backends = {"engine"}
    exchange = desk.ask(question(sentences(2)))
    model.cuts_after = 0
    (report,) = await desk.work_off(1)
    assert report.explanation is not None  # asked again within the same try
    assert desk.jobs(exchange)[0].state == "done"


@pytest.mark.parametrize("backend", ["engine", "generate"])
async def test_rows_that_never_come_end_the_job_with_a_reason(desk: Desk, model: BackedModel, backend: str) -> None:
    model.backends = {backend}
    model.never = True
    exchange = desk.ask(question(sentences(3)))
    await desk.work_off()
    (job,) = desk.jobs(exchange)
    assert job.state == "failed"
    assert job.reason is not None
    assert ("no log-probability" if backend == "engine" else "null") in job.reason


async def test_equal_prompts_are_asked_once(desk: Desk, model: BackedModel) -> None:
    """Leaving out either of two equal sentences gives the same prompt, and one reading serves both masks."""
    desk.ask(question("Alpha is here. Bravo is here. Bravo is here."))
    found = await desk.explanation()
    assert found.cost.masks == 8 + 2
    often = Counter(model.asked)
    assert len(often) == 6
    assert sorted(often.values())[-2:] == [1, 3]
    assert all(check.is_passed for check in desk.checks(found.id))


async def test_a_masker_that_blanks_messages_is_explained_with_few_questions(store: Engine, model: BackedModel) -> None:
    model.backends = {"engine"}
    desk = Desk(model.url, store, replace(RECIPE, masker="blank_message"), scorer="auto")
    desk.ask(question(sentences(4)))
    found = await desk.explanation()
    assert found.cost.masks == 16 + 2
    assert len(Counter(model.asked)) == 2  # one message: all of it, or nothing of it
    assert all(check.is_passed for check in desk.checks(found.id))
    desk.close()


async def test_a_masker_that_fills_in_is_explained(store: Engine, model: BackedModel) -> None:
    model.backends = {"engine"}
    desk = Desk(model.url, store, replace(RECIPE, masker="placeholder"), scorer="auto")
    desk.ask(question(sentences(5)))
    found = await desk.explanation()
    assert found.fidelity.r2 == pytest.approx(1.0)  # the planted game reads words, and dots are none
    assert len({len(ids) for ids in model.asked}) == 1
    assert any("..." in model.text_of(ids) for ids in model.asked)
    assert all(check.is_passed for check in desk.checks(found.id))
    desk.close()


# ---- which one is taken ----


@pytest.mark.parametrize(
    ("backends", "name", "why"),
    [
        ({"engine", "generate"}, "engine", "the plugin spex-proxy-vllm is loaded"),
        ({"generate"}, "generate", "no engine: the plugin spex-proxy-vllm is not loaded"),
        (set(), "completions", "no generate: 403: scale-out is off"),
    ],
)
async def test_the_cheapest_that_the_server_can_do(model: BackedModel, backends: set[str], name: str, why: str) -> None:
    model.backends = backends
    async with ModelServer(model.url) as server:
        scorers = Scorers(server, "auto", 100)
        for _ in range(2):
            choice = await scorers.choice(INFO)
            assert choice.name == name
            assert why in choice.why
        assert (await scorers.make(INFO, Layout((1, 2), ()))).facts.name == name
    questions = [seen for seen in model.upstream.requests if seen.target == b"/inference/v1/generate"]
    assert len(questions) == (0 if name == "engine" else 1)


async def test_a_plugin_that_speaks_another_protocol_is_not_asked(model: BackedModel) -> None:
    model.backends = {"engine"}
    model._routes["/v1/spex/load"] = lambda _: (200, {"protocol": PROTOCOL + 1})
    async with ModelServer(model.url) as server:
        choice = await Scorers(server, "auto", 100).choice(INFO)
    assert choice.name == "completions"
    assert f"the plugin speaks protocol {PROTOCOL + 1}, this is {PROTOCOL}" in choice.why


async def test_what_is_set_is_taken_whatever_the_server_can_do(model: BackedModel) -> None:
    async with ModelServer(model.url) as server:
        scorers = Scorers(server, "engine", 100)
        assert (await scorers.choice(INFO)).why == "set by SPEX_SCORER"
        scorer = await scorers.make(INFO, Layout((1, 2), ()))
        with pytest.raises(UpstreamError, match="/v1/spex/score answered 404"):
            await scorer.score([Probe((1, 2), (3,), "")], {})
        with pytest.raises(ValueError, match="unknown"):
            Scorers(server, "best", 100)


async def test_generate_warms_the_header_and_keeps_what_was_answered(model: BackedModel) -> None:
    model.backends = {"generate"}
    ids = tuple(model.ids_of("Alpha Bravo Charlie Delta Echo"))
    answer = tuple(model.ids_of(ANSWER))
    probes = [Probe(ids[:count], answer, "") for count in range(5, 0, -1)]
    async with ModelServer(model.url) as server:
        scorer = await Scorers(server, "auto", 100).make(INFO, Layout(ids, ()))
        scored = await scorer.score(probes, {})
        assert all(reading is not None for reading in scored.readings)
        assert (scored.prompt_tokens, scored.cached_tokens) == (model.prompt_tokens, model.cached_tokens)
        model.never = True
        with pytest.raises(BadReply, match="null"):
            await scorer.score(probes, {})
