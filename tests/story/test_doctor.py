"""`spex-proxy doctor` against servers, ports and stores in every state."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from spex_proxy import cli
from spex_proxy.cli import shell
from spex_proxy.facts.finding import Finding
from spex_proxy.flows import doctor as doctor_flow
from spex_proxy.flows.doctor import Doctor, Setup
from spex_proxy.plug.load import Plugins
from spex_proxy.ports.look import Looker
from spex_proxy.ports.model_server import ModelServer
from spex_proxy.wire.tokens import _BYTE_TABLE
from tests.story.processes import free_port
from tests.story.running import relay
from tests.story.scripted_model import ScriptedModel, busy, changed, planted, waiting
from tests.story.upstream import HANG, Seen, Step, Upstream, answer

CHOSEN = {"segmenter": "auto", "masker": "delete", "value": "sum_logprob"}
METRICS = b'vllm:cache_config_info{block_size="16",enable_prefix_caching="True",kv_cache_size_tokens="4096"} 1.0\n'


class Server(ScriptedModel):
    """Scores any tokens, has metrics, and guards /v1 by a key if it has one."""

    key: str | None = None

    async def _respond(self, seen: Seen) -> Sequence[Step]:
        if seen.target == b"/metrics":
            return [answer(METRICS, content_type="text/plain")]
        sent = seen.values(b"authorization")
        if self.key and seen.target.startswith(b"/v1") and sent != [f"Bearer {self.key}".encode()]:
            return [answer(b'{"error": "Unauthorized"}', status="401 Unauthorized")]
        return await super()._respond(seen)

    def _tokenize(self, body: Mapping[str, Any]) -> tuple[int, Any]:
        """Token strings as byte-level BPE writes them, whatever the text."""
        status, reply = super()._tokenize(body)
        letters = {byte: letter for letter, byte in _BYTE_TABLE.items()}
        pieces = [self.text_of([token]).encode() for token in reply["tokens"]]
        return status, reply | {"token_strs": ["".join(letters[byte] for byte in piece) for piece in pieces]}

    def _score_one(self, index: int, ids: list[int]) -> dict[str, Any]:
        rows = [{str(token): {"logprob": -2.5, "rank": 1}} for token in ids]
        return {"index": index, "text": "x", "finish_reason": "length", "prompt_logprobs": [None, *rows[1:]]}


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(planted(0, {})) as running:
        yield running


@pytest.fixture
def setup(server: Server, store_path: Path) -> Setup:
    nobody = f"http://127.0.0.1:{free_port()}"
    return _setup(server.url, f"sqlite:///{store_path}", relay_url=nobody, second_url=nobody)


def _setup(upstream: str, store: str, **changes: Any) -> Setup:
    fields: dict[str, Any] = {
        "upstream": upstream, "api_key": None, "model": None, "scheduling_policy": "priority", "priority": 100,
        "relay_url": upstream, "second_url": upstream, "store": store, "chosen": CHOSEN, "otlp_endpoint": None,
        "version": "1.0",
    }  # fmt: skip
    return Setup(**fields | changes)


def _changed(setup: Setup, **changes: Any) -> Setup:
    return Setup(**{name: getattr(setup, name) for name in Setup.__dataclass_fields__} | changes)


async def examine(setup: Setup, *, patience_s: float = 5.0) -> dict[str, Finding]:
    async with ModelServer(setup.upstream, setup.api_key) as server, Looker(patience_s) as looker:
        found = [finding async for finding in Doctor(setup, server, looker, Plugins()).examine()]
    assert all(finding.advice or finding.level == "ok" for finding in found)
    return {finding.name: finding for finding in found}


def levels(found: dict[str, Finding], *names: str) -> list[str]:
    return [found[name].level for name in names]


async def test_where_all_is_well_every_line_says_so(setup: Setup, server: Server) -> None:
    found = await examine(setup)
    assert {name for name, finding in found.items() if finding.level != "ok"} == {"clock (upstream)", "relay"}
    assert found["prefix cache"].found.startswith("on; blocks of 16 tokens, room for 4,096 tokens")
    assert found["token ids"].found == "from the render route, with offsets"
    (probe,) = server.scoring_requests()
    sent = json.loads(probe.body)
    assert (len(sent["prompt"]), len(sent["prompt"][0]), sent["priority"]) == (1, 3, 100)


async def test_each_further_replica_is_looked_at(setup: Setup, server: Server) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    for urls, level in (((server.url,), "ok"), ((server.url, nobody), "broken")):
        assert (await examine(_changed(setup, replicas=urls)))["replica"].level == level


async def test_a_server_without_the_render_route(setup: Setup, server: Server) -> None:
    server.renders = False
    found = await examine(setup)
    assert found["token ids"].level == "warning"
    assert "--enable-scale-out" in found["token ids"].advice


async def test_no_server_at_all(setup: Setup) -> None:
    found = await examine(_changed(setup, upstream=f"http://127.0.0.1:{free_port()}"))
    assert levels(found, "upstream", "API key", "model", "tokenizer", "token ids", "scorer", "prefix cache") == [
        "broken", "unknown", "unknown", "unknown", "unknown", "unknown", "unknown"
    ]  # fmt: skip
    assert levels(found, "store", "migrations", "queue", "plugins") == ["ok"] * 4


@pytest.mark.parametrize(
    ("key", "level", "scorer"), [(None, "broken", "unknown"), ("wrong", "broken", "unknown"), ("right", "ok", "ok")]
)
async def test_a_server_with_a_key(setup: Setup, server: Server, key: str | None, level: str, scorer: str) -> None:
    server.key = "right"
    found = await examine(_changed(setup, api_key=key))
    assert levels(found, "API key", "scorer") == [level, scorer]


@pytest.mark.parametrize(
    ("fault", "level", "words"),
    [
        (busy, "unknown", "503"),
        (changed(lambda reply: {**reply, "choices": []}), "broken", "answered 0 choices"),
        (changed(lambda reply: reply["choices"][0].pop("prompt_logprobs") and None), "broken", "prompt_logprobs"),
    ],
)
async def test_a_scorer_that_does_not_answer_as_it_must(
    setup: Setup, server: Server, fault: Callable[[bytes], Sequence[Step]], level: str, words: str
) -> None:
    server.always = fault
    found = await examine(setup)
    assert (found["scorer"].level, words in found["scorer"].found) == (level, True)


async def test_a_positive_log_probability_is_named(setup: Setup, server: Server) -> None:
    def lift(reply: dict[str, Any]) -> None:
        for row in reply["choices"][0]["prompt_logprobs"][1:]:
            next(iter(row.values()))["logprob"] = 7.5

    server.always = changed(lift)
    found = await examine(setup)
    assert found["scorer"].level == "broken"
    assert "raw_logits" in found["scorer"].found


async def test_a_server_that_never_answers_does_not_hold_us(
    setup: Setup, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_flow, "ANSWER_S", 0.2)
    server.always = waiting(server.gate())
    found = await examine(setup)
    assert found["scorer"].level == "unknown"


async def test_something_that_answers_and_is_no_vllm(setup: Setup) -> None:
    with Upstream() as web:
        web.answers(answer(b"<html>It works!</html>", content_type="text/html"))
        found = await examine(_changed(setup, upstream=web.url))
    assert levels(found, "upstream", "model", "scorer") == ["broken", "unknown", "unknown"]


async def test_a_server_that_only_chats_is_explained_by_its_words(setup: Setup) -> None:
    """No version, no tokenizer, no log-probabilities of prompts: the scorer says what is left, and why."""

    class Chats(ScriptedModel):
        async def _respond(self, seen: Seen) -> Sequence[Step]:
            if seen.target in (b"/v1/models", b"/v1/chat/completions"):
                return await super()._respond(seen)
            return [answer(b'{"error": {"message": "Not Found"}}', status="404 Not Found")]

    with Chats(planted(0, {})) as chats:
        found = await examine(_changed(setup, upstream=chats.url))
    assert levels(found, "upstream", "model", "tokenizer", "scorer") == ["broken", "ok", "broken", "warning"]
    assert found["scorer"].found.startswith("regenerate (nothing else works")
    assert "no log-probabilities" in found["scorer"].found


async def test_something_that_takes_connections_and_says_nothing(setup: Setup) -> None:
    with Upstream() as hole:
        hole.answers(HANG)
        found = await examine(_changed(setup, upstream=hole.url), patience_s=0.2)
    assert "Timeout" in found["upstream"].found


async def test_our_relay_and_somebody_else_on_its_port(setup: Setup, server: Server) -> None:
    with relay(server.url) as ours, Upstream() as second:
        second.answers(answer(b'{"status": "ok", "version": "1.0"}'))
        url = f"http://127.0.0.1:{ours.port}"
        found = await examine(_changed(setup, relay_url=url, second_url=second.url))
        assert (found["relay"].level, found["relay"].found) == ("ok", "ours (1.0), relays /version byte for byte")
        found = await examine(_changed(setup, relay_url=second.url, second_url=second.url))
        assert found["relay"].level == "broken"


async def test_stores_that_are_not_there_or_not_ours(setup: Setup, tmp_path: Path) -> None:
    found = await examine(_changed(setup, store=f"sqlite:///{tmp_path / 'none.db'}"))
    assert levels(found, "store", "migrations", "queue", "disk") == ["broken", "unknown", "unknown", "unknown"]
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "empty.db").touch()
    found = await examine(_changed(setup, store=f"sqlite:///{tmp_path / 'empty.db'}"))
    assert levels(found, "store", "migrations", "queue", "disk") == ["ok", "broken", "unknown", "ok"]
    assert found["migrations"].advice == "Run: spex-proxy db upgrade"
    (tmp_path / "text.db").write_text("this is not a database, however long it is read " * 30)
    found = await examine(_changed(setup, store=f"sqlite:///{tmp_path / 'text.db'}"))
    assert found["store"].level == "broken"
    assert "not a database" in found["store"].found


async def test_a_plugin_that_is_set_and_not_installed(setup: Setup) -> None:
    found = await examine(_changed(setup, chosen=CHOSEN | {"segmenter": "clause"}))
    assert found["plugins"].level == "broken"
    assert "no segmenter is called 'clause'" in found["plugins"].found


async def test_a_collector_is_asked_with_an_empty_batch(setup: Setup) -> None:
    with Upstream() as collector:
        collector.answers(answer(b"", content_type="application/x-protobuf"))
        found = await examine(_changed(setup, otlp_endpoint=f"{collector.url}/"))
        (seen,) = collector.requests
    assert (seen.method, seen.target, seen.body) == (b"POST", b"/v1/traces", b"")
    assert found["telemetry"].level == "ok"


async def test_no_secret_is_ever_shown(setup: Setup) -> None:
    nobody = free_port()
    store = f"postgresql://spex:db-hunter2@127.0.0.1:{nobody}/spex"
    upstream = f"http://me:up-hunter2@127.0.0.1:{nobody}"
    hidden = _changed(setup, store=store, upstream=upstream, api_key="key-hunter2")
    found = await examine(hidden)
    assert levels(found, "upstream", "store") == ["broken", "broken"]
    assert "hunter2" not in repr([*found.values(), hidden])


def test_the_command_prints_marks_and_ends_with_0_or_1(
    server: Server, store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell.console, "width", 120)
    for name in ("PORT", "ADMIN_PORT"):
        monkeypatch.setenv(f"SPEX_{name}", str(free_port()))
    options = ["doctor", "--upstream", server.url, "--store", f"sqlite:///{store_path}"]
    result = CliRunner().invoke(cli.app, options)
    assert result.exit_code == 0, result.output
    assert "✓  upstream" in result.output
    assert "→ Start vLLM with --scheduling-policy priority" in result.output
    result = CliRunner().invoke(cli.app, [*options, "--model", "other", "--json"])
    report = json.loads(result.output)
    assert (result.exit_code, report["is_broken"]) == (1, True)
    assert [f["level"] for f in report["findings"] if f["name"] == "model"] == ["broken"]


@pytest.mark.real_vllm
async def test_the_real_server(vllm: str, setup: Setup) -> None:
    found = await examine(_changed(setup, upstream=vllm))
    asked = ("upstream", "API key", "model", "tokenizer", "token ids", "scorer", "prefix cache", "clock (upstream)")
    assert levels(found, *asked) == ["ok"] * len(asked), found
    assert found["scorer"].found.startswith("engine (the plugin spex-proxy-vllm is loaded, and makes room")
