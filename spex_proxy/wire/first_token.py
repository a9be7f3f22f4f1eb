"""Scoring one token over `/v1/completions` with `logprob_token_ids`: what to send, and what to believe of the reply.

The server generates one token after the masked prompt and tells how likely the one was that we ask for, whichever it
chose. That reads its prefix cache and computes one row. It can say so of the next token only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spex_proxy.facts.errors import BadReply
from spex_proxy.facts.evidence import Probe, Reading
from spex_proxy.wire.engine import checked
from spex_proxy.wire.scoring import Usage, choices_of, read_usage

SPELLED = "token_id:{}"
"""How the server names tokens that are asked for as ids: two of them may have the same text."""


def first_token_body(model: str, probes: Sequence[Probe], priority: int, cache_salt: str) -> dict[str, Any]:
    """One batch of probes, all with the same answer of one token."""
    return {
        "model": model,
        "prompt": [list(probe.prompt_ids) for probe in probes],
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": 1,
        "logprob_token_ids": list(probes[0].output_ids),
        "return_tokens_as_token_ids": True,
        "priority": priority,
        "cache_salt": cache_salt,
    }


def read_first_token(reply: Any, probes: Sequence[Probe]) -> tuple[list[Reading], Usage]:
    """Readings in the probes' order. Raises BadReply, naming the probe, if anything is amiss."""
    choices = choices_of(reply, len(probes))
    readings = [_read(choice, probe, n) for n, (choice, probe) in enumerate(zip(choices, probes, strict=True))]
    return readings, read_usage(reply)


def _read(choice: Mapping[str, Any], probe: Probe, number: int) -> Reading:
    (token,) = probe.output_ids
    told = choice.get("logprobs")
    rows = told.get("top_logprobs") if isinstance(told, dict) else None
    row = rows[0] if isinstance(rows, list) and rows else None
    value = row.get(SPELLED.format(token)) if isinstance(row, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadReply(
            f"probe {number}: no log-probability came for token {token}: this server does not know logprob_token_ids"
        )
    return Reading(checked(np.asarray([value], dtype=np.float32), f"probe {number}"))
