"""Find the token ids of a stored exchange, after the fact, without having touched its bytes.

The order of trust: what the reply carried (if the client asked for ids), the
render route, `/tokenize`. Whichever it was is stored as `ids_source`. The count
must equal what the server billed; where it does not, we say so and stop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spex_proxy.facts.errors import BadReply, CannotExplain
from spex_proxy.facts.exchange import OBSTACLES, Exchange, IdsSource, MessagePlace, TokenizedExchange
from spex_proxy.ports.model_server import ModelServer
from spex_proxy.wire import tokens as wire
from spex_proxy.wire.places import locate, marked_native, marked_request


async def tokenize(exchange: Exchange, server: ModelServer) -> TokenizedExchange:
    """Ids, offsets and places of an exchange. Raises CannotExplain where they can't be trusted."""
    if exchange.obstacle is not None:
        raise CannotExplain(OBSTACLES.get(exchange.obstacle, exchange.obstacle))
    if not any(message.text for message in exchange.messages):
        raise CannotExplain("the prompt was sent as token ids, so there is no text to cut into segments")
    ids, offsets, source = await _prompt(exchange, exchange.request, server)
    if exchange.prompt_ids is not None:
        if exchange.prompt_ids != ids:
            raise CannotExplain("the prompt's token ids in the reply differ from those the server renders now")
        source = "reply"
    if exchange.prompt_tokens is not None and exchange.prompt_tokens != len(ids):
        raise CannotExplain(
            f"the server counted {exchange.prompt_tokens} prompt tokens when it answered and renders {len(ids)} now; "
            "was it restarted with another model or chat template?"
        )
    text = await _prompt_text(exchange, ids, server)
    if offsets and offsets[-1][1] != len(text):
        raise CannotExplain(
            "this tokenizer's ids do not decode to the text they came from, "
            "so segments can't be mapped to tokens (known of SentencePiece models that drop spaces)"
        )
    return TokenizedExchange(
        prompt_ids=ids,
        prompt_text=text,
        offsets=offsets,
        places=await _places(exchange, text, server),
        ids_source=source,
        **await output_of(exchange, server),
    )


async def _prompt(
    exchange: Exchange, request: Mapping[str, Any], server: ModelServer
) -> tuple[tuple[int, ...], wire.Offsets, IdsSource]:
    if exchange.kind not in ("chat", "completion"):
        return await _native_prompt(exchange, request, server)
    rendered = await server.render(exchange.kind, wire.render_body(request))
    if rendered is not None:
        return *wire.read_render(rendered), "render"
    body: dict[str, Any] = {"model": exchange.model, "return_token_strs": True}
    if exchange.kind == "chat":
        body |= {key: request[key] for key in ("messages", "tools", "chat_template_kwargs") if key in request}
    else:
        body |= {"prompt": exchange.messages[0].text}
    reply = await server.tokenize(body)
    ids, strings = wire.read_ids(reply), reply.get("token_strs")
    if not isinstance(strings, list) or not all(isinstance(string, str) for string in strings):
        raise BadReply("/tokenize answered without `token_strs`")
    text = await _prompt_text(exchange, ids, server)
    return ids, wire.offsets_from_strings(strings, text), "tokenize"


async def _native_prompt(
    exchange: Exchange, request: Mapping[str, Any], server: ModelServer
) -> tuple[tuple[int, ...], wire.Offsets, IdsSource]:
    """Of `/v1/responses` and `/v1/messages`: the render route gives the ids; their text, tokenised once more,
    must give them again, and with them the offsets."""
    ids = await _native_ids(exchange, request, server)
    text = await server.detokenize(exchange.model, ids)
    asked = {"model": exchange.model, "prompt": text, "add_special_tokens": False, "return_token_strs": True}
    reply = await server.tokenize(asked)
    if reply.get("tokens") != list(ids) or not isinstance(reply.get("token_strs"), list):
        raise CannotExplain(
            "the rendered prompt does not survive tokenising, and for such a request the server gives no offsets, "
            "so segments can't be mapped to tokens"
        )
    return ids, wire.offsets_from_strings(reply["token_strs"], text), "render"


async def _native_ids(exchange: Exchange, request: Mapping[str, Any], server: ModelServer) -> tuple[int, ...]:
    rendered = await server.render(exchange.kind, wire.render_body(request))
    if rendered is None:
        raise CannotExplain(
            f"only the server's render route knows the prompt of a {exchange.kind} request, and it is switched off: "
            "start vLLM with --enable-scale-out"
        )
    return wire.read_rendered_ids(rendered)


async def _prompt_text(exchange: Exchange, ids: tuple[int, ...], server: ModelServer) -> str:
    if exchange.kind == "completion" and exchange.prompt_ids is None:
        return exchange.messages[0].text
    return await server.detokenize(exchange.model, ids)


async def _places(exchange: Exchange, text: str, server: ModelServer) -> tuple[MessagePlace | None, ...]:
    if exchange.kind == "completion":
        return (MessagePlace(0, len(text)),)
    if exchange.kind in ("response", "message"):
        marked = await _native_ids(exchange, marked_native(exchange.kind, exchange.request), server)
        return locate(text, await server.detokenize(exchange.model, marked), exchange.messages)
    try:
        return await _places_by_markers(exchange, text, server, with_tools=True)
    except CannotExplain:
        if all(message.kind == "text" for message in exchange.messages):
            raise
        return await _places_by_markers(exchange, text, server, with_tools=False)


async def _places_by_markers(
    exchange: Exchange, text: str, server: ModelServer, *, with_tools: bool
) -> tuple[MessagePlace | None, ...]:
    marked, _, _ = await _prompt(exchange, marked_request(exchange.request, with_tools=with_tools), server)
    return locate(text, await server.detokenize(exchange.model, marked), exchange.messages)


async def output_of(exchange: Exchange, server: ModelServer) -> dict[str, Any]:
    """The output's ids, text and offsets: fields of TokenizedExchange. Raises CannotExplain."""
    exact = exchange.output_ids
    text = exchange.output_text if exact is None else await server.detokenize(exchange.model, exact)
    asked = {"model": exchange.model, "prompt": text, "add_special_tokens": False, "return_token_strs": True}
    reply = await server.tokenize(asked)
    ids, strings = wire.read_ids(reply), reply.get("token_strs")
    if exact is None:
        if not ids:
            raise CannotExplain("the answer has no tokens, so there is nothing to explain")
        if await server.detokenize(exchange.model, ids) != text:
            raise CannotExplain("the answer's text does not survive tokenising, so it can't be scored as it was")
    elif ids != exact:  # sampled tokens need not be those that their text is cut into
        return {"output_ids": exact, "output_text": text, "output_offsets": ()}
    try:
        offsets = wire.offsets_from_strings(strings, text) if isinstance(strings, list) else ()
    except CannotExplain:  # only who aims at a part of the answer needs them
        offsets = ()
    return {"output_ids": ids, "output_text": text, "output_offsets": tuple(offsets)}
