"""The model server over a real socket: which answers mean "later", which "never", which "that is not what I asked"."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from spex_proxy.facts.errors import BadReply, UpstreamBusy, UpstreamError
from spex_proxy.facts.evidence import Probe
from spex_proxy.ports.model_server import BUSY, ModelInfo, ModelServer
from spex_proxy.ports.scorers.completions import BATCH, CompletionsScorer


@dataclass
class Answer:
    """What a route answers: a status, and JSON or raw bytes."""

    body: Any = field(default_factory=dict)
    status: int = 200
    content_type: str = "application/json"

    @property
    def raw(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass
class Server:
    """A scripted server on a loopback port, and what it was asked."""

    url: str
    routes: dict[str, Answer | None] = field(default_factory=dict)
    """Path -> answer; None cuts the connection."""
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    """(method and path, headers in lower case, body)."""


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            headers = {name.lower(): value for name, value in self.headers.items()}
            script.asked.append((f"{self.command} {self.path}", headers, body))
            answer = script.routes.get(self.path, Answer({"error": {"message": "Not Found"}}, 404))
            if answer is None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(answer.status)
            self.send_header("content-type", answer.content_type)
            self.send_header("content-length", str(len(answer.raw)))
            self.end_headers()
            self.wfile.write(answer.raw)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    script = Server(f"http://127.0.0.1:{listener.server_address[1]}")
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield script
    listener.shutdown()
    listener.server_close()
    thread.join()


async def tokenize(server: Server, api_key: str | None = None) -> dict[str, Any]:
    async with ModelServer(server.url, api_key) as client:
        return await client.tokenize({"prompt": "hi"})


async def test_a_good_answer(server: Server) -> None:
    server.routes["/tokenize"] = Answer({"tokens": [1]})
    assert await tokenize(server) == {"tokens": [1]}
    ((route, headers, body),) = server.asked
    assert (route, body) == ("POST /tokenize", {"prompt": "hi"})
    assert "authorization" not in headers


async def test_the_key_goes_along(server: Server) -> None:
    server.routes["/tokenize"] = Answer()
    await tokenize(server, api_key="sk-1")
    assert server.asked[0][1]["authorization"] == "Bearer sk-1"


async def test_no_proxy_of_the_environment_is_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    server.routes["/tokenize"] = Answer({"tokens": []})
    assert await tokenize(server) == {"tokens": []}


@pytest.mark.parametrize("status", sorted(BUSY))
async def test_ask_again_later(server: Server, status: int) -> None:
    server.routes["/tokenize"] = Answer({"error": {"message": "engine is paused"}}, status)
    with pytest.raises(UpstreamBusy, match=f"POST /tokenize answered {status}: engine is paused"):
        await tokenize(server)


@pytest.mark.parametrize("status", [201, 204, 307, 400, 401, 403, 404, 405, 413, 422, 501])
async def test_this_will_not_work(server: Server, status: int) -> None:
    server.routes["/tokenize"] = Answer(b"" if status == 204 else {"error": {"message": "no"}}, status)
    with pytest.raises(UpstreamError, match=f"POST /tokenize answered {status}: ") as refused:
        await tokenize(server)
    assert not isinstance(refused.value, UpstreamBusy)


async def test_no_connection_is_busy_and_says_where(server: Server) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with ModelServer(f"http://user:secret@127.0.0.1:{port}/base") as client:
        with pytest.raises(UpstreamBusy, match=f"POST /tokenize on 127.0.0.1:{port} failed: ConnectError") as lost:
            await client.tokenize({})
    assert "secret" not in str(lost.value)


async def test_a_connection_that_is_cut_is_busy(server: Server) -> None:
    server.routes["/tokenize"] = None
    with pytest.raises(UpstreamBusy, match=r"RemoteProtocolError|ReadError"):
        await tokenize(server)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(b"<html>My Secret Garden</html>", content_type="text/html"),
        Answer(b""),
        Answer(b'{"tokens": ['),
        Answer(b"\xff\xfe\xfd"),
        Answer([1]),
        Answer("text"),
        Answer(None),
    ],
    ids=["html", "empty", "cut", "no UTF-8", "list", "string", "null"],
)
async def test_200_with_something_else(server: Server, answer: Answer) -> None:
    server.routes["/tokenize"] = answer
    with pytest.raises(BadReply, match="/tokenize answered") as bad:
        await tokenize(server)
    assert "Secret" not in str(bad.value)


async def test_errors_do_not_quote_the_request(server: Server) -> None:
    """vLLM does, below the first line; a job's reason outlives the erasure of content."""
    said = "1 validation error:\n  {'type': 'missing', 'loc': ('body',), 'input': 'My secret diary'}"
    server.routes["/tokenize"] = Answer({"error": {"message": said, "type": "Bad Request", "code": 400}}, 400)
    with pytest.raises(UpstreamError) as refused:
        await tokenize(server)
    assert str(refused.value) == "POST /tokenize answered 400: 1 validation error:"
    server.routes["/tokenize"] = Answer(b"My secret diary", 502, "text/plain")
    with pytest.raises(UpstreamBusy) as busy:
        await tokenize(server)
    assert str(busy.value) == "POST /tokenize answered 502: Bad Gateway"


