"""Ask vLLM for token ids on a client's behalf, and take them out of the answer again. A Rewriter.

    request    `"return_token_ids":true` is put before the body's last brace; no other byte changes
    JSON       `prompt_token_ids` and `choices[].token_ids` become null, which is what vLLM writes unasked;
               the head waits, because its Content-Length does not fit any more
    stream     the same in every event; an event that is there for its ids only is left out: with a tool or
               reasoning parser, vLLM sends an empty delta for each token that the parser holds back,
               if ids are asked for (vllm/entrypoints/openai/chat_completion/serving.py, 0.32)

Bytes are cut, not written anew: what a client gets differs from what vLLM sent in the ids only. Where the
cut can't be proved right (ids at a place that we don't know), that one JSON text is written anew.

Known difference: Mistral's tool parser for tokenizers before v11 sends empty deltas of its own after the
last call, which are left out too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Literal

from spex_proxy.facts.exchange import Headers, RequestHead
from spex_proxy.wire.tap import TapLimits

Outcome = Literal["asked", "not_asked", "passed_encoded", "passed_sized", "passed_too_large", "passed_fault"]
COUNTER = "exact_token_ids"

PATHS = ("/v1/chat/completions", "/v1/completions")
_ASK = b',"return_token_ids":true}'
_WHITE = b" \t\r\n"
_IDS = re.compile(rb'(?<!\\)("(?:prompt_)?token_ids"[ \t\r\n]*:[ \t\r\n]*)\[[0-9, \t\r\n]*\]')
_EVENT_END = re.compile(rb"(?>\r\n|\r|\n){2}")
_DATA_LINE = re.compile(rb"^data:[ ]?([^\r\n]*)", re.MULTILINE)


class ExactIds:
    """One exchange's rewriter (wire.rewriting.Rewriter); `count` is given COUNTER and an Outcome."""

    def __init__(self, head: RequestHead, limits: TapLimits, count: Callable[[str, str], None]) -> None:
        self._head = head
        self._limits = limits
        self._count = count
        self._form: Literal["pass", "json", "stream"] = "pass"
        self._asked = False
        self._held = bytearray()

    @property
    def most_request_bytes(self) -> int:
        return self._limits.request_bytes

    @property
    def holds_head(self) -> bool:
        return self._form == "json"

    def request(self, body: bytes) -> bytes:
        asking = None if self._head.header(b"content-encoding") else ask(body)
        self._asked = asking is not None and self._head.path in PATHS
        self._count(COUNTER, "asked" if self._asked else "not_asked")
        return asking if self._asked and asking is not None else body

    def begin(self, status: int, headers: Headers) -> None:
        named = {name.lower(): value.strip().lower() for name, value in headers}
        kind = named.get(b"content-type", b"")
        if not self._asked or status != 200:
            return
        if named.get(b"content-encoding", b"identity") != b"identity":
            self._count(COUNTER, "passed_encoded")
        elif kind.startswith(b"text/event-stream"):
            if b"content-length" in named:  # some gateway has gathered it: the head has gone before the cuts are known
                self._count(COUNTER, "passed_sized")
            else:
                self._form = "stream"
        elif kind.startswith(b"application/json"):
            self._form = "json"

    def feed(self, chunk: bytes) -> bytes:
        if self._form == "pass":
            return chunk
        searched = max(0, len(self._held) - 3)  # an end is at most four bytes long, and may begin in what is held
        self._held += chunk
        try:
            ready = self._events(searched) if self._form == "stream" else b""
        except Exception:  # noqa: BLE001 - whatever it is, the client gets its answer
            return self._let_pass("passed_fault")
        if len(self._held) > self._limits.answer_bytes:
            return ready + self._let_pass("passed_too_large")
        return ready

    def finish(self) -> bytes:
        if self._form != "json":
            return self._let_go()
        body = self._let_go()
        try:
            return without_ids(body)[0]
        except Exception:  # noqa: BLE001 - as above
            self._count(COUNTER, "passed_fault")
            return body

    def _let_pass(self, outcome: Outcome) -> bytes:
        self._form = "pass"
        self._count(COUNTER, outcome)
        return self._let_go()

    def _let_go(self) -> bytes:
        held = bytes(self._held)
        self._held.clear()
        return held

    def _events(self, searched: int) -> bytes:
        """The events that are complete now, rewritten."""
        done: list[bytes] = []
        position = 0
        for end in [found.end() for found in _EVENT_END.finditer(self._held, searched)]:
            done.append(event_without_ids(bytes(self._held[position:end])))
            position = end
        del self._held[:position]
        return b"".join(done)


def ask(body: bytes) -> bytes | None:
    """The request with ids asked for; None where that is not possible, or would change more than the ids."""
    try:
        request = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(request, dict) or not ("messages" in request or "prompt" in request):
        return None
    is_plain = (
        "return_token_ids" not in request
        and not request.get("echo")
        and not request.get("use_beam_search")
        and request.get("include_reasoning", True) is not False
        and request.get("n") in (None, 1)
    )
    end = body.rstrip(_WHITE)
    return end[:-1].rstrip(_WHITE) + _ASK + body[len(end) :] if is_plain and end.endswith(b"}") else None


def event_without_ids(event: bytes) -> bytes:
    """One event of a stream, its blank line included; b"" if it is there for its ids only."""
    lines = list(_DATA_LINE.finditer(event))
    if len(lines) != 1 or b"token_ids" not in event:
        return event
    start, end = lines[0].span(1)
    data, said = without_ids(event[start:end])
    if said is not None and _is_empty(said):
        return b""
    return event[:start] + data + event[end:]


def without_ids(data: bytes) -> tuple[bytes, dict[str, Any] | None]:
    """A JSON text with null for its ids, and what it said before; as it came, and None, if it has none."""
    if b"token_ids" not in data:
        return data, None
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return data, None
    if not isinstance(said, dict) or not _has_ids(said):
        return data, None
    wanted = _nulled(said)
    cut = _IDS.sub(rb"\1null", data)
    if json.loads(cut) != wanted:
        cut = json.dumps(wanted, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    return cut, said


def _choices(said: dict[str, Any]) -> list[dict[str, Any]]:
    choices = said.get("choices")
    return [c for c in choices if isinstance(c, dict)] if isinstance(choices, list) else []


def _has_ids(said: dict[str, Any]) -> bool:
    return isinstance(said.get("prompt_token_ids"), list) or any(
        isinstance(choice.get(name), list) for choice in _choices(said) for name in ("token_ids", "prompt_token_ids")
    )


def _nulled(said: dict[str, Any]) -> dict[str, Any]:
    def cut(holder: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
        return {k: None if k in names and isinstance(v, list) else v for k, v in holder.items()}

    outer = cut(said, ("prompt_token_ids",))
    if isinstance(outer.get("choices"), list):
        names = ("token_ids", "prompt_token_ids")
        outer["choices"] = [cut(c, names) if isinstance(c, dict) else c for c in outer["choices"]]
    return outer


def _is_empty(said: dict[str, Any]) -> bool:
    """A chunk that vLLM sends only because ids were asked for: its one choice says nothing but ids."""
    choices = said.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        return False
    choice = choices[0]
    return (
        choice.get("delta") == {}
        and isinstance(choice.get("token_ids"), list)
        and choice.get("finish_reason") is None
        and choice.get("logprobs") is None
    )
