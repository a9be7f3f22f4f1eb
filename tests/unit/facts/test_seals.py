"""Digests: known answers, and the two ways in which a digest goes wrong: too blind or too easy to guess."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.facts.seals import canonical_json, salted_seal, seal

parts = st.lists(st.binary(max_size=6), max_size=4)


def test_known_answers() -> None:
    # what anybody can recompute with sha256sum and openssl: length (8 bytes, big-endian), then the part
    framed = b"\x00" * 7 + b"\x02hi" + b"\x00" * 8
    assert seal(b"hi", b"") == "sha256:" + hashlib.sha256(framed).hexdigest()
    assert salted_seal(b"salt", b"hi", b"") == "hmac-sha256:" + hmac.new(b"salt", framed, "sha256").hexdigest()
    assert seal() == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@given(parts, parts)
def test_equal_only_for_equal_parts(one: list[bytes], other: list[bytes]) -> None:
    """Where parts begin and end counts: ("ab", "c") is not ("a", "bc")."""
    assert (seal(*one) == seal(*other)) == (one == other)
    assert (salted_seal(b"s", *one) == salted_seal(b"s", *other)) == (one == other)


@given(st.binary(min_size=1, max_size=64), st.binary(min_size=1, max_size=64), parts)
def test_content_digests_need_the_salt(salt: bytes, other: bytes, content: list[bytes]) -> None:
    sealed = salted_seal(salt, *content)
    assert sealed.partition(":")[2] != seal(*content).partition(":")[2]
    if salt.ljust(64, b"\0") != other.ljust(64, b"\0"):  # HMAC pads short keys with zeros
        assert sealed != salted_seal(other, *content)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("aé☀"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abcé"), json_values))
def test_canonical_json_does_not_know_the_order_of_keys(value: dict[str, Any]) -> None:
    backwards = dict(reversed(value.items()))
    assert canonical_json(value) == canonical_json(backwards)


def test_canonical_json_is_one_form() -> None:
    assert canonical_json({"b": [1, 2.5, None], "a": "é☀"}) == '{"a":"é☀","b":[1,2.5,null]}'.encode()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_json_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json([number])
