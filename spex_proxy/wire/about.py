"""What a vLLM server says of itself: `/version`, `/v1/models`, `/metrics`. Bytes in, records out.

Nothing that a server may send raises here: what can't be read is None.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_CACHE_LINE = re.compile(r"^vllm:cache_config_info\{(.*)\} ", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_RELEASE = re.compile(r"(\d+)\.(\d+)(\.\d+)?((rc|\.post)\d+)?(\+[\w.]+)?")


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One model that the server serves."""

    name: str
    max_model_len: int | None


@dataclass(frozen=True, slots=True)
class PrefixCache:
    """How the server keeps the work on prompts that begin alike."""

    block_tokens: int | None
    """Only whole blocks of so many tokens are shared."""
    is_on: bool | None
    tokens: int | None
    """Room for so many tokens, of one engine."""


def read_version(body: bytes) -> str | None:
    """The version that `/version` gives."""
    data = _object(body)
    return data["version"] if isinstance(data.get("version"), str) else None


def release(version: str) -> tuple[int, int] | None:
    """(major, minor) of a released version; None for a build between releases, which can't be placed."""
    found = _RELEASE.fullmatch(version)
    return (int(found[1]), int(found[2])) if found else None


def read_models(body: bytes) -> tuple[ModelCard, ...] | None:
    """What `/v1/models` lists."""
    cards = _object(body).get("data")
    if not isinstance(cards, list):
        return None
    named = [card for card in cards if isinstance(card, dict) and isinstance(card.get("id"), str)]
    return tuple(ModelCard(card["id"], _count(card.get("max_model_len"))) for card in named)


def read_prefix_cache(metrics: str) -> PrefixCache | None:
    """What `vllm:cache_config_info` says; of the first engine, where there are several."""
    line = _CACHE_LINE.search(metrics)
    if line is None:
        return None
    labels = {found[1]: found[2] for found in _LABEL.finditer(line[1])}
    is_on = {"True": True, "False": False}.get(labels.get("enable_prefix_caching", ""))
    return PrefixCache(_number(labels.get("block_size")), is_on, _number(labels.get("kv_cache_size_tokens")))


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None


def _object(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
