"""How a noun of the API gets its description."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def documented(kind: type[T]) -> type[T]:
    """Let whoever makes a schema of `kind` (pydantic, in `web`) read the texts below its fields."""
    kind.__pydantic_config__ = {"use_attribute_docstrings": True}  # type: ignore[attr-defined]
    return kind
