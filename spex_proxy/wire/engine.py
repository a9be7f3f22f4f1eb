"""Scoring inside the engine: what `POST /v1/spex/score` of our vLLM plugin is sent, and what it answers.

The masked prompts of an explanation are one prompt with segments left out, so that one is sent once, with a bit for
each segment and mask. The plugin imports nothing of ours: `plugins/vllm_engine/golden` holds what both sides agree on.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spex_proxy.facts.errors import BadReply
from spex_proxy.facts.evidence import LogProbs, Probe, Reading
from spex_proxy.wire.scoring import LOWEST, ROUNDING, Usage

PROTOCOL = 2
"""The plugin's route tells its own; another number is another language."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The unmasked prompt, and which parts of it may be left out."""

    ids: tuple[int, ...]
    segments: tuple[tuple[int, int], ...]
    """Ranges [start, end) of `ids`: ascending, disjoint, not empty."""


def lay_out(ids: tuple[int, ...], ranges: Sequence[tuple[int, int]], filler: tuple[int, ...] = ()) -> Layout:
    """The prompt; with a `filler`, each range is followed by what may stand in its place, as many tokens of it."""
    if not filler:
        return Layout(ids, tuple(ranges))
    both: list[int] = []
    segments: list[tuple[int, int]] = []
    position = 0
    for start, end in ranges:
        both += ids[position:end]
        length = end - start
        both += (filler * length)[:length]
        segments += [(len(both) - 2 * length, len(both) - length), (len(both) - length, len(both))]
        position = end
    return Layout((*both, *ids[position:]), tuple(segments))


def kept(layout: Layout, ids: Sequence[int]) -> tuple[bool, ...] | None:
    """Which segments stand in `ids`; None if it is not the prompt with some of them left out.

    Where the same ids come of several choices (two equal sentences), one of them: only the ids count.
    """
    ids = tuple(ids)
    reached: list[dict[int, tuple[int, bool]]] = []
    """After each segment: place in `ids` -> (place before it, whether the segment was kept)."""
    places, position = {0}, 0
    for start, end in layout.segments:
        between = layout.ids[position:start]
        before = [at for at in places if ids[at : at + len(between)] == between]
        here: dict[int, tuple[int, bool]] = {}
        for at in before:
            after = at + len(between)
            here.setdefault(after, (at, False))
            if ids[after : after + end - start] == layout.ids[start:end]:
                here[after + end - start] = (at, True)
        reached.append(here)
        places, position = set(here), end
    rest = layout.ids[position:]
    at = len(ids) - len(rest)
    if at not in places or ids[at:] != rest:
        return None
    choices: list[bool] = []
    for here in reversed(reached):
        at, is_kept = here[at]
        choices.append(is_kept)
    return tuple(reversed(choices))


def score_body(
    model: str, layout: Layout, probes: Sequence[Probe], *, priority: int, cache_salt: str, in_flight: int, warm: bool,
    yields: bool,
) -> dict[str, Any]:  # fmt: skip
    """One request for all `probes`, which have the same answer. Maskers that do more than leave out cost more bytes.
    `yields`: the server asks its engine only while no request of production is there."""
    ids: tuple[int, ...] = layout.ids
    segments = layout.segments
    rows: list[tuple[bool, ...]] = []
    for probe in probes:
        row = kept(layout, probe.prompt_ids)
        if row is None:
            ids, segments, rows = _apart(probes)
            break
        rows.append(row)
    masks = np.asarray(rows, dtype=np.bool_).reshape(len(rows), len(segments))
    return {
        "model": model,
        "ids": list(ids),
        "segments": [list(pair) for pair in segments],
        "masks": base64.b64encode(np.packbits(masks, axis=1).tobytes()).decode("ascii"),
        "count": len(rows),
        "output_ids": list(probes[0].output_ids),
        "priority": priority,
        "cache_salt": cache_salt,
        "in_flight": in_flight,
        "warm": warm,
        "yields": yields,
    }


def _apart(probes: Sequence[Probe]) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...], list[tuple[bool, ...]]]:
    """Every different prompt as a segment of its own, of which each mask keeps one."""
    prompts = list(dict.fromkeys(probe.prompt_ids for probe in probes))
    ends = np.cumsum([len(prompt) for prompt in prompts]).tolist()
    segments = tuple(zip([0, *ends[:-1]], ends, strict=True))
    rows = [tuple(prompt == probe.prompt_ids for prompt in prompts) for probe in probes]
    return tuple(token for prompt in prompts for token in prompt), segments, rows


@dataclass(frozen=True, slots=True)
class Answered:
    """One mask's line."""

    number: int
    reading: Reading | None
    error: str
    """Why there is no reading; empty if there is one."""
    again: bool
    """Whether asking again later may help."""
    usage: Usage


@dataclass(frozen=True, slots=True)
class Interrupted:
    """One mask made room for production in the middle; the server asks it again by itself."""

    number: int


def read_line(line: bytes, masks: int, k: int) -> Answered | Interrupted | int:
    """A mask's answer, or that it was interrupted; of the last line, how many were answered. Raises BadReply."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise BadReply("/v1/spex/score sent a line that is not a JSON object")
    if set(data) == {"done"} and type(data["done"]) is int:
        return int(data["done"])
    if set(data) == {"mask", "interrupted"} and data["mask"] in range(masks):
        return Interrupted(int(data["mask"]))
    number, prompt, cached = (data.get(name) for name in ("mask", "prompt_tokens", "cached_tokens"))
    if type(number) is not int or not 0 <= number < masks or type(prompt) is not int or type(cached) is not int:
        raise BadReply("/v1/spex/score sent a line without a mask's number, or without its tokens")
    usage = Usage(prompt, cached)
    if "error" in data:
        return Answered(number, None, str(data["error"]), data.get("again") is True, usage)
    logprobs = decode_logprobs(data.get("logprobs"), k, f"mask {number}")
    value = data.get("value")
    if not isinstance(value, int | float) or not math.isclose(
        value, math.fsum(logprobs.tolist()), rel_tol=1e-6, abs_tol=1e-6
    ):
        raise BadReply(f"mask {number}: the value is not the sum of the log-probabilities")
    return Answered(number, Reading(logprobs), "", False, usage)


def decode_logprobs(packed: Any, k: int, whose: str) -> LogProbs:
    """Shape (k,): base64 of little-endian float32. Raises BadReply for anything that is no log-probability."""
    try:
        raw = base64.b64decode(packed, validate=True) if isinstance(packed, str) else b""
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 4 * k:
        raise BadReply(f"{whose}: {k} log-probabilities were due, {len(raw)} bytes came")
    return checked(np.frombuffer(raw, dtype="<f4").astype(np.float32), whose)


def checked(logprobs: LogProbs, whose: str) -> LogProbs:
    """The same, if every one can be a log-probability. Raises BadReply."""
    if not np.isfinite(logprobs).all() or (logprobs < LOWEST).any():
        raise BadReply(f"{whose}: a log-probability is missing or no number")
    if (logprobs > ROUNDING).any():
        raise BadReply(
            f"{whose}: a log-probability is positive; is the server started with --logprobs-mode raw_logits? "
            "It must be raw_logprobs"
        )
    return logprobs
