"""Where tools, calls, results and parts stand in prompts of well-known chat templates: exactly, or nowhere."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.facts.errors import CannotExplain
from spex_proxy.facts.exchange import Message, MessagePlace, Segmentation, TokenizedExchange
from spex_proxy.wire.places import locate, marked_request, marker
from spex_proxy.wire.prompt import read_messages
from spex_proxy.wire.tokens import align
from spex_proxy_standard.maskers import DeleteMasker
from spex_proxy_standard.segmenters import MessageSegmenter, SentenceSegmenter
from tests.unit.examples import an_exchange
from tests.unit.wire.templates import DEEPSEEK, LLAMA, MISTRAL, PARTS, QWEN, QWEN_XML, render

SEARCH = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Looks into the <archive> & finds 'notes'.",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string", "description": "Woerter, wörtlich"}, "top": {"type": "integer"}},
            "required": ["query"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "Tells the time."}}
RESULT = 'Found:\n"Bell" – 2 notes.\n\nThe bell is in Oslo.'


def called(name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": f"id-{name}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


REQUEST: dict[str, Any] = {
    "model": "tiny",
    "tools": [SEARCH, CLOCK],
    "messages": [
        {"role": "system", "content": "Answer from notes. "},
        {"role": "user", "content": "Where is the bell?"},
        {"role": "assistant", "content": None, "tool_calls": [called("search", query='the "große" bell', top=2)]},
        {"role": "tool", "tool_call_id": "id-search", "content": RESULT},
        {"role": "assistant", "content": "In Oslo."},
        {"role": "user", "content": "Thanks. And the time?"},
    ],
}


def laid(template: str, request: dict[str, Any], content_format: str = "string") -> tuple[Any, TokenizedExchange]:
    """The exchange, and its prompt in tokens that are words, spaces and single characters."""
    text = render(template, request, content_format=content_format)
    marked = render(template, marked_request(request), content_format=content_format)
    exchange = an_exchange(messages=read_messages(request), request=request)
    offsets = tuple(found.span() for found in re.finditer(r"<\|\w+\|>|\\.|\w+|\s|[^\w\s]", text))
    places = locate(text, marked, exchange.messages)
    return exchange, TokenizedExchange(tuple(range(len(offsets))), text, offsets, places, (7,), "render")


def standing(tokens: TokenizedExchange) -> list[str | None]:
    return [place and tokens.prompt_text[place.start : place.end] for place in tokens.places]


def without(tokens: TokenizedExchange, players: Segmentation) -> str:
    """What the model reads if every player is masked."""
    kept = DeleteMasker().apply(tokens.prompt_ids, players, np.zeros(len(players), dtype=bool))
    return "".join(tokens.prompt_text[slice(*tokens.offsets[i])] for i in kept)


@pytest.mark.parametrize("template", [LLAMA, QWEN, MISTRAL], ids=["llama", "qwen", "mistral"])
def test_json_templates_show_every_tool_call_and_result(template: str) -> None:
    exchange, tokens = laid(template, REQUEST)
    there = standing(tokens)
    for number, message in enumerate(exchange.messages):
        if message.kind == "tool_definition":
            said = json.loads(there[number])
            assert said["function"]["name"] == message.name
            assert said["function"]["description"] == json.loads(message.text)["function"]["description"]
        if message.kind == "tool_call":
            said = json.loads(there[number])
            assert said.get("parameters", said.get("arguments")) == {"query": 'the "große" bell', "top": 2}
    players = align("message", MessageSegmenter().split(exchange), exchange, tokens)
    assert len(players) == len([message for message in exchange.messages if message.text])
    assert players.notes == ()
    bare = without(tokens, players)
    for word in ("archive", "wörtlich", "Tells", "große", "Found", "Oslo", "Answer from", "Thanks"):
        assert word not in bare, bare


def test_llama_writes_results_as_json_strings() -> None:
    """Characters of the message and of the prompt differ in number; sentences still find their tokens."""
    exchange, tokens = laid(LLAMA, REQUEST)
    number = next(i for i, message in enumerate(exchange.messages) if message.role == "tool")
    place = tokens.places[number]
    assert place is not None
    assert place.spelling == "json"
    assert tokens.prompt_text[place.start - 1 : place.end + 1] == json.dumps(RESULT, ensure_ascii=False)
    players = align("sentence", SentenceSegmenter().split(exchange), exchange, tokens)
    texts = [
        tokens.prompt_text[tokens.offsets[s.token_start][0] : tokens.offsets[s.token_end - 1][1]]
        for s in players.segments
        if s.message == number
    ]
    assert texts == ["Found:\\n", '\\"Bell\\" – 2 notes.\\n\\n', "The bell is in Oslo."]


def test_mistral_moves_the_system_prompt_and_players_follow_the_prompt() -> None:
    exchange, tokens = laid(MISTRAL, REQUEST)
    players = align("message", MessageSegmenter().split(exchange), exchange, tokens)
    starts = [segment.token_start for segment in players.segments]
    assert starts == sorted(starts)
    assert [segment.provenance for segment in players.segments] == [
        "user", "assistant tool call", "tool", "assistant", "tool_definition", "tool_definition", "system", "user",
    ]  # fmt: skip


def test_mistral_breaks_json_and_the_tool_is_found_from_its_first_string_to_its_last() -> None:
    request = copy.deepcopy(REQUEST)
    request["tools"][0]["function"]["description"] = 'Says "hi".'
    _, tokens = laid(MISTRAL, request)
    first, second = standing(tokens)[:2]
    assert first is not None
    assert first.startswith('Says "hi".", "parameters": {')
    assert first.endswith("Woerter, wörtlich")
    assert json.loads(second or "")["function"]["name"] == "clock"


def test_xml_calls_reach_from_their_first_string_to_their_last() -> None:
    request = copy.deepcopy(REQUEST)
    calls = [called("search", query="bell", top=3, where="the\nnorth"), called("clock"), called("clock", precision=3)]
    request["messages"][2]["tool_calls"] = calls
    exchange, tokens = laid(QWEN_XML, request)
    there = standing(tokens)
    assert there[0] == (
        "Looks into the <archive> & finds 'notes'.</description>\n<parameter>\n<name>query</name>\n"
        "<type>string</type>\n<description>Woerter, wörtlich"
    )
    assert there[1] == "Tells the time."
    by_kind = [text for message, text in zip(exchange.messages, there, strict=True) if message.kind == "tool_call"]
    assert by_kind == [
        "bell\n</parameter>\n<parameter=top>\n3\n</parameter>\n<parameter=where>\nthe\nnorth",
        None,  # no string in them, so nothing to find them by
        None,
    ]
    players = align("message", MessageSegmenter().split(exchange), exchange, tokens)
    assert players.notes == (
        "tool calls: 2 of 3 could not be found in the rendered prompt as one piece that is surely theirs; "
        "they were never masked",
    )


def test_bare_arguments_are_known_by_the_name_before_them() -> None:
    exchange, tokens = laid(DEEPSEEK, REQUEST)
    there = standing(tokens)
    assert there[:2] == [None, None]  # this template does not show definitions
    call = next(i for i, message in enumerate(exchange.messages) if message.kind == "tool_call")
    assert there[call] == '{"query": "the \\"große\\" bell", "top": 2}'
    notes = align("message", MessageSegmenter().split(exchange), exchange, tokens).notes
    assert [note.split(" could not")[0] for note in notes] == ["tool definitions: 2 of 2"]


def test_equal_calls_are_told_apart_by_their_order() -> None:
    request = copy.deepcopy(REQUEST)
    request["messages"][2]["tool_calls"] = [called("clock", zone="UTC"), called("clock", zone="UTC")]
    exchange, tokens = laid(QWEN, request)
    first, second = [p for m, p in zip(exchange.messages, tokens.places, strict=True) if m.kind == "tool_call"]
    assert first is not None
    assert second is not None
    assert first.end <= second.start


def test_what_a_user_wrote_is_never_taken_for_a_tool() -> None:
    """Somebody quotes the definition, word for word, in a message."""
    request = copy.deepcopy(REQUEST)
    request["messages"][1]["content"] = json.dumps(SEARCH, ensure_ascii=False)
    exchange, tokens = laid(QWEN, request)
    definition, quote = tokens.places[0], tokens.places[3]
    assert exchange.messages[3].role == "user"
    assert definition is not None
    assert quote is not None
    assert definition.end <= quote.start


def test_a_template_that_shows_a_tool_twice_leaves_it_unmasked() -> None:
    twice = QWEN.replace("{{ tool | tojson }}", "{{ tool | tojson }}{{ tool | tojson }}")
    _, tokens = laid(twice, REQUEST)
    assert tokens.places[:2] == (None, None)


# --- lists of parts

PARTED: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": " One doc. "}, {"type": "text", "text": ""}, "Two."]},
    ]
}


def test_parts_where_vllm_joins_them_with_a_line_break() -> None:
    exchange, tokens = laid(QWEN, PARTED)
    assert [message.part for message in exchange.messages] == [None, 1, 2]
    assert standing(tokens) == ["Be brief.", " One doc. ", "Two."]
    assert "<|im_start|>user\n One doc. \nTwo.<|im_end|>" in tokens.prompt_text
    players = align("document", MessageSegmenter().split(exchange), exchange, tokens)
    assert [segment.provenance for segment in players.segments] == ["system", "user part 1", "user part 2"]


def test_parts_where_the_template_joins_them() -> None:
    _, tokens = laid(PARTS, PARTED, content_format="openai")
    assert "<start_of_turn>user\nOne doc.Two.<end_of_turn>" in tokens.prompt_text
    assert standing(tokens) == ["Be brief.", "One doc.", "Two."]
    assert tokens.places[1] == MessagePlace(tokens.prompt_text.index("One"), tokens.prompt_text.index("Two"), trimmed=1)


# --- markers


def test_markers_take_the_place_of_texts_and_of_nothing_else() -> None:
    request = copy.deepcopy(REQUEST) | {"temperature": 0.5}
    request["messages"] += [{"role": "assistant", "content": ""}, {"role": "user", "content": ["a", {"text": "b"}]}]
    before = copy.deepcopy(request)
    marked = marked_request(request)
    assert request == before
    search = marked["tools"][0]["function"]
    assert (search["name"], search["description"]) == ("search", marker(0, 1))
    assert search["parameters"]["properties"]["query"] == {"type": "string", "description": marker(0, 0)}
    assert search["parameters"]["required"] == ["query"]
    assert [item.get("content") for item in marked["messages"]] == [
        marker(2), marker(3), None, marker(6), marker(7), marker(8), "", [marker(10), {"text": marker(11)}],
    ]  # fmt: skip
    call = marked["messages"][2]["tool_calls"][0]["function"]
    assert json.loads(call["arguments"]) == {"query": marker(5, 0), "top": 2}
    bare = marked_request(request, with_tools=False)
    assert (bare["tools"], bare["messages"][2]) == (before["tools"], before["messages"][2])


def test_no_marker_is_found_in_another() -> None:
    markers = [marker(number) for number in range(12_000)] + [marker(number, 7) for number in range(100)]
    joined = "\n".join(markers)
    assert all(joined.count(one) == 1 for one in (markers[0], markers[1], markers[999], markers[11_999], markers[-1]))


def test_a_template_that_rewrites_what_it_shows_of_tools_needs_no_markers_there() -> None:
    """`strip` of quotes, say: markers in tools don't fit then, those in messages still do."""
    loud = QWEN.replace("{{ tool | tojson }}", "{{ tool | tojson | upper }}")
    with pytest.raises(CannotExplain):
        laid(loud, REQUEST)
    text = render(loud, REQUEST)
    places = locate(text, render(loud, marked_request(REQUEST, with_tools=False)), read_messages(REQUEST))
    assert places[:2] == (None, None)
    assert all(place for place, message in zip(places, read_messages(REQUEST), strict=True) if message.role == "user")


