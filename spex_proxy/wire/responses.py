"""`/v1/responses`, OpenAI's newer shape, as vLLM speaks it. Raises Skip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spex_proxy.facts.exchange import Choice, Message, ToolCall
from spex_proxy.wire.answer import Answer, as_name, checked, count, events_of, has, read_logprobs, text_in
from spex_proxy.wire.body import read_object
from spex_proxy.wire.prompt import Text
from spex_proxy.wire.tap import Skip
from spex_proxy.wire.tools import call_message, definition_message

_TEXTS = {
    "input_text": "text",
    "output_text": "text",
    "text": "text",
    "reasoning_text": "text",
    "summary_text": "text",
    "refusal": "refusal",
}
_ENDS = ("response.completed", "response.incomplete")
_STORED = ("previous_response_id", "conversation", "prompt")


def needs_stored_context(request: Mapping[str, Any]) -> bool:
    """Whether the prompt goes on from something that only the server holds."""
    return any(has(request, name) for name in _STORED)


def read_texts(request: Mapping[str, Any]) -> list[Text]:
    """Tool definitions, instructions, then the input's items, in order."""
    tools = request.get("tools")
    functions = [tool for tool in tools if _is_function(tool)] if isinstance(tools, list) else []
    texts: list[Text] = [(definition_message(function), None) for function in functions]
    instructions = text_in(request, "instructions")
    if instructions:
        texts.append((Message("system", instructions), (request, "instructions")))
    given = request.get("input")
    if isinstance(given, str):
        texts.append((Message("user", given), (request, "input") if given else None))
    elif isinstance(given, list):
        names: dict[str, str] = {}
        for item in given:
            texts += _item(item, names)
    else:
        raise Skip("unknown_shape")
    return texts


def _is_function(tool: Any) -> bool:
    return isinstance(tool, dict) and tool.get("type") == "function" and isinstance(tool.get("name"), str)


def _item(item: Any, names: dict[str, str]) -> list[Text]:
    if not isinstance(item, dict):
        raise Skip("unknown_shape")
    kind = item.get("type", "message")
    if kind == "message":
        if not isinstance(item.get("role"), str):
            raise Skip("unknown_shape")
        return _content(item["role"], None, item, "content")
    if kind == "function_call":
        name = text_in(item, "name")
        names[str(item.get("call_id"))] = name
        return [(call_message("assistant", {"name": name, "arguments": item.get("arguments")}), None)]
    if kind == "function_call_output":
        return _content("tool", names.get(str(item.get("call_id"))), item, "output")
    if kind == "reasoning":
        return _content("assistant", None, item, "content" if has(item, "content") else "summary")
    raise Skip("unsupported_content")


def _content(role: str, name: str | None, item: dict[str, Any], field: str) -> list[Text]:
    content = item.get(field)
    if content is None or isinstance(content, str):
        return [(Message(role, content or "", name), (item, field) if content else None)]
    if not isinstance(content, list):
        raise Skip("unknown_shape")
    texts: list[Text] = []
    for number, part in enumerate(content, 1):
        if not isinstance(part, dict):
            raise Skip("unknown_shape")
        kind = part.get("type")
        if kind == "input_image":
            raise Skip("has_images")
        if kind == "input_audio":
            raise Skip("has_audio")
        inner = _TEXTS.get(kind) if isinstance(kind, str) else None
        if inner is None:
            raise Skip("unsupported_content")
        text = text_in(part, inner)
        message = Message(role, text, name, part=number if len(content) > 1 else None)
        texts.append((message, (part, inner) if text else None))
    return texts


# ------------------------------------------------------------------------------------------ the answer


def read_answer(body: bytes) -> Answer:
    """A plain JSON answer."""
    reply = read_object(body)
    if has(reply, "error") or reply.get("object") == "error":
        raise Skip("upstream_error")
    return _answer(reply)


def read_stream(body: bytes) -> Answer:
    """A whole event stream: its last event holds the whole answer. Log-probabilities may come before only."""
    last: dict[str, Any] | None = None
    logprobs: list[tuple[str, float]] = []
    for event in events_of(body):
        said = read_object(event.data)
        kind = said.get("type")
        if kind in ("error", "response.failed") or (has(said, "error") and kind is None):
            raise Skip("error_in_stream")
        if kind == "response.output_text.delta":
            logprobs += read_logprobs(said.get("logprobs")) or []
        if kind in _ENDS and isinstance(said.get("response"), dict):
            last = said["response"]
    if last is None:
        raise Skip("unfinished_answer")
    return _answer(last, tuple(logprobs))


def _answer(reply: Mapping[str, Any], streamed_logprobs: tuple[tuple[str, float], ...] = ()) -> Answer:
    output = reply.get("output")
    if not isinstance(output, list):
        raise Skip("unknown_shape")
    text: list[str] = []
    reasoning: list[str] = []
    calls: list[ToolCall] = []
    logprobs: list[tuple[str, float]] = []
    for item in output:
        if not isinstance(item, dict):
            raise Skip("unknown_shape")
        kind = item.get("type")
        if kind == "message":
            for part in _parts(item, "content"):
                text.append(text_in(part, "refusal") if part.get("type") == "refusal" else text_in(part, "text"))
                logprobs += read_logprobs(part.get("logprobs")) or []
        elif kind == "reasoning":
            parts = _parts(item, "content") or _parts(item, "summary")
            reasoning.append("".join(text_in(part, "text") for part in parts) or "[hidden]")
        elif kind == "function_call":
            calls.append(ToolCall(text_in(item, "name"), text_in(item, "arguments"), as_name(item.get("call_id"))))
        else:
            raise Skip("unsupported_content")
    found = tuple(logprobs) or streamed_logprobs
    choice = Choice("".join(text), _finish_reason(reply), "".join(reasoning), tuple(calls), found or None)
    usage = reply.get("usage") if isinstance(reply.get("usage"), dict) else {}
    assert usage is not None
    return checked(
        Answer(
            choices=(choice,),
            upstream_id=as_name(reply.get("id")),
            model=as_name(reply.get("model")),
            prompt_tokens=count(usage.get("input_tokens")),
            output_tokens=count(usage.get("output_tokens")),
            usage=usage,
        )
    )


def _parts(item: Mapping[str, Any], field: str) -> list[dict[str, Any]]:
    parts = item.get(field)
    if parts is None:
        return []
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise Skip("unknown_shape")
    return parts


def _finish_reason(reply: Mapping[str, Any]) -> str | None:
    """`completed`, or why the answer is incomplete (`max_output_tokens`); None while it is under way or failed."""
    status = reply.get("status")
    if status == "completed":
        return "completed"
    details = reply.get("incomplete_details")
    reason = as_name(details.get("reason")) if isinstance(details, dict) else None
    return reason if status == "incomplete" else None
