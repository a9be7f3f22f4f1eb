"""What `POST /v1/spex/score` is asked, read strictly: a field too many or too few is a 400, never a silence."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_BYTES = 16 << 20
"""Of a request's body. Hundreds of masks of a long prompt take some tens of kilobytes."""
MOST_MASKS = 4096
MOST_IN_FLIGHT = 256
MOST_SALT = 1024
"""vLLM's own limit."""


class BadRequest(Exception):
    """What was asked makes no sense; the text is for the client."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Masked prompts of one prompt, each to be followed by the same answer."""

    model: str
    ids: NDArray[np.int64]
    """Shape (p,). The prompt with every segment in it."""
    segments: tuple[tuple[int, int], ...]
    """Ranges [start, end) of `ids` that a mask may leave out: ascending, disjoint, not empty."""
    masks: NDArray[np.bool_]
    """Shape (m, n). True = the segment stands in the prompt."""
    output_ids: tuple[int, ...]
    priority: int
    cache_salt: str
    in_flight: int
    """Most masks that the engine holds at once."""
    warm: bool
    """True: the first mask is answered before the second is asked, so that the others find its prefix cached."""
    yields: bool
    """True: no mask runs while a request of production is here; one that does is ended, and asked again later."""

    def __len__(self) -> int:
        return int(self.masks.shape[0])

    def prompt(self, number: int) -> list[int]:
        """Ids of masked prompt `number`: what no segment covers, and the kept segments, in order."""
        keep = np.ones(len(self.ids), dtype=np.bool_)
        for (start, end), is_kept in zip(self.segments, self.masks[number], strict=True):
            if not is_kept:
                keep[start:end] = False
        ids: list[int] = self.ids[keep].tolist()
        return ids

    def alone(self, number: int) -> Asked:
        """What the engine is asked for mask `number`."""
        return self

    def extra(self) -> dict[str, Any] | None:
        """What goes to the engine's worker with each prompt."""
        return None


FIELDS = (
    "model", "ids", "segments", "masks", "count", "output_ids", "priority", "cache_salt", "in_flight", "warm",
    "yields",
)  # fmt: skip


def read(body: bytes) -> Asked:
    """Raises BadRequest, naming the field."""
    data = fields_of(body, FIELDS)
    ids = token_ids(data, "ids")
    segments = _segments(data["segments"], len(ids))
    count = number(data, "count", 1, MOST_MASKS)
    return Asked(
        model=text(data, "model", 1 << 12),
        ids=np.asarray(ids, dtype=np.int64),
        segments=segments,
        masks=masks(data["masks"], count, len(segments)),
        output_ids=token_ids(data, "output_ids"),
        priority=number(data, "priority", -(1 << 31), 1 << 31),
        cache_salt=text(data, "cache_salt", MOST_SALT),
        in_flight=number(data, "in_flight", 1, MOST_IN_FLIGHT),
        warm=truth(data, "warm"),
        yields=truth(data, "yields"),
    )


def fields_of(body: bytes, names: Sequence[str]) -> dict[str, Any]:
    """A JSON object with just these fields. Raises BadRequest."""
    if len(body) > MOST_BYTES:
        raise BadRequest(f"the body has {len(body)} bytes, at most {MOST_BYTES} are taken")
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON") from None
    if not isinstance(data, dict) or set(data) != set(names):
        raise BadRequest(f"the body must be an object with the fields {', '.join(names)}, and no others")
    return data


def token_ids(data: dict[str, Any], name: str) -> tuple[int, ...]:
    ids = data[name]
    if not isinstance(ids, list) or not ids or {*map(type, ids)} != {int} or min(ids) < 0 or max(ids) >= 1 << 31:
        raise BadRequest(f"{name} must be a list of token ids, at least one")
    return tuple(ids)


def _segments(ranges: Any, length: int) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    position = 0
    for pair in ranges if isinstance(ranges, list) else [None]:
        if not isinstance(pair, list) or len(pair) != 2 or {*map(type, pair)} != {int}:
            raise BadRequest("segments must be a list of [start, end]")
        start, end = pair
        if not position <= start < end <= length:
            raise BadRequest(f"segment [{start}, {end}] is empty, overlaps the one before, or leaves the {length} ids")
        found.append((start, end))
        position = end
    return tuple(found)


def masks(packed: Any, count: int, segments: int) -> NDArray[np.bool_]:
    """`count` rows of ceil(segments / 8) bytes, the first segment in the highest bit."""
    width = -(-segments // 8)
    try:
        raw = base64.b64decode(packed, validate=True) if isinstance(packed, str) else None
    except (binascii.Error, ValueError):
        raw = None
    if raw is None or len(raw) != count * width:
        raise BadRequest(f"masks must be the base64 of {count} rows of {width} bytes")
    rows = np.frombuffer(raw, dtype=np.uint8).reshape(count, width)
    return np.unpackbits(rows, axis=1, count=segments).astype(np.bool_)


def number(data: dict[str, Any], name: str, least: int, most: int) -> int:
    value = data[name]
    if type(value) is not int or not least <= value <= most:
        raise BadRequest(f"{name} must be a whole number from {least} to {most}")
    return value


def text(data: dict[str, Any], name: str, most: int) -> str:
    value = data[name]
    if not isinstance(value, str) or not 0 < len(value) <= most:
        raise BadRequest(f"{name} must be a text of 1 to {most} characters")
    return value


def truth(data: dict[str, Any], name: str) -> bool:
    value = data[name]
    if not isinstance(value, bool):
        raise BadRequest(f"{name} must be true or false")
    return value


def longest(asked: Asked) -> int:
    """Tokens of the longest masked prompt with its answer."""
    sizes = np.asarray([end - start for start, end in asked.segments], dtype=np.int64)
    gone = (~asked.masks).astype(np.int64) @ sizes if len(sizes) else np.zeros(1, dtype=np.int64)
    return len(asked.ids) - int(gone.min()) + len(asked.output_ids)


def highest(asked: Asked) -> int:
    """The largest token id of all."""
    return max(int(asked.ids.max()), *asked.output_ids)


def check(asked: Asked, *, longest_prompt: int, vocabulary: int) -> None:
    """Against the model's limits; one token is generated after the answer. Raises BadRequest."""
    if longest(asked) + 1 > longest_prompt:
        raise BadRequest(
            f"prompt and answer have {longest(asked)} tokens together; the model takes {longest_prompt}, "
            "and one is generated"
        )
    if highest(asked) >= vocabulary:
        raise BadRequest(f"token id {highest(asked)} is outside the model's vocabulary of {vocabulary}")
    if any(not row.any() and covered(asked) == len(asked.ids) for row in asked.masks):
        raise BadRequest("a mask leaves nothing of the prompt; the first token must be outside every segment")


def covered(asked: Asked) -> int:
    """Ids that some segment covers."""
    return sum(end - start for start, end in asked.segments)


def repeats(masks: Sequence[bytes]) -> tuple[bool, ...]:
    """Which masks were asked before in the same request: their prompts are cached whole, rows and all."""
    seen: set[bytes] = set()
    found = []
    for mask in masks:
        found.append(mask in seen)
        seen.add(mask)
    return tuple(found)
