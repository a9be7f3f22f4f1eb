"""The plugin's side of the wire: what it takes, what it refuses, and the golden file that both sides hold to."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spex_proxy_vllm.asked import FIELDS, MOST_MASKS, BadRequest, check, longest, read

GOLDEN = json.loads((Path(__file__).parents[3] / "plugins/vllm_engine/golden/spex_score.json").read_text())


def body(**changes: Any) -> bytes:
    return json.dumps(GOLDEN["request"] | changes).encode()


def test_the_golden_request_means_the_golden_prompts() -> None:
    asked = read(body())
    assert [asked.prompt(number) for number in range(len(asked))] == GOLDEN["prompts"]
    assert (asked.model, asked.output_ids, asked.priority) == ("smollm2", (40, 41), 100)
    assert (asked.cache_salt, asked.in_flight, asked.warm, asked.yields) == ("spex-golden", 4, True, True)
    assert longest(asked) == 10


def test_no_segments_is_the_whole_prompt() -> None:
    asked = read(body(segments=[], masks="", count=2))
    assert [asked.prompt(0), asked.prompt(1)] == [GOLDEN["request"]["ids"]] * 2
    check(asked, longest_prompt=11, vocabulary=42)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ids": []}, "ids must be"),
        ({"ids": [1, "2"]}, "ids must be"),
        ({"ids": [1, True]}, "ids must be"),
        ({"ids": [1, -2]}, "ids must be"),
        ({"ids": [1 << 31]}, "ids must be"),
        ({"output_ids": []}, "output_ids must be"),
        ({"output_ids": 3}, "output_ids must be"),
        ({"segments": None}, r"\[start, end\]"),
        ({"segments": [[1]]}, r"\[start, end\]"),
        ({"segments": [[1, 2.0], [4, 6], [6, 7]]}, r"\[start, end\]"),
        ({"segments": [[1, 1], [4, 6], [6, 7]]}, "empty"),
        ({"segments": [[4, 6], [1, 4], [6, 7]]}, "overlaps"),
        ({"segments": [[1, 4], [3, 6], [6, 7]]}, "overlaps"),
        ({"segments": [[1, 4], [4, 6], [6, 9]]}, "leaves the 8 ids"),
        ({"masks": "4MBA"}, "4 rows of 1 bytes"),
        ({"masks": "4MBAAA"}, "4 rows of 1 bytes"),
        ({"masks": "4MBA AA=="}, "4 rows of 1 bytes"),
        ({"masks": 3}, "4 rows of 1 bytes"),
        ({"count": 0}, "count must be"),
        ({"count": MOST_MASKS + 1}, "count must be"),
        ({"count": True}, "count must be"),
        ({"priority": "0"}, "priority must be"),
        ({"cache_salt": ""}, "cache_salt must be"),
        ({"cache_salt": "x" * 1025}, "cache_salt must be"),
        ({"in_flight": 0}, "in_flight must be"),
        ({"warm": 1}, "warm must be"),
        ({"yields": None}, "yields must be"),
        ({"model": None}, "model must be"),
        ({"temperature": 1}, "and no others"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        read(body(**changes))


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_is_needed(field: str) -> None:
    rest = {name: value for name, value in GOLDEN["request"].items() if name != field}
    with pytest.raises(BadRequest, match=field):
        read(json.dumps(rest).encode())


@pytest.mark.parametrize("raw", [b"", b"[]", b"nonsense", b"[" * 100_000, b"\xff"])
def test_no_object(raw: bytes) -> None:
    with pytest.raises(BadRequest):
        read(raw)


def test_the_models_limits() -> None:
    asked = read(body())
    check(asked, longest_prompt=11, vocabulary=42)
    with pytest.raises(BadRequest, match="10 tokens together; the model takes 10"):
        check(asked, longest_prompt=10, vocabulary=42)
    with pytest.raises(BadRequest, match="token id 41 is outside"):
        check(asked, longest_prompt=11, vocabulary=41)


def test_a_prompt_must_keep_its_first_token() -> None:
    covering = read(body(ids=[1, 2, 3], segments=[[0, 3]], masks="AA==", count=1))
    with pytest.raises(BadRequest, match="leaves nothing"):
        check(covering, longest_prompt=100, vocabulary=100)


def test_only_the_longest_mask_that_is_asked_counts() -> None:
    short = read(body(masks=base64.b64encode(np.packbits([[False] * 3], axis=1).tobytes()).decode(), count=1))
    check(short, longest_prompt=5, vocabulary=42)