# --- laws and hostile requests

WORDS = st.sampled_from(["a", "b c", '"', "\\", "\n", "é", "<&>", "'", "{", "}", '{"name": "f"}', "🚀", " "])
TEXTS = st.lists(WORDS, max_size=5).map("".join)
VALUES = st.recursive(
    TEXTS | st.integers() | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
FUNCTIONS = st.fixed_dictionaries(
    {"name": st.sampled_from(["f", "g"])},
    optional={"description": TEXTS, "parameters": st.dictionaries(TEXTS, VALUES, max_size=3)},
)
CALLS = st.builds(
    lambda n, a: called(n, **a), st.sampled_from(["f", "g"]), st.dictionaries(st.sampled_from("xy"), VALUES)
)
MESSAGES = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system"]), "content": TEXTS}),
    st.fixed_dictionaries({"role": st.just("user"), "content": st.lists(TEXTS, max_size=3)}),
    st.fixed_dictionaries({"role": st.just("assistant"), "content": TEXTS, "tool_calls": st.lists(CALLS, max_size=2)}),
    st.fixed_dictionaries({"role": st.just("tool"), "content": TEXTS, "tool_call_id": st.just("t")}),
)


@pytest.mark.parametrize("template", [QWEN, QWEN_XML, PARTS], ids=["qwen", "xml", "parts"])
@given(
    tools=st.lists(FUNCTIONS.map(lambda function: {"type": "function", "function": function}), max_size=3),
    messages=st.lists(MESSAGES, max_size=4),
)
@pytest.mark.slow
def test_whatever_stands_somewhere_stands_there(template: str, tools: list[Any], messages: list[Any]) -> None:
    request = {"tools": tools, "messages": [{"role": "user", "content": "Hi"}, *messages]}
    try:
        exchange, tokens = laid(template, request)
    except CannotExplain:
        return
    reached = 0
    for message, place in sorted(
        ((m, p) for m, p in zip(exchange.messages, tokens.places, strict=True) if p), key=lambda pair: pair[1].start
    ):
        assert place.start >= reached  # no two share a character
        reached = place.end
        text = tokens.prompt_text[place.start : place.end]
        if message.kind == "text":
            assert text.strip() == message.text.strip() or json.loads(f'"{text}"').strip() == message.text.strip()
        elif place.spelling == "plain":
            assert text == message.text


@pytest.mark.parametrize(
    "schema",
    [
        {"description": '{"' * 20_000},
        {"properties": {f"p{i}": {"description": "d" * 50, "type": "string"} for i in range(1_000)}},
        {"a": ["{}"] * 20_000},
        json.loads('{"a":' * 300 + "1" + "}" * 300),
    ],
    ids=["openings", "wide", "flat", "deep"],
)
@pytest.mark.timeout(60)
def test_no_tool_takes_long(schema: dict[str, Any]) -> None:
    request = copy.deepcopy(REQUEST)
    request["tools"] += [{"type": "function", "function": {"name": "f", "parameters": schema}}] * 3
    text, marked = render(QWEN, request), render(QWEN, marked_request(request))
    messages = read_messages(request)
    places = locate(text, marked, messages)
    assert all(places[:5])


def test_old_exchanges_whose_parts_were_one_message_say_so() -> None:
    """Stored before parts were told apart: nothing is guessed."""
    text, marked = render(QWEN, PARTED), render(QWEN, marked_request(PARTED))
    with pytest.raises(CannotExplain):
        locate(text, marked, (Message("system", "Be brief."), Message("user", " One doc. \nTwo.")))
