"""Digests: what they cover, how they are keyed, how they are written.

A digest is tagged with its algorithm. Content (text, token ids) is only ever
digested under a salt that is stored beside it and destroyed with it; a plain
hash of a short personal text could be guessed back.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any


def canonical_json(value: Any) -> bytes:
    """The one JSON form that is hashed: sorted keys, no spaces, UTF-8, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def seal(*parts: bytes) -> str:
    """`sha256:<hex>` of length-prefixed parts. For what is no person's content."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return f"sha256:{digest.hexdigest()}"


def salted_seal(salt: bytes, *parts: bytes) -> str:
    """`hmac-sha256:<hex>` of length-prefixed parts under `salt`. For content."""
    digest = hmac.new(salt, digestmod=hashlib.sha256)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return f"hmac-sha256:{digest.hexdigest()}"