# --- routes


async def test_info(server: Server) -> None:
    server.routes["/version"] = Answer({"version": "0.32.0"})
    server.routes["/v1/models"] = Answer(
        {"data": [{"id": "b", "max_model_len": 9}, {"id": "a", "max_model_len": 4096}]}
    )
    async with ModelServer(f"{server.url}/") as client:
        assert await client.info("a") == ModelInfo("a", "vllm 0.32.0", 4096)
        with pytest.raises(UpstreamError, match=r"does not serve the model 'c' \(it serves: a, b\)"):
            await client.info("c")


@pytest.mark.parametrize("length", [None, "4096"])
async def test_a_server_that_tells_no_length(server: Server, length: object) -> None:
    server.routes["/version"] = Answer()
    server.routes["/v1/models"] = Answer({"data": [{"id": "a", "max_model_len": length}]})
    async with ModelServer(server.url) as client:
        info = await client.info("a")
        assert info == ModelInfo("a", "vllm unknown", None)
        assert CompletionsScorer(client, info, 100).max_tokens is None


@pytest.mark.parametrize("listed", [{}, {"data": None}, {"data": ["a"]}, {"data": {"id": "a"}}])
async def test_no_list_of_models(server: Server, listed: object) -> None:
    server.routes |= {"/version": Answer(), "/v1/models": Answer(listed)}
    async with ModelServer(server.url) as client:
        with pytest.raises(BadReply, match="without a list of models"):
            await client.info("a")


async def test_no_models_at_all(server: Server) -> None:
    server.routes |= {"/version": Answer(), "/v1/models": Answer({"data": []})}
    async with ModelServer(server.url) as client:
        with pytest.raises(UpstreamError, match="it serves: none"):
            await client.info("a")


@pytest.mark.parametrize("status", [403, 404, 405])
async def test_a_render_route_that_is_switched_off_is_none(server: Server, status: int) -> None:
    for kind, route in (("chat", "/v1/chat/completions/render"), ("completion", "/v1/completions/render")):
        async with ModelServer(server.url) as client:
            server.routes[route] = Answer({"error": {"message": "no"}}, status)
            assert await client.render(kind, {"model": "m"}) is None
            server.routes[route] = Answer([{"token_ids": [1]}])
            assert await client.render(kind, {"model": "m"}) == [{"token_ids": [1]}]
            server.routes[route] = Answer({"error": {"message": "bad template"}}, 400)
            with pytest.raises(UpstreamError, match="render answered 400: bad template"):
                await client.render(kind, {"model": "m"})


@pytest.mark.parametrize("reply", [{}, {"prompt": None}, {"prompt": 3}])
async def test_detokenize(server: Server, reply: object) -> None:
    async with ModelServer(server.url) as client:
        server.routes["/detokenize"] = Answer({"prompt": "hé 🚀"})
        assert await client.detokenize("m", (1, 2)) == "hé 🚀"
        assert server.asked[-1][2] == {"model": "m", "tokens": [1, 2]}
        server.routes["/detokenize"] = Answer(reply)
        with pytest.raises(BadReply, match="without `prompt`"):
            await client.detokenize("m", (1,))


# --- the scorer that uses it


def rows(*logprobs: float) -> list[Any]:
    return [None, {"6": {"logprob": -9.0}}, *({str(7 + i): {"logprob": p}} for i, p in enumerate(logprobs))]


async def test_the_completions_scorer(server: Server) -> None:
    probes = [Probe((5, 6), (7, 8), "d")] * 2
    server.routes["/v1/completions"] = Answer(
        {
            "choices": [{"index": i, "prompt_logprobs": rows(-0.5 - i, -1.0)} for i in range(2)],
            "usage": {"prompt_tokens": 8},
        }
    )
    async with ModelServer(server.url) as client:
        scorer = CompletionsScorer(client, ModelInfo("tiny", "vllm 0.32.0", 4096), 100)
        other = CompletionsScorer(client, ModelInfo("tiny", "vllm 0.32.0", 4096), 100)
        scored = await scorer.score(probes, {"traceparent": "00-1-2-01"})
        await scorer.score(probes, {})
        await other.score(probes, {})
        with pytest.raises(ValueError, match="9 probes in one batch"):
            await scorer.score(probes * 4 + probes[:1], {})
    assert [reading.logprobs.tolist() for reading in scored.readings] == [[-0.5, -1.0], [-1.5, -1.0]]
    assert (scored.prompt_tokens, scored.cached_tokens) == (8, 0)
    assert scored.seconds > 0
    assert (scorer.facts.name, scorer.facts.model, scorer.facts.server) == ("completions", "tiny", "vllm 0.32.0")
    assert scorer.max_tokens == 4095  # one token is generated
    assert BATCH == 8
    assert server.asked[0][1]["traceparent"] == "00-1-2-01"
    bodies = [body for _, _, body in server.asked]
    assert {body["priority"] for body in bodies} == {100}
    salts = [body["cache_salt"] for body in bodies]
    assert salts[0] == salts[1] != salts[2]  # one for each explanation
    assert all(salt.startswith("spex-") for salt in salts)
