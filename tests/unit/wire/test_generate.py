"""Scoring over /inference/v1/generate: what is sent, null, and every reply that is not believed."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest

from spex_proxy.facts.errors import BadReply
from spex_proxy.facts.evidence import Probe
from spex_proxy.wire.generate import FIELD, generate_body, read_generate
from spex_proxy.wire.scoring import Usage


def npy(rows: Any) -> str:
    file = io.BytesIO()
    np.save(file, np.asarray(rows, dtype=np.float32) if isinstance(rows, list) else rows)
    return base64.b64encode(file.getvalue()).decode()


def reply(rows: Any, **more: Any) -> dict[str, Any]:
    usage = {"prompt_tokens": 6, "total_tokens": 7, "prompt_tokens_details": {"cached_tokens": 2}}
    return {"request_id": "r", "choices": [], "usage": usage, FIELD: rows, **more}


def test_the_rows_that_are_asked_for_are_the_answers() -> None:
    body = generate_body("tiny", Probe((5, 6, 7), (8, 9), "d"), 100, "salt", whole=False)
    assert json.loads(json.dumps(body)) == {
        "model": "tiny",
        "token_ids": [5, 6, 7, 8, 9],
        "priority": 100,
        "cache_salt": "salt",
        "sampling_params": {
            "max_tokens": 1,
            "temperature": 0,
            "detokenize": False,
            "skip_reading_prefix_cache": False,
            "prompt_logprob_token_ids": [[8], [9]],
            "prompt_logprob_start": 2,
        },
    }
    sampling = body["sampling_params"]
    rows = len(body["token_ids"]) - 1 - sampling["prompt_logprob_start"]  # vLLM refuses any other number of rows
    assert rows == len(sampling["prompt_logprob_token_ids"])


def test_rows_are_read() -> None:
    reading, usage = read_generate(reply(npy([[-0.5], [-2.0]])), 2)
    assert reading is not None
    assert reading.logprobs.tolist() == [-0.5, -2.0]
    assert reading.logprobs.dtype == np.float32
    assert usage == Usage(6, 2)


def test_null_is_no_reading_and_costs_what_it_costs() -> None:
    assert read_generate(reply(None), 2) == (None, Usage(6, 2))


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        {},
        {"usage": {"prompt_tokens": 6}},
        {FIELD: npy([[-1.0], [-1.0]])},
        reply("not base64!"),
        reply(base64.b64encode(b"not an array").decode()),
        reply(3),
        reply([[-1.0], [-1.0]]),
        reply(npy([[-1.0]])),
        reply(npy([-1.0, -1.0])),
        reply(npy([[-1.0, -1.0], [-1.0, -1.0]])),
        reply(npy(np.asarray([["a"], ["b"]]))),
        reply(npy([[-1.0], [float("nan")]])),
        reply(npy([[-1.0], [float("-inf")]])),
        reply(npy([[-1.0], [1.5]])),
    ],
)
def test_what_is_not_believed(wrong: Any) -> None:
    with pytest.raises(BadReply):
        read_generate(wrong, 2)
