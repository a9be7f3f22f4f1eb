"""Our plugin inside a real vLLM: its values are the stock route's, its counts the server's, and it leaves when told."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
import pytest

from deploy.demo import vllm_cpu, vllm_install
from spex_proxy.facts.evidence import Probe
from spex_proxy.facts.exchange import Exchange, RawExchange, RequestHead, TextRange
from spex_proxy.ports.model_server import ModelServer
from spex_proxy.ports.scorers import Scored
from spex_proxy.ports.scorers.choose import Choice, Scorers
from spex_proxy.ports.scorers.regenerate import Told
from spex_proxy.wire.chat import parse
from spex_proxy.wire.engine import Layout, lay_out, score_body
from spex_proxy.wire.tokens import align
from spex_proxy.wire.wording import in_words
from tests.story.processes import wait_until

pytestmark = [pytest.mark.real_vllm, pytest.mark.timeout(600)]

MODEL = "smollm2"
HEADER, PLAYERS, SEGMENT = 64, 4, 6
"""Tokens, players, tokens of a player. The header is two whole blocks."""
LAYOUT = Layout(
    tuple(range(1000, 1000 + HEADER + PLAYERS * SEGMENT)),
    tuple((start, start + SEGMENT) for start in range(HEADER, HEADER + PLAYERS * SEGMENT, SEGMENT)),
)
ANSWER = (300, 301, 302)
ENOUGH_S = 300


def probe(*mask: int) -> Probe:
    gone = {at for (a, b), keep in zip(LAYOUT.segments, mask, strict=True) if not keep for at in range(a, b)}
    return Probe(tuple(token for at, token in enumerate(LAYOUT.ids) if at not in gone), ANSWER, "")


PROBES = [probe(1, 1, 1, 1), probe(1, 1, 1, 1), probe(1, 1, 0, 1), probe(1, 0, 0, 0), probe(0, 0, 0, 0)]
"""The full prompt twice: what measures noise."""


@dataclass
class Counters:
    """The server's own."""

    prompt_tokens: int
    cached_tokens: int

    def since(self, before: Counters) -> tuple[int, int]:
        return self.prompt_tokens - before.prompt_tokens, self.cached_tokens - before.cached_tokens


def metric(vllm: str, name: str) -> int:
    lines = httpx.get(f"{vllm}/metrics", trust_env=False, timeout=60).text.splitlines()
    return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{{")))


def counters(vllm: str) -> Counters:
    return Counters(metric(vllm, "vllm:prompt_tokens_total"), metric(vllm, "vllm:prompt_tokens_cached_total"))


def load(vllm: str) -> dict[str, Any]:
    reply: dict[str, Any] = httpx.get(f"{vllm}/v1/spex/load", trust_env=False, timeout=60).json()
    return reply


async def scored(vllm: str, backend: str) -> tuple[Scored, tuple[int, int]]:
    """What a scorer says of PROBES, and by how much the server's counters grew meanwhile."""
    async with ModelServer(vllm) as server:
        scorer = await Scorers(server, backend, 100).make(await server.info(MODEL), LAYOUT)
        before = await asyncio.to_thread(counters, vllm)
        found = await scorer.score(PROBES, {})
        return found, (await asyncio.to_thread(counters, vllm)).since(before)


async def test_it_is_chosen_and_says_what_the_completions_route_says(vllm: str) -> None:
    async with ModelServer(vllm) as server:
        choice = await Scorers(server, "auto", 100).choice(await server.info(MODEL))
    why = "the plugin spex-proxy-vllm is loaded, and makes room for production inside the engine"
    assert choice == Choice("engine", why)
    ours, counted = await scored(vllm, "engine")
    stock, counted_stock = await scored(vllm, "completions")
    for one, other in zip(ours.readings, stock.readings, strict=True):
        assert one is not None
        assert other is not None
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-3)
        assert one.logprobs.sum() < -1  # random ids: no answer that a model would give
    # every stored count is the server's own, and the header was read once
    assert (ours.prompt_tokens, ours.cached_tokens) == counted
    assert (stock.prompt_tokens, 0) == counted_stock
    assert ours.cached_tokens >= 3 * HEADER
    # of the empty mask the cache has the whole prompt, so that the answer's first row is not computed: asked once more
    assert ours.prompt_tokens == stock.prompt_tokens + HEADER + len(ANSWER)


async def test_first_token_says_what_the_engine_says_of_that_token(vllm: str) -> None:
    """And reads the prefix cache for it, to the token that the server counts."""
    probes = [Probe(probe.prompt_ids, ANSWER[:1], "") for probe in PROBES]
    async with ModelServer(vllm) as server:
        info = await server.info(MODEL)
        both = []
        for name in ("engine", "first_token"):
            scorer = await Scorers(server, name, 100).make(info, LAYOUT)
            before = await asyncio.to_thread(counters, vllm)
            both.append(found := await scorer.score(probes, {}))
            counted = (await asyncio.to_thread(counters, vllm)).since(before)
            assert (found.prompt_tokens, found.cached_tokens) == counted
            again = await scorer.score(probes, {})
            assert again.cached_tokens >= 3 * HEADER
    for one, other in zip(both[0].readings, both[1].readings, strict=True):
        assert one is not None
        assert other is not None
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-2)  # bfloat16: read to the end, and read one by one


