"""From text to token ids and back: which ids a message, a segment and an answer are.

vLLM's render route gives the ids of the prompt and the characters that each of
them covers; wire.places says where in it each message stands.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, groupby
from typing import Any

from spex_proxy.facts.errors import BadReply, CannotExplain, PluginError
from spex_proxy.facts.exchange import (
    KNOWN_ROLES,
    MARK_ARROW,
    Exchange,
    Message,
    MessagePlace,
    Segment,
    Segmentation,
    TextRange,
    TokenizedExchange,
)
from spex_proxy.wire.documents import stretches
from spex_proxy.wire.places import escaped

NOT_FOR_RENDERING = frozenset({"stream", "stream_options", "return_token_ids", "return_tokens_as_token_ids"})
"""Fields of a client's body that change how an answer travels, not what the prompt is."""

Offsets = tuple[tuple[int, int], ...]

_BYTE_TOKEN = re.compile("<0x([0-9A-Fa-f]{2})>")


def render_body(request: Mapping[str, Any]) -> dict[str, Any]:
    """The body that asks the render route for the ids of this request, with offsets."""
    body = {key: value for key, value in request.items() if key not in NOT_FOR_RENDERING}
    return {**body, "return_token_offsets": True}


def read_render(reply: Any) -> tuple[tuple[int, ...], Offsets]:
    """Ids and character offsets out of a render reply (chat: an object, completion: a list of one).

    Raises BadReply if either is missing: unknown fields are ignored by the server, not refused.
    """
    body = reply[0] if isinstance(reply, list) and len(reply) == 1 else reply
    ids = read_rendered_ids(body)
    offsets = body.get("token_offsets")
    if not isinstance(offsets, list) or len(offsets) != len(ids) or not all(map(_is_range, offsets)):
        raise BadReply(
            "the render route gave no token offsets: the model's tokenizer must be a fast (Rust) one for them"
        )
    return ids, tuple((start, end) for start, end in offsets)


def read_rendered_ids(reply: Any) -> tuple[int, ...]:
    """The ids alone: the render routes of `/v1/responses` and `/v1/messages` give no offsets. Raises BadReply."""
    ids = reply.get("token_ids") if isinstance(reply, dict) else None
    if not isinstance(ids, list) or not all(type(token) is int for token in ids):
        raise BadReply("the render route answered without `token_ids`; is the upstream vLLM 0.32 or newer?")
    return tuple(ids)


def read_ids(reply: Mapping[str, Any]) -> tuple[int, ...]:
    """The ids of a `/tokenize` reply. Raises BadReply if there are none, CannotExplain if they are no integers:
    a gateway in front of the server may have its own idea of a tokenizer."""
    ids = reply.get("tokens")
    if not isinstance(ids, list):
        raise BadReply("/tokenize answered without `tokens`")
    if not all(type(token) is int and token >= 0 for token in ids):
        raise CannotExplain(
            "/tokenize answered with token ids that are no whole numbers, so no prompt can be cut at them; is a "
            "gateway answering in the model server's place?"
        )
    return tuple(ids)


def offsets_from_strings(strings: Sequence[str], text: str) -> Offsets:
    """Character offsets from the token strings of `/tokenize`, for servers without the render route.

    Understands byte-level BPE (`Ġ`) and SentencePiece (`▁`, `<0xE2>`). Raises
    CannotExplain when the strings do not spell `text`.
    """
    for spell in (_byte_level, _sentence_piece):
        pieces = [spell(string) for string in strings]
        if b"".join(pieces) == text.encode():
            return _byte_offsets(pieces, text)
    raise CannotExplain(
        "the server's token strings do not spell the prompt, so segments can't be mapped to tokens; "
        "start vLLM with --enable-scale-out to let it give token offsets"
    )


def align(method: str, ranges: Sequence[TextRange], exchange: Exchange, tokens: TokenizedExchange) -> Segmentation:
    """Character ranges of messages -> disjoint token ranges of the prompt.

    A token belongs to the range that holds its last character (so the space in
    ` The` goes with the word), and to none if it reaches into the template.
    Ranges that own no token become part of the range before them in the message.
    The very first token of the prompt is nobody's: something must stand before the
    answer for its first token to have a probability.
    Raises PluginError if the segmenter `method` broke its contract about ranges.
    """
    _check_ranges(method, ranges, exchange)
    offsets = tokens.offsets
    segments: list[Segment] = []
    cursor = 1
    for number, place, pieces in _in_prompt_order(ranges, tokens.places):
        message = exchange.messages[number]
        stands, source = _standing(place, message.text), _sources(message)
        for piece in pieces:
            start, end = stands(piece.start), stands(piece.end)
            while cursor < len(offsets) and (offsets[cursor][1] <= start or offsets[cursor][0] < place.start):
                cursor += 1
            first = ahead = cursor
            while ahead < len(offsets) and max(offsets[ahead]) <= end:
                ahead += 1
                if offsets[ahead - 1][0] < end:  # one of no characters at the end is owned only if others follow it
                    cursor = ahead
            last = segments[-1] if segments else None
            if cursor > first:
                role = message.role if message.role in KNOWN_ROLES else "other"
                segments.append(Segment(number, piece.start, piece.end, first, cursor, role, source(piece)))
            elif last is not None and last.message == number:
                segments[-1] = replace(last, char_end=piece.end)
    return Segmentation(method, tuple(segments), tuple(_notes(exchange, tokens.places)))


