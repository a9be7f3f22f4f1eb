"""Facts <-> columns. Nothing here touches a database.

Three forms, none of them pickle:

- **Rows of JSON columns**: small things that a person may read in SQL (players, scorer, recipe, fidelity).
- **Packed JSON**: `SPJ1` followed by zlib. For content, and for what only code reads (`how`). NumPy
  arrays inside it come back as equal arrays, tuples as lists. It ends in zlib's own checksum.
- **Arrays**: little-endian bytes whose shape stands in columns (blocks) or in a header (spectrum).

Layout of a spectrum, little-endian throughout:

    4   magic `SPXF`
    2   version, 1
    2   flags: bit 0 = standard errors follow
    4   n, players
    8   t, terms
    8tw supports, uint64, w = max(1, ceil(n/64)) words a term; bit j of word i is player 64i + j
    8t  coefficients, float64
    8t  standard errors, float64, if flagged
    4   CRC-32 of all bytes before

Bytes that don't decode raise VerificationFailed; fields that this version doesn't know raise SpexError,
since a newer version wrote them and dropping them would change what is said.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from spex_proxy.facts.errors import SpexError, VerificationFailed
from spex_proxy.facts.evidence import Block
from spex_proxy.facts.exchange import (
    Choice,
    Exchange,
    Message,
    MessagePlace,
    Segment,
    Segmentation,
    TokenizedExchange,
    ToolCall,
)
from spex_proxy.facts.explanation import Fidelity
from spex_proxy.facts.spectrum import WORD_BITS, Spectrum

T = TypeVar("T")

_PACKED_MAGIC = b"SPJ1"
_ARRAY = "$array"
_ARRAY_KINDS = "biuf"  # bool, signed, unsigned, float: what decodes without trusting the bytes

_SPECTRUM_MAGIC = b"SPXF"
_SPECTRUM_HEADER = struct.Struct("<4sHHIQ")
_SPECTRUM_VERSION = 1
_HAS_ERRORS = 1


def build(kind: type[T], data: Mapping[str, Any], what: str) -> T:
    """A fact from its stored fields. Raises SpexError where fields are unknown or missing."""
    try:
        return kind(**data)
    except TypeError as error:
        raise SpexError(
            f"{what} can't be read by this version of spex-proxy, a newer one may have written it: {error}"
        ) from error


# ------------------------------------------------------------------------------------- packed JSON


def pack_json(value: Any) -> bytes:
    """JSON with arrays, compressed. ASCII inside, so that half a surrogate pair of a client's survives."""
    text = json.dumps(value, default=_encode_other, separators=(",", ":"))
    return _PACKED_MAGIC + zlib.compress(text.encode("ascii"))


def unpack_json(blob: bytes, what: str) -> Any:
    """The inverse of `pack_json`; `what` names the thing in the error."""
    try:
        return json.loads(_unpacked(blob, what), object_hook=_decode_array)
    except (ValueError, TypeError) as error:
        raise VerificationFailed(f"{what} is damaged: {error}") from error


def _unpacked(blob: bytes, what: str) -> bytes:
    if blob[:4] != _PACKED_MAGIC:
        raise VerificationFailed(f"{what} is damaged: its first bytes are {bytes(blob[:4])!r}")
    try:
        return zlib.decompress(blob[4:])
    except zlib.error as error:
        raise VerificationFailed(f"{what} is damaged: {error}") from error


def _encode_other(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in _ARRAY_KINDS:
        little = np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<"), copy=False)
        return {_ARRAY: [little.dtype.str, list(value.shape), base64.b64encode(little.tobytes()).decode()]}
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"the store can't keep a {type(value).__name__} in JSON")


def _decode_array(data: dict[str, Any]) -> Any:
    if data.keys() != {_ARRAY}:
        return data
    name, shape, text = data[_ARRAY]
    dtype = np.dtype(name)
    if dtype.kind not in _ARRAY_KINDS:
        raise ValueError(f"an array of {name!r}")
    return np.frombuffer(base64.b64decode(text), dtype=dtype).reshape(shape).astype(dtype.newbyteorder("="))


# ------------------------------------------------------------------------------------ content blobs

_CONTENT_FIELDS = ("output_text", "prompt_ids", "output_ids", "usage", "obstacle")


