"""Who asked, and how a request is labelled: what clients say of themselves in the body. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def user_of(request: Mapping[str, Any]) -> str | None:
    """Who asked: `safety_identifier` or `user` (OpenAI), `metadata.user_id` (Anthropic)."""
    metadata = request.get("metadata")
    given = metadata.get("user_id") if isinstance(metadata, dict) else None
    names = (request.get("safety_identifier"), request.get("user"), given)
    return next((name for name in names if isinstance(name, str) and name), None)


def tags_of(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The request's `metadata`, whose values may be anything."""
    metadata = request.get("metadata")
    return metadata if isinstance(metadata, dict) else {}
