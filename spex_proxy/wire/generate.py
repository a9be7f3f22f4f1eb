"""Scoring over `/inference/v1/generate` with `prompt_logprob_token_ids`: bodies and replies.

vLLM's V2 model runner computes the rows of the answer alone, and reads the rest of the prompt from its prefix cache. If
the cache reaches into the answer, it gives null for all rows: then the same is asked without the cache.
"""

from __future__ import annotations

import base64
import binascii
import io
from typing import Any

import numpy as np

from spex_proxy.facts.errors import BadReply
from spex_proxy.facts.evidence import Probe, Reading
from spex_proxy.wire.engine import checked
from spex_proxy.wire.scoring import Usage, read_usage

FIELD = "prompt_token_id_logprobs"


def generate_body(model: str, probe: Probe, priority: int, cache_salt: str, *, whole: bool) -> dict[str, Any]:
    """One probe; `whole` reads nothing from the prefix cache, and so is never answered with null."""
    return {
        "model": model,
        "token_ids": [*probe.prompt_ids, *probe.output_ids],
        "priority": priority,
        "cache_salt": cache_salt,
        "sampling_params": {
            "max_tokens": 1,
            "temperature": 0,
            "detokenize": False,
            "skip_reading_prefix_cache": whole,
            "prompt_logprob_token_ids": [[token] for token in probe.output_ids],
            "prompt_logprob_start": len(probe.prompt_ids) - 1,
        },
    }


def read_generate(reply: Any, k: int) -> tuple[Reading | None, Usage]:
    """None where the server says null. Raises BadReply: a server that ignores the question also answers 200."""
    if not isinstance(reply, dict) or FIELD not in reply:
        raise BadReply(f"/inference/v1/generate answered without {FIELD}: this vLLM does not know the question")
    usage = read_usage(reply)
    packed = reply[FIELD]
    if packed is None:
        return None, usage
    try:
        rows = np.load(io.BytesIO(base64.b64decode(packed, validate=True)), allow_pickle=False)
    except (binascii.Error, ValueError, TypeError, EOFError, OSError):
        raise BadReply(f"{FIELD} is not the base64 of a NumPy array") from None
    if rows.shape != (k, 1) or rows.dtype.kind != "f":
        raise BadReply(f"{FIELD}: {k} rows of one number were due, {rows.dtype} of shape {rows.shape} came")
    return Reading(checked(rows[:, 0].astype(np.float32), FIELD)), usage