def encode_content(exchange: Exchange) -> bytes:
    """The part of an exchange that is a person's content; the rest are columns."""
    content = {name: getattr(exchange, name) for name in _CONTENT_FIELDS}
    content["messages"] = [dataclasses.asdict(message) for message in exchange.messages]
    content["choices"] = [dataclasses.asdict(choice) for choice in exchange.choices]
    # kept as text: the client may use any key, ours for arrays too
    content["request"] = json.dumps(exchange.request, default=_encode_other)
    return pack_json(content)


def decode_content(blob: bytes, what: str) -> dict[str, Any]:
    """Field of Exchange -> value, for the fields that `encode_content` holds."""
    content = dict(unpack_json(blob, what))
    try:
        content["messages"] = tuple(build(Message, message, what) for message in content["messages"])
        content["request"] = json.loads(content["request"])
        for name in ("prompt_ids", "output_ids"):
            content[name] = None if content[name] is None else tuple(content[name])
        # what was stored by the first versions has no choices
        content["choices"] = tuple(_choice(choice, what) for choice in content.get("choices", ()))
    except (KeyError, TypeError, ValueError) as error:
        raise VerificationFailed(f"{what} is damaged: {error!r}") from error
    return content


def message_texts(blob: bytes, what: str, needles: Sequence[str] = ()) -> list[str]:
    """Of such a blob the messages' texts alone, in order: for those who read thousands. None where the content
    certainly lacks one of the `needles`, runs of small letters and digits. Raises VerificationFailed."""
    text = _unpacked(blob, what)
    if needles and b"\\u" not in text:  # else some letters are escaped
        lower = text.lower()
        if not all(needle.encode() in lower for needle in needles):
            return []
    try:
        return [str(message["text"]) for message in json.loads(text)["messages"]]
    except (KeyError, TypeError, ValueError) as error:
        raise VerificationFailed(f"{what} is damaged: {error!r}") from error


def _choice(data: Mapping[str, Any], what: str) -> Choice:
    calls = tuple(build(ToolCall, call, what) for call in data["tool_calls"])
    given = data["logprobs"]
    logprobs = None if given is None else tuple((str(token), float(value)) for token, value in given)
    return build(Choice, {**data, "tool_calls": calls, "logprobs": logprobs}, what)


def encode_tokens(tokens: TokenizedExchange) -> bytes:
    """Prompt and answer as token ids: content, like the text."""
    data = {field.name: getattr(tokens, field.name) for field in dataclasses.fields(tokens)}
    data["places"] = [None if place is None else dataclasses.asdict(place) for place in tokens.places]
    return pack_json(data)


def decode_tokens(blob: bytes, what: str) -> TokenizedExchange:
    data = dict(unpack_json(blob, what))
    try:
        data["prompt_ids"] = tuple(data["prompt_ids"])
        data["output_ids"] = tuple(data["output_ids"])
        for name in ("offsets", "output_offsets"):  # what was stored by the first versions has none of the output
            data[name] = tuple((start, end) for start, end in data.get(name, ()))
        data["places"] = tuple(p if p is None else build(MessagePlace, p, what) for p in data["places"])
    except (KeyError, TypeError, ValueError) as error:
        raise VerificationFailed(f"{what} is damaged: {error!r}") from error
    return build(TokenizedExchange, data, what)


# ------------------------------------------------------------------------------------- JSON columns


def encode_players(players: Segmentation) -> dict[str, Any]:
    return dataclasses.asdict(players)


def decode_players(data: Mapping[str, Any], what: str) -> Segmentation:
    segments = tuple(build(Segment, segment, what) for segment in data["segments"])
    later = {name: tuple(data.get(name, ())) for name in ("notes", "filler")}  # rows of the first version have none
    return build(Segmentation, {**data, "segments": segments, **later}, what)


def encode_fidelity(fidelity: Fidelity) -> dict[str, Any]:
    """Numbers that JSON doesn't have are written as text: `nan`, `inf`, `-inf`."""
    return {name: _spell(value) for name, value in dataclasses.asdict(fidelity).items()}


def decode_fidelity(data: Mapping[str, Any], what: str) -> Fidelity:
    numbers = {name: float(value) if isinstance(value, str) else value for name, value in data.items()}
    return build(Fidelity, numbers, what)


def _spell(value: float) -> float | str:
    return value if math.isfinite(value) else str(float(value))


def finite(value: float) -> float | None:
    """For columns that are searched: NULL where there is no number."""
    return float(value) if math.isfinite(value) else None


# ------------------------------------------------------------------------------------------ arrays