def _in_prompt_order(
    ranges: Sequence[TextRange], places: Sequence[MessagePlace | None]
) -> list[tuple[int, MessagePlace, list[TextRange]]]:
    """Message by message, as the template put them; without those that it left out."""
    pieces = {number: list(of_one) for number, of_one in groupby(ranges, key=lambda piece: piece.message)}
    standing = [(number, place, pieces[number]) for number, place in enumerate(places) if place and number in pieces]
    return sorted(standing, key=lambda one: one[1].start)


def _sources(message: Message) -> Callable[[TextRange], str]:
    """Range of a message -> its provenance, with the document that it is part of."""
    marked = [stretch for stretch in stretches(message.text) if stretch.mark] if message.kind == "text" else []
    starts = [stretch.start for stretch in marked]

    def source(piece: TextRange) -> str:
        at = bisect_right(starts, piece.start) - 1
        is_inside = at >= 0 and piece.end <= marked[at].end
        return f"{message.origin}{MARK_ARROW}{marked[at].mark}" if is_inside else message.origin

    return source


def _notes(exchange: Exchange, places: Sequence[MessagePlace | None]) -> Iterator[str]:
    """What of the prompt nobody can mask, in words."""
    for kind, name in (("tool_definition", "tool definitions"), ("tool_call", "tool calls"), ("text", "texts")):
        found = [place for m, place in zip(exchange.messages, places, strict=True) if m.kind == kind and m.text.strip()]
        if lost := found.count(None):
            yield (
                f"{name}: {lost} of {len(found)} could not be found in the rendered prompt as one piece that is "
                "surely theirs; they were never masked"
            )


def _check_ranges(method: str, ranges: Sequence[TextRange], exchange: Exchange) -> None:
    returned: Any = ranges  # whatever a stranger's plugin gave
    if not isinstance(returned, Sequence) or not all(isinstance(piece, TextRange) for piece in returned):
        raise PluginError(f"the segmenter {method!r} broke its contract: it must return a sequence of TextRange")
    message, reached = 0, 0
    for piece in ranges:
        if piece.message > message:
            message, reached = piece.message, 0
        is_there = message == piece.message < len(exchange.messages)
        if not is_there or not reached <= piece.start < piece.end <= len(exchange.messages[message].text):
            raise PluginError(
                f"the segmenter {method!r} broke its contract: {piece} is empty, outside the prompt, "
                "or not behind the range before it"
            )
        reached = piece.end


def _standing(place: MessagePlace, text: str) -> Callable[[int], int]:
    """Character of a message -> where it stands in the prompt; what was trimmed off stands at the edge."""
    if place.spelling == "whole":
        return lambda character: place.end if character > 0 else place.start
    begin = place.start - place.trimmed
    if place.spelling == "plain":
        return lambda character: min(max(begin + character, place.start), place.end)
    spelling = place.spelling
    widths = (len(escaped(character, spelling)) for character in text[place.trimmed :])
    reached = list(accumulate(widths, initial=place.start))
    return lambda character: min(reached[max(character - place.trimmed, 0)], place.end)


def _is_range(offset: Any) -> bool:
    return isinstance(offset, list) and len(offset) == 2 and all(type(end) is int for end in offset)


def _byte_offsets(pieces: Sequence[bytes], text: str) -> Offsets:
    """A token that holds part of a character covers the whole character."""
    starts: list[int] = []  # byte position -> character number
    for number, character in enumerate(text):
        starts.extend([number] * len(character.encode()))
    offsets: list[tuple[int, int]] = []
    position = 0
    for piece in pieces:
        end = position + len(piece)
        here = starts[position] if position < len(starts) else len(text)
        offsets.append((here, starts[end - 1] + 1 if piece else here))
        position = end
    return tuple(offsets)


def _byte_level(string: str) -> bytes:
    """Byte-level BPE writes each byte as one printable character (GPT-2's table)."""
    try:
        return bytes(_BYTE_TABLE[character] for character in string)
    except KeyError:
        return string.encode()  # special tokens such as <|im_start|> stand as they are


def _sentence_piece(string: str) -> bytes:
    if byte := _BYTE_TOKEN.fullmatch(string):
        return bytes([int(byte[1], 16)])
    return string.replace("▁", " ").encode()


def _byte_table() -> dict[str, int]:
    """GPT-2's map of bytes to printable characters, inverted: printable Latin-1 bytes stand
    for themselves, the others for the code points from 256 upwards, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    return table | {chr(256 + number): byte for number, byte in enumerate(others)}


_BYTE_TABLE = _byte_table()
