"""A scripted vLLM: answers every route that we use, at once, with values that a test has planted.

    with ScriptedModel(planted(-9, {("Bravo",): 2, ("Alpha", "Delta"): 4})) as model:
        model.faults.append(busy)

Its tokens are words, its chat template is plain, its answer is always the same, and the
log-probability of that answer after a prompt is a known function of the words in the prompt.
What was asked is counted; a fault spoils the next scoring reply, `always` each of them.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from tests.story.upstream import CLOSE, RESET, Gate, Seen, Step, Upstream, answer

NAME = "scripted"
SERVER = "vllm 0.32.0"
ANSWER = " It is so."
EVERY_OTHER = -0.25
"""Log-probability of each answer token but the first, which carries the planted value."""

_TOKEN = re.compile(r"<\|\w+\|>|\n| ?[^\s<]+|\s|.")

Fault = Callable[[bytes], Sequence[Step]]
"""The reply as it should be -> what is sent instead."""


def planted(constant: float, effects: Mapping[tuple[str, ...], float]) -> Callable[[str], float]:
    """A game: the sum of the effects whose words all stand in the prompt."""

    def value(text: str) -> float:
        return constant + sum(effect for words, effect in effects.items() if all(word in text for word in words))

    return value


class ScriptedModel:
    """One server with one model. Everything may be changed while it runs."""

    def __init__(self, value: Callable[[str], float], *, renders: bool = True, max_model_len: int = 4096) -> None:
        self.value = value
        self.renders = renders
        self.max_model_len = max_model_len
        self.rewrite: Callable[[str], str] = lambda text: text
        """What the chat template does to the text of a message."""
        self.answer = ANSWER
        """The answer whose likelihood is planted."""
        self.says: Callable[[str], str] = lambda _prompt: self.answer
        """What it answers to a prompt."""
        self.refuses = ""
        """The message with which it refuses every question, if there is one."""
        self.version = SERVER.split()[1]
        self.faults: deque[Fault] = deque()
        self.always: Fault | None = None
        self.asked: list[tuple[int, ...]] = []
        """Every probe that arrived, as token ids, in order."""
        self.upstream = Upstream()
        self._ids: dict[str, int] = {}
        self._routes: dict[str, Callable[[Any], tuple[int, Any]]] = {
            "/version": lambda _: (200, {"version": self.version}),
            "/health": lambda _: (200, {}),
            "/v1/models": lambda _: (200, {"data": [{"id": NAME, "max_model_len": self.max_model_len}]}),
            "/tokenize": self._tokenize,
            "/detokenize": lambda body: (200, {"prompt": self.text_of(body["tokens"])}),
            "/v1/chat/completions/render": self._render,
            "/v1/completions/render": lambda body: self._render(body, is_list=True),
        }

    def __enter__(self) -> Self:
        self.upstream.__enter__()
        self.upstream.answers_by(self._respond)
        return self

    def __exit__(self, *details: object) -> None:
        self.upstream.__exit__(*details)

    @property
    def url(self) -> str:
        return self.upstream.url

    def gate(self) -> Gate:
        return self.upstream.gate()

    def scoring_requests(self) -> list[Seen]:
        return [seen for seen in self.upstream.requests if b'"prompt_logprobs"' in seen.body]

    # ---- the tokenizer ----

    def ids_of(self, text: str) -> list[int]:
        return [self._ids.setdefault(piece, 100 + len(self._ids)) for piece in _TOKEN.findall(text)]

    def text_of(self, ids: Sequence[int]) -> str:
        pieces = {number: piece for piece, number in self._ids.items()}
        return "".join(pieces[number] for number in ids)

    def prompt_text(self, body: Mapping[str, Any]) -> str:
        if "messages" not in body:
            return str(body["prompt"])
        turns = [f"<|{m['role']}|>\n{self.rewrite(m['content'])}<|end|>\n" for m in body["messages"]]
        return "".join(turns) + "<|assistant|>\n"

    # ---- the routes ----

    async def _respond(self, seen: Seen) -> Sequence[Step]:
        path = seen.target.decode()
        body = json.loads(seen.body) if seen.body else {}
        if path == "/v1/completions" and "prompt_logprobs" in body:
            whole = answer(json.dumps(self._score(body)).encode())
            fault = self.faults.popleft() if self.faults else self.always
            return fault(whole) if fault else [whole]
        if path == "/v1/completions" and "logprob_token_ids" in body:
            return [answer(json.dumps(self._next_token(body)).encode())]
        if path in ("/v1/chat/completions", "/v1/completions") and self.refuses:
            return refusing(self.refuses)(b"")
        if path in ("/v1/chat/completions", "/v1/completions"):
            return [answer(json.dumps(self._speak(body)).encode())]
        status, reply = self._routes[path](body) if path in self._routes else (404, {"error": "Not Found"})
        return [answer(json.dumps(reply).encode(), status=f"{status} As It Is")]

    def _speak(self, body: Mapping[str, Any]) -> dict[str, Any]:
        said: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        spoken = self.says(self.prompt_text(body))
        said |= {"message": {"role": "assistant", "content": spoken}} if "messages" in body else {"text": spoken}
        prompt, output = len(self.ids_of(self.prompt_text(body))), len(self.ids_of(spoken))
        usage = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
        number = len(self.upstream.requests)
        kind = "chatcmpl" if "messages" in body else "cmpl"
        return {"id": f"{kind}-{number:016d}", "model": NAME, "choices": [said], "usage": usage}

    def _render(self, body: Mapping[str, Any], is_list: bool = False) -> tuple[int, Any]:
        if not self.renders:
            return 403, {"error": "started without --enable-scale-out"}
        text = self.prompt_text(body)
        ends = [found.end() for found in _TOKEN.finditer(text)]
        reply = {
            "token_ids": self.ids_of(text),
            "token_offsets": list(zip([0, *ends], ends, strict=False)),
        }
        return 200, [reply] if is_list else reply

    def _tokenize(self, body: Mapping[str, Any]) -> tuple[int, Any]:
        text = self.prompt_text(body)
        return 200, {"tokens": self.ids_of(text), "token_strs": [p.replace(" ", "Ġ") for p in _TOKEN.findall(text)]}

    def _score(self, body: Mapping[str, Any]) -> dict[str, Any]:
        choices = [self._score_one(index, ids) for index, ids in enumerate(body["prompt"])]
        usage = {"prompt_tokens": sum(map(len, body["prompt"])), "completion_tokens": len(choices)}
        return {"id": "cmpl-0", "model": NAME, "choices": choices, "usage": usage}

    def _next_token(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """How likely the wanted token is after each prompt; the model itself says another."""
        (wanted,) = body["logprob_token_ids"]
        choices = []
        for index, ids in enumerate(body["prompt"]):
            row = {"token_id:7": -0.5, f"token_id:{wanted}": self.logprobs([*ids, wanted])[0]}
            told = {"tokens": ["token_id:7"], "token_logprobs": [-0.5], "top_logprobs": [row]}
            choices.append({"index": index, "text": "x", "finish_reason": "length", "logprobs": told})
        usage = {"prompt_tokens": sum(map(len, body["prompt"])), "completion_tokens": len(choices)}
        return {"id": "cmpl-0", "model": NAME, "choices": choices[::-1], "usage": usage}

    def logprobs(self, ids: Sequence[int]) -> list[float]:
        """Of the tokens of the answer, or its beginning, with which `ids` end."""
        self.asked.append(tuple(ids))
        whole = self.ids_of(self.answer)
        output = next(whole[:k] for k in range(len(whole), 0, -1) if list(ids[-k:]) == whole[:k])
        value = self.value(self.text_of(ids[: -len(output)]))
        assert value <= 0, f"the planted value {value} is no log-probability"
        return [value, *[EVERY_OTHER] * (len(output) - 1)]

    def _score_one(self, index: int, ids: list[int]) -> dict[str, Any]:
        scored = self.logprobs(ids)
        wanted = [*[-1.0] * (len(ids) - len(scored)), *scored]
        rows: list[Any] = [{str(i): {"logprob": v, "rank": 1}} for i, v in zip(ids, wanted, strict=True)]
        return {"index": index, "text": "x", "finish_reason": "length", "prompt_logprobs": [None, *rows[1:]]}


# ---- faults ----


def busy(_: bytes) -> Sequence[Step]:
    return [answer(b'{"error": {"message": "the queue is full"}}', status="503 Service Unavailable")]


def dying(reply: bytes) -> Sequence[Step]:
    """The server goes away in the middle of its reply."""
    return [reply[: len(reply) // 2], RESET]


def closing(_: bytes) -> Sequence[Step]:
    return [CLOSE]


def refusing(message: str) -> Fault:
    body = json.dumps({"error": {"message": message, "type": "BadRequestError", "code": 400}}).encode()
    return lambda _: [answer(body, status="400 Bad Request")]


def waiting(gate: Gate) -> Fault:
    """The reply comes when the test opens the gate."""
    return lambda reply: [gate, reply]


def changed(change: Callable[[dict[str, Any]], Any]) -> Fault:
    """The reply with something in it changed in place, or, if `change` returns something, that instead."""

    def fault(reply: bytes) -> Sequence[Step]:
        data = json.loads(reply.partition(b"\r\n\r\n")[2])
        instead = change(data)
        return [answer(json.dumps(data if instead is None else instead).encode())]

    return fault
