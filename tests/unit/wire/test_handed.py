"""Our side of the hand-over: the golden form, and everything that is not taken."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.facts.errors import BadReply
from spex_proxy.wire.handed import FIELDS, HEAD_BYTES, read_handed

GOLDEN = json.loads((Path(__file__).parents[3] / "plugins/vllm_engine/golden/handover.json").read_text())


def payload(line: dict[str, Any]) -> bytes:
    bodies: str = GOLDEN["request"] + GOLDEN["answer"]
    return json.dumps(line).encode() + b"\n" + bodies.encode()


def test_the_golden_exchange() -> None:
    found = read_handed(payload(GOLDEN["line"]))
    assert (found.head.id, found.head.method, found.head.path) == (
        "01a20433-68dc-7fe9-b901-53f5e246a0ef", "POST", "/v1/chat/completions",
    )  # fmt: skip
    assert found.head.received_at == datetime(2026, 11, 28, 21, 0, 0, 250_000, UTC)
    assert found.head.header(b"x-spex-key") == "shown"
    assert found.head.header(b"user-agent") == "café"
    assert found.head.header(b"authorization") is None
    assert found.response_headers == ((b"content-type", b"application/json"),)
    assert (found.request_body.decode(), found.answer.decode()) == (GOLDEN["request"], GOLDEN["answer"])
    assert (found.status, found.first_byte_s, found.duration_s, found.ending) == (200, 0.25, 0.5, "complete")
    assert found.lost == {"memory_full": 2}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"protocol": 2}, "form that this version reads"),
        ({"more": 1}, "no others"),
        ({"id": "chosen-by-somebody"}, "UUIDv7"),
        ({"id": "01a20433-68dc-4fe9-b901-53f5e246a0ef"}, "UUIDv7"),
        ({"id": 7}, "UUIDv7"),
        ({"method": ""}, "method"),
        ({"path": "/\u00fc"}, "path"),
        ({"received_at": "2026-11-28T21:00:00"}, "with a zone"),
        ({"received_at": 3}, "with a zone"),
        ({"headers": [["a"]]}, "headers"),
        ({"headers": [["a", 3]]}, "headers"),
        ({"headers": [["\u4e00", ""]]}, "headers"),
        ({"headers": None}, "headers"),
        ({"response_headers": 3}, "response_headers"),
        ({"status": "200"}, "status"),
        ({"status": True}, "status"),
        ({"request_bytes": 1 << 40}, "request_bytes"),
        ({"request_bytes": -1}, "request_bytes"),
        ({"first_byte_s": float("nan")}, "first_byte_s"),
        ({"duration_s": -1}, "duration_s"),
        ({"ending": "well"}, "ending"),
        ({"ending": []}, "ending"),
        ({"lost": {"memory_full": 0}}, "lost"),
        ({"lost": {"something": 1}}, "lost"),
        ({"lost": []}, "lost"),
    ],
)
def test_what_is_not_taken(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BadReply, match=words):
        read_handed(payload(GOLDEN["line"] | changes))


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_every_field_is_needed(field: str) -> None:
    with pytest.raises(BadReply):
        read_handed(payload({name: value for name, value in GOLDEN["line"].items() if name != field}))


@given(st.binary(max_size=200) | st.just(b"[" * HEAD_BYTES) | st.just(b'"' + b"x" * HEAD_BYTES + b'"\n'))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(BadReply):
        read_handed(data)