def post(url: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(url, json=body, trust_env=False, timeout=ENOUGH_S)


async def test_regenerate_asks_the_chat_route_and_counts_what_comes_again(vllm: str) -> None:
    """At temperature 0 the whole prompt gives its own answer again, word for word; without the fact it does not."""
    fact, rest = "The password is swordfish. ", "Say the password."
    request = {"model": MODEL, "messages": [{"role": "user", "content": fact + rest}], "max_tokens": 12}
    asked = await asyncio.to_thread(post, f"{vllm}/v1/chat/completions", request | {"temperature": 0})
    sent = RequestHead("r", "POST", "/v1/chat/completions", (), datetime.now(UTC))
    raw = RawExchange(sent, json.dumps(request).encode(), 200, (), asked.content, 0, 0, 1, None)
    exchange = parse(raw)
    assert isinstance(exchange, Exchange)
    tokens = in_words(exchange)
    players = align("s", [TextRange(0, 0, len(fact)), TextRange(0, len(fact), len(fact + rest))], exchange, tokens)
    layout = lay_out(tokens.prompt_ids, [(one.token_start, one.token_end) for one in players.segments])
    masked = [
        tokens.prompt_ids,
        tokens.prompt_ids[: layout.segments[0][0]] + tokens.prompt_ids[layout.segments[0][1] :],
    ]
    probes = [Probe(ids, tokens.output_ids, "") for ids in masked]
    async with ModelServer(vllm) as server:
        scorer = await Scorers(server, "regenerate", 100).make(
            await server.info(MODEL), layout, Told(exchange, tokens, players)
        )
        before = await asyncio.to_thread(counters, vllm)
        found = await scorer.score(probes, {})
        counted = (await asyncio.to_thread(counters, vllm)).since(before)
    whole, without = (reading.logprobs for reading in found.readings if reading is not None)
    assert whole.tolist() == [1.0] * len(tokens.output_ids)
    assert without.sum() < whole.sum()
    assert found.prompt_tokens == counted[0]


def body(**changes: Any) -> dict[str, Any]:
    made = score_body(MODEL, LAYOUT, PROBES, priority=100, cache_salt="spex-test", in_flight=2, warm=True, yields=False)
    return made | changes


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"masks": "AA=="}, 400, "masks must be"),
        ({"unknown": 1}, 400, "no others"),
        ({"ids": [10_000_000, *LAYOUT.ids[1:]]}, 400, "outside the model's vocabulary"),
        ({"output_ids": [300] * 5000}, 400, "tokens together; the model takes 4096"),
        ({"segments": [[0, len(LAYOUT.ids)]], "masks": "AA==", "count": 1}, 400, "leaves nothing"),
        ({"model": "another"}, 404, "'another' is not served"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_engine_hears_of_it(
    vllm: str, changes: dict[str, Any], status: int, words: str
) -> None:
    reply = httpx.post(f"{vllm}/v1/spex/score", json=body(**changes), trust_env=False, timeout=60)
    assert reply.status_code == status
    assert words in reply.json()["error"]["message"]


def test_a_client_that_leaves_frees_the_engine(vllm: str) -> None:
    long = [int(i) for i in np.random.Generator(np.random.PCG64(1)).integers(100, 20_000, 100)]
    masks = 64
    asked = body(ids=long, segments=[], masks="", count=masks, in_flight=2, cache_salt="spex-leaving")
    before = counters(vllm)
    with httpx.stream("POST", f"{vllm}/v1/spex/score", json=asked, trust_env=False, timeout=ENOUGH_S) as reply:
        first = json.loads(next(reply.iter_lines()))
        assert first["mask"] == 0
    wait_until(lambda: load(vllm)["own"] == 0, ENOUGH_S)
    wait_until(lambda: metric(vllm, "vllm:num_requests_running") == 0, ENOUGH_S)
    assert metric(vllm, "vllm:num_requests_waiting") == 0
    grew, _ = counters(vllm).since(before)
    assert grew < masks * len(long) / 2


def test_the_load_of_every_step_is_told(vllm: str) -> None:
    before = load(vllm)
    assert (before["protocol"], before["yields"]) == (2, True)
    assert before["runner"] == "v1"  # there is no GPU here
    httpx.post(f"{vllm}/v1/spex/score", json=body(), trust_env=False, timeout=ENOUGH_S).raise_for_status()
    (engine,) = load(vllm)["engines"]
    assert engine["step"] > sum(one["step"] for one in before["engines"])
    assert (engine["engine"], engine["running"], engine["waiting"]) == (0, 0, 0)
    assert engine["age_s"] >= 0


GUARDED = """
import asyncio, httpx
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

args = make_arg_parser(FlexibleArgumentParser()).parse_args(["--api-key", "right", "--model", "none"])
app = build_app(args, ("generate",))

async def ask():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://vllm") as client:
        for method, path in (("POST", "/v1/spex/score"), ("GET", "/v1/spex/load")):
            for key in (None, "wrong", "right"):
                headers = {"authorization": f"Bearer {key}"} if key else {}
                reply = await client.request(method, path, headers=headers)
                print("status", path, key, reply.status_code)

asyncio.run(ask())
"""


ABORTED = """
import asyncio
from types import SimpleNamespace as Some
from spex_proxy_vllm.engine import InProcess
from spex_proxy_vllm.scoring import Failed

class Client:
    vllm_config = Some(cache_config=None, use_v2_model_runner=False)

    async def generate(self, *_, **__):
        yield Some(outputs=[Some(finish_reason="abort")], num_cached_tokens=0, prompt_logprobs=None)

try:
    asyncio.run(InProcess(Client()).ask([5], Some(output_ids=(1,), cache_salt="", priority=0, extra=dict), whole=False))
except Failed as failed:
    print("status", failed.again)
"""


def in_vllms_python(script: str) -> list[list[str]]:
    """The words of its lines that begin with `status`."""
    environment = {**os.environ, **vllm_cpu._server_environment(), **vllm_cpu.plugin_environment()}
    command = [str(vllm_install.PYTHON), "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    return [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("status")]


def test_what_a_stopping_engine_aborts_is_asked_again() -> None:
    """vLLM in its drain answers so instead of failing, and has no log-probabilities to give."""
    assert in_vllms_python(ABORTED) == [["True"]]


def test_vllms_api_key_guards_both_routes() -> None:
    """vLLM's own application with the plugin in it, without an engine behind: the key is asked for first."""
    assert in_vllms_python(GUARDED) == [
        ["/v1/spex/score", "None", "401"],
        ["/v1/spex/score", "wrong", "401"],
        ["/v1/spex/score", "right", "503"],  # let in, and there is no engine
        ["/v1/spex/load", "None", "401"],
        ["/v1/spex/load", "wrong", "401"],
        ["/v1/spex/load", "right", "200"],
    ]
