"""Token ids and places of an exchange with tools, asked from a server that renders a real template."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any, cast

import pytest

from spex_proxy.facts.errors import CannotExplain
from spex_proxy.facts.exchange import Exchange
from spex_proxy.flows.tokenize import tokenize
from spex_proxy.ports.model_server import ModelServer
from spex_proxy.wire.prompt import read_messages
from tests.unit.examples import an_exchange
from tests.unit.wire.templates import QWEN, render
from tests.unit.wire.test_places import REQUEST


class Server:
    """Its tokens are words, spaces and single characters."""

    def __init__(self, template: str) -> None:
        self.template = template
        self.rendered: list[Mapping[str, Any]] = []
        self._pieces: list[str] = []

    def _ids(self, text: str) -> tuple[list[int], list[list[int]]]:
        found = list(re.finditer(r"\w+|\s|[^\w\s]", text))
        self._pieces += [piece[0] for piece in found]
        first = len(self._pieces) - len(found)
        return [first + number for number in range(len(found))], [[*piece.span()] for piece in found]

    async def render(self, kind: str, body: Mapping[str, Any]) -> Any:
        self.rendered.append(body)
        ids, offsets = self._ids(render(self.template, body))
        return {"token_ids": ids, "token_offsets": offsets}

    async def tokenize(self, body: Mapping[str, Any]) -> Any:
        return {"tokens": self._ids(body["prompt"])[0]}

    async def detokenize(self, model: str, ids: tuple[int, ...]) -> str:
        return "".join(self._pieces[number] for number in ids)


def asked(request: dict[str, Any]) -> Exchange:
    return an_exchange(request=request, messages=read_messages(request), prompt_tokens=None)


async def test_tools_are_found_with_one_more_rendering() -> None:
    server, exchange = Server(QWEN), asked(REQUEST)
    tokens = await tokenize(exchange, cast(ModelServer, server))
    assert len(server.rendered) == 2
    assert all(place or not m.text for m, place in zip(exchange.messages, tokens.places, strict=True))


async def test_where_markers_in_tools_do_not_fit_messages_are_found_without_them() -> None:
    server = Server(QWEN.replace("{{ tool | tojson }}", "{{ tool | tojson | upper }}"))
    exchange = asked(REQUEST)
    tokens = await tokenize(exchange, cast(ModelServer, server))
    assert len(server.rendered) == 3
    lost = [m.kind for m, place in zip(exchange.messages, tokens.places, strict=True) if m.text and place is None]
    assert lost == ["tool_definition", "tool_definition"]


async def test_a_template_that_rewrites_a_message_is_refused_whatever_the_tools() -> None:
    loud = QWEN.replace("'\\n' + message.content + '<|im_end|>", "'\\n' + message.content | upper + '<|im_end|>")
    server = Server(loud)
    request = copy.deepcopy(REQUEST)
    with pytest.raises(CannotExplain, match="changes the text of message 2"):
        await tokenize(asked(request), cast(ModelServer, server))
    assert len(server.rendered) == 3


@pytest.mark.parametrize("ids", [["12", 13], [1.5], [None], [True], [-1]])
async def test_ids_of_a_gateway_that_are_no_whole_numbers_are_a_reason_not_a_bug(ids: list[Any]) -> None:
    class Gateway(Server):
        async def tokenize(self, body: Mapping[str, Any]) -> Any:
            return {"tokens": ids, "token_strs": ["x"] * len(ids)}

    with pytest.raises(CannotExplain, match="no whole numbers"):  # of the answer
        await tokenize(asked(REQUEST), cast(ModelServer, Gateway(QWEN)))

    class Unrendered(Gateway):
        async def render(self, kind: str, body: Mapping[str, Any]) -> Any:
            return None

    with pytest.raises(CannotExplain, match="no whole numbers"):  # of the prompt
        await tokenize(asked(REQUEST), cast(ModelServer, Unrendered(QWEN)))