def encode_spectrum(spectrum: Spectrum) -> bytes:
    errors = spectrum.standard_errors
    body = b"".join(
        (
            _SPECTRUM_HEADER.pack(
                _SPECTRUM_MAGIC,
                _SPECTRUM_VERSION,
                0 if errors is None else _HAS_ERRORS,
                spectrum.n_players,
                len(spectrum),
            ),
            spectrum.supports.astype("<u8").tobytes(),
            spectrum.coefficients.astype("<f8").tobytes(),
            b"" if errors is None else errors.astype("<f8").tobytes(),
        )
    )
    return body + zlib.crc32(body).to_bytes(4, "little")


def decode_spectrum(blob: bytes, what: str) -> Spectrum:
    """Raises VerificationFailed for any changed, missing or added byte, SpexError for a newer version."""
    body, checksum = blob[:-4], blob[-4:]
    if len(body) < _SPECTRUM_HEADER.size:
        raise VerificationFailed(f"{what} is damaged: it has only {len(blob)} bytes")
    magic, version, flags, n_players, terms = _SPECTRUM_HEADER.unpack_from(body)
    if magic != _SPECTRUM_MAGIC:
        raise VerificationFailed(f"{what} is damaged: it begins with {magic!r}, not {_SPECTRUM_MAGIC!r}")
    if zlib.crc32(body).to_bytes(4, "little") != checksum:
        raise VerificationFailed(f"{what} is damaged: its checksum does not fit its bytes")
    if version != _SPECTRUM_VERSION or flags & ~_HAS_ERRORS:
        raise SpexError(f"{what} has form {version}.{flags}: a newer version of spex-proxy wrote it")
    words = max(1, -(-n_players // WORD_BITS))
    numbers = 2 if flags & _HAS_ERRORS else 1
    if len(body) - _SPECTRUM_HEADER.size != 8 * terms * (words + numbers):
        raise VerificationFailed(f"{what} is damaged: {len(blob)} bytes don't hold {terms} terms")
    start, stop = _SPECTRUM_HEADER.size, _SPECTRUM_HEADER.size + 8 * terms * words
    supports = np.frombuffer(body[start:stop], "<u8").reshape(terms, words)
    rest = np.frombuffer(body[stop:], "<f8").reshape(numbers, terms)
    # astype copies: a result that can't be written to in place surprises whoever computes with it
    errors = rest[1].astype(np.float64) if flags & _HAS_ERRORS else None
    return Spectrum(n_players, supports.astype(np.uint64), rest[0].astype(np.float64), errors)


def encode_block(block: Block) -> dict[str, Any]:
    """Column of `evidence_blocks` -> value; the keys and the time are the caller's."""
    n_masks, n_players = block.masks.shape
    return {
        "number": block.number,
        "n_masks": n_masks,
        "n_players": n_players,
        "n_tokens": block.logprobs.shape[1],
        "masks": np.packbits(block.masks, axis=1).tobytes(),
        "replicates": block.replicates.astype("<i8").tobytes(),
        "mask_values": block.values.astype("<f8").tobytes(),
        "logprobs": block.logprobs.astype("<f4").tobytes(),
        "prompt_tokens": block.prompt_tokens,
        "cached_tokens": block.cached_tokens,
        "seconds": block.seconds,
        "probes_digest": block.probes_digest,
        "digest": block.digest(),
    }


def decode_block(row: Mapping[str, Any], what: str) -> Block:
    """The inverse of `encode_block`. Raises VerificationFailed where bytes, shapes and digest disagree."""
    m, n, k = row["n_masks"], row["n_players"], row["n_tokens"]
    try:
        packed = np.frombuffer(row["masks"], np.uint8).reshape(m, -(-n // 8))
        block = Block(
            number=row["number"],
            masks=np.unpackbits(packed, axis=1, count=n).astype(np.bool_),
            replicates=np.frombuffer(row["replicates"], "<i8").reshape(m).astype(np.int64),
            values=np.frombuffer(row["mask_values"], "<f8").reshape(m).astype(np.float64),
            logprobs=np.frombuffer(row["logprobs"], "<f4").reshape(m, k).astype(np.float32),
            prompt_tokens=row["prompt_tokens"],
            cached_tokens=row["cached_tokens"],
            seconds=row["seconds"],
            probes_digest=row["probes_digest"],
        )
    except ValueError as error:
        raise VerificationFailed(f"{what} is damaged: {error}") from error
    if block.digest() != row["digest"]:
        raise VerificationFailed(f"{what} was changed: its digest does not fit its masks and values")
    return block
