"""From text to token ids and back: which ids a message, a segment and an answer are.

vLLM's render route gives the ids of the prompt and the characters that each of
them covers. Where a message stands in the rendered prompt is found by rendering
once more with a marker in place of each text: what surrounds the markers is the
template, whatever the template is.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from spex_proxy.facts.errors import BadReply, CannotExplain, PluginError
from spex_proxy.facts.exchange import (
    Exchange,
    Message,
    MessagePlace,
    Segment,
    Segmentation,
    TextRange,
    TokenizedExchange,
)

NOT_FOR_RENDERING = frozenset({"stream", "stream_options", "return_token_ids", "return_tokens_as_token_ids"})
"""Fields of a client's body that change how an answer travels, not what the prompt is."""

Offsets = tuple[tuple[int, int], ...]

_BYTE_TOKEN = re.compile("<0x([0-9A-Fa-f]{2})>")


def render_body(request: Mapping[str, Any]) -> dict[str, Any]:
    """The body that asks the render route for the ids of this request, with offsets."""
    body = {key: value for key, value in request.items() if key not in NOT_FOR_RENDERING}
    return {**body, "return_token_offsets": True}


def marker(number: int) -> str:
    """A text that no template treats specially and that no other message contains."""
    return f"spex-marker-{number:04d}-qjxz"


def marked_request(request: Mapping[str, Any]) -> dict[str, Any]:
    """The same chat request with each message's text replaced by its marker."""
    marked = copy.deepcopy(dict(request))
    for number, message in enumerate(marked.get("messages", [])):
        if isinstance(message, dict) and message.get("content"):
            message["content"] = marker(number)
    return marked


def read_render(reply: Any) -> tuple[tuple[int, ...], Offsets]:
    """Ids and character offsets out of a render reply (chat: an object, completion: a list of one).

    Raises BadReply if either is missing: unknown fields are ignored by the server, not refused.
    """
    body = reply[0] if isinstance(reply, list) and len(reply) == 1 else reply
    ids = body.get("token_ids") if isinstance(body, dict) else None
    if not isinstance(ids, list) or not all(type(token) is int for token in ids):
        raise BadReply("the render route answered without `token_ids`; is the upstream vLLM 0.32 or newer?")
    offsets = body.get("token_offsets")
    if not isinstance(offsets, list) or len(offsets) != len(ids) or not all(map(_is_range, offsets)):
        raise BadReply(
            "the render route gave no token offsets: the model's tokenizer must be a fast (Rust) one for them"
        )
    return tuple(ids), tuple((start, end) for start, end in offsets)


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


def locate(text: str, marked_text: str, messages: Sequence[Message]) -> tuple[MessagePlace | None, ...]:
    """Where each message's text stands in the rendered prompt `text`.

    `marked_text` is the same prompt rendered with markers. A template may trim
    white space and may leave messages out; if it does more than that to a text,
    CannotExplain names the message.
    """
    # Trimmed or not can't always be told from one message ("a\n" before an empty line?), only from
    # whether the rest fits: so every way that fits so far is kept, by the position where it ends.
    ways: dict[int, tuple[MessagePlace | None, ...]] = {0: ()}
    template = 0  # how much of marked_text is accounted for
    for number, message in enumerate(messages):
        at = marked_text.find(marker(number), template)
        if at < 0:
            ways = {position: (*places, None) for position, places in ways.items()}
            continue
        before = marked_text[template:at]
        template = at + len(marker(number))
        framed = {p + len(before): places for p, places in ways.items() if text.startswith(before, p)}
        if not framed:
            raise _rewritten(max(number - 1, 0))
        ways = {}
        for position, places in framed.items():
            for place in _fits(text, position, message.text):
                ways.setdefault(place.end, (*places, place))
        if not ways:
            raise _rewritten(number)
    for position, places in ways.items():
        if text[position:] == marked_text[template:]:
            return places
    raise _rewritten(len(messages) - 1)


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
    for piece in ranges:
        place = tokens.places[piece.message]
        if place is None:
            continue
        start, end = (_in_prompt(place, character) for character in (piece.start, piece.end))
        while cursor < len(offsets) and (offsets[cursor][1] <= start or offsets[cursor][0] < place.start):
            cursor += 1
        first = cursor
        while cursor < len(offsets) and offsets[cursor][0] < end and offsets[cursor][1] <= end:
            cursor += 1
        message = exchange.messages[piece.message]
        last = segments[-1] if segments else None
        if cursor > first:
            segments.append(
                Segment(piece.message, piece.start, piece.end, first, cursor, message.role, message.provenance)
            )
        elif last is not None and last.message == piece.message:
            segments[-1] = replace(last, char_end=piece.end)
    return Segmentation(method, tuple(segments))


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


def _in_prompt(place: MessagePlace, character: int) -> int:
    """Where a character of a message stands in the prompt; what was trimmed off stands at the edge."""
    return min(max(place.start - place.trimmed + character, place.start), place.end)


def _fits(text: str, position: int, content: str) -> Iterator[MessagePlace]:
    """The ways in which a message's text, trimmed or not, stands at `position`; untrimmed first."""
    left = len(content) - len(content.lstrip())
    for candidate, trimmed in (
        (content, 0),
        (content.strip(), left),
        (content.rstrip(), 0),
        (content.lstrip(), left),
    ):
        if text.startswith(candidate, position):
            yield MessagePlace(position, position + len(candidate), trimmed)


def _is_range(offset: Any) -> bool:
    return isinstance(offset, list) and len(offset) == 2 and all(type(end) is int for end in offset)


def _rewritten(number: int) -> CannotExplain:
    return CannotExplain(
        f"the chat template changes the text of message {number + 1}, "
        "so its segments can't be found in the prompt that the model saw"
    )


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
