"""Teacher-forced scoring over `/v1/completions`: what to send, and what to believe of the reply.

A probe is a masked prompt followed by the original answer. `prompt_logprobs: 0`
makes the server return the log-probability of each prompt token; the last k
rows are the answer's. Unknown fields are ignored with status 200, so that
nothing may be assumed: every row is checked against the token that it is for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spex_proxy.facts.errors import BadReply
from spex_proxy.facts.evidence import Probe, Reading

ROUNDING = 1e-3
"""Log-probabilities may exceed 0 by as much, in nats, by the server's own rounding."""
LOWEST = float(np.finfo(np.float32).min)
"""What can still be stored. vLLM itself writes -9999 for a token that could not come."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that the server counts for one reply."""

    prompt_tokens: int
    cached_tokens: int


def completions_body(model: str, probes: Sequence[Probe], priority: int, cache_salt: str) -> dict[str, Any]:
    """One batch of probes. `priority` above 0 is less urgent than production; the
    salt keeps our blocks of the prefix cache apart from everybody else's."""
    return {
        "model": model,
        "prompt": [[*probe.prompt_ids, *probe.output_ids] for probe in probes],
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": 0,
        "priority": priority,
        "cache_salt": cache_salt,
    }


def read_completions(reply: Any, probes: Sequence[Probe]) -> tuple[list[Reading], Usage]:
    """Readings in the probes' order. Raises BadReply, naming the probe, if anything is amiss."""
    choices = choices_of(reply, len(probes))
    readings = [_read_choice(choice, probe, n) for n, (choice, probe) in enumerate(zip(choices, probes, strict=True))]
    return readings, read_usage(reply)


def choices_of(reply: Any, count: int) -> list[Mapping[str, Any]]:
    """One choice for each of `count` probes, by the number that it says it answers: their order promises nothing.
    Raises BadReply."""
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(choices, list) or len(choices) != count:
        found = len(choices) if isinstance(choices, list) else "no"
        raise BadReply(f"asked for {count} probes, the server answered {found} choices")
    numbered: dict[int, Mapping[str, Any]] = {}
    for choice in choices:
        if isinstance(choice, dict) and type(choice.get("index")) is int:
            numbered.setdefault(choice["index"], choice)
    for number in range(count):
        if number not in numbered:
            raise BadReply(f"the server's choices carry no index {number}")
    return [numbered[number] for number in range(count)]


def _read_choice(choice: Mapping[str, Any], probe: Probe, number: int) -> Reading:
    rows = choice.get("prompt_logprobs")
    expected = len(probe.prompt_ids) + len(probe.output_ids)
    if not isinstance(rows, list) or len(rows) != expected:
        got = len(rows) if isinstance(rows, list) else "none"
        raise BadReply(
            f"probe {number}: {expected} rows of prompt_logprobs were due, {got} came; "
            "the upstream must be a vLLM server whose /v1/completions supports prompt_logprobs"
        )
    start = len(probe.prompt_ids)
    values = [_read_row(rows[start + i], token, number) for i, token in enumerate(probe.output_ids)]
    return Reading(np.asarray(values, dtype=np.float32))


def _read_row(row: Any, token: int, number: int) -> float:
    entry = row.get(str(token)) if isinstance(row, dict) else None
    value = entry.get("logprob") if isinstance(entry, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not LOWEST <= value < math.inf:
        raise BadReply(f"probe {number}: no log-probability came for token {token} of the answer")
    if value > ROUNDING:
        raise BadReply(
            f"probe {number}: log-probability {value} of token {token} is positive; "
            "is the server started with --logprobs-mode raw_logits? It must be raw_logprobs"
        )
    return float(value)


def read_usage(reply: Mapping[str, Any]) -> Usage:
    """What the server counted. Raises BadReply."""
    usage = reply.get("usage")
    if not isinstance(usage, dict) or not isinstance(usage.get("prompt_tokens"), int):
        raise BadReply("the server's reply has no usage.prompt_tokens, so its cost can't be counted")
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return Usage(usage["prompt_tokens"], cached if isinstance(cached, int) else 0)
