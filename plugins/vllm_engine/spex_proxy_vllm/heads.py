"""What `POST /v1/spex/ablate` is asked: one prompt and its answer under masks of attention heads.

Ablated heads write other keys and values into the engine's cache. So no request is taken without a cache salt, and what
the engine is given is a salt of each mask's own, made of it: neither production nor another mask can read these blocks.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spex_proxy_vllm.asked import (
    MOST_IN_FLIGHT,
    MOST_MASKS,
    MOST_SALT,
    Asked,
    BadRequest,
    fields_of,
    masks,
    number,
    text,
    token_ids,
    truth,
)

FIELDS = ("model", "ids", "output_ids", "layers", "masks", "count", "rescale", "priority", "cache_salt", "in_flight")
KEY = "spex_ablation"
"""Among a request's extra arguments."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Workers that ablate."""

    n_layers: int
    n_heads: int
    """Query heads of a layer."""
    secret: str
    """Workers believe only extra arguments that name it: `vllm_xargs` of an ordinary request reach them too."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Why nothing is ablated here, and what to do."""

    why: str


@dataclass(frozen=True, slots=True, eq=False)
class AskedHeads(Asked):
    """A mask (True: kept) has a place for each head of the layers, layer by layer; prompts are whole."""

    first: int
    """The first ablated layer."""
    rescale: bool
    """Whether the kept heads of a layer are multiplied by heads over kept heads (arXiv 2505.17495, C.2)."""
    secret: str

    def prompt(self, number: int) -> list[int]:
        ids: list[int] = self.ids.tolist()
        return ids

    def alone(self, number: int) -> AskedHeads:
        salt = hashlib.sha256("\n".join((self.secret, self.cache_salt, repr(self.told(number)))).encode()).hexdigest()
        return replace(self, masks=self.masks[number : number + 1], cache_salt=f"spex-ablated-{salt}")

    def extra(self) -> dict[str, Any]:
        return {KEY: {"secret": self.secret, **self.told(0)}}

    def told(self, number: int) -> dict[str, Any]:
        """One mask, as the worker reads it (`scales`)."""
        packed = base64.b64encode(np.packbits(self.masks[number]).tobytes()).decode("ascii")
        return {"first": self.first, "heads": packed, "count": self.masks.shape[1], "rescale": self.rescale}


def read_heads(body: bytes, ready: Ready) -> AskedHeads:
    """Raises BadRequest, naming the field."""
    data = fields_of(body, FIELDS)
    first, stop = layers(data["layers"], ready.n_layers)
    salt = data["cache_salt"]
    if not isinstance(salt, str) or not salt:
        raise BadRequest(
            "cache_salt: ablated requests need a salt of their own; without one production would read the keys and "
            "values that ablated heads have written"
        )
    return AskedHeads(
        model=text(data, "model", 1 << 12),
        ids=np.asarray(token_ids(data, "ids"), dtype=np.int64),
        segments=(),
        masks=masks(data["masks"], number(data, "count", 1, MOST_MASKS), (stop - first) * ready.n_heads),
        output_ids=token_ids(data, "output_ids"),
        priority=number(data, "priority", -(1 << 31), 1 << 31),
        cache_salt=text(data, "cache_salt", MOST_SALT),
        in_flight=number(data, "in_flight", 1, MOST_IN_FLIGHT),
        warm=False,
        yields=False,
        first=first,
        rescale=truth(data, "rescale"),
        secret=ready.secret,
    )


def layers(given: Any, n_layers: int) -> tuple[int, int]:
    if not isinstance(given, list) or len(given) != 2 or {*map(type, given)} != {int}:
        raise BadRequest("layers must be [first, stop]")
    first, stop = given
    if not 0 <= first < stop <= n_layers:
        raise BadRequest(f"layers [{first}, {stop}] are not among the model's, 0 to {n_layers - 1}")
    return first, stop
