"""A recipe: everything that somebody chose before an explanation was made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spex_proxy.facts.aim import WHOLE_OUTPUT
from spex_proxy.facts.seals import canonical_json, seal


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to explain. Two explanations with equal recipe digest and evidence are equal."""

    segmenter: str = "sentence"
    masker: str = "delete"
    value: str = "sum_logprob"
    method: str = "stack"
    design: str = "uniform"
    """Which masks are asked (engine/designs.py): uniform, keep=P with 0 < P < 1, paired, late or spex. The method
    "spex" asks its own."""
    budget: int = 256
    """Most masks to ask, replicates of the full prompt included."""
    seed: int = 0
    """Fixes the masks, the folds and the trees."""
    target_r2: float = 0.95
    """Stop asking when the lower end of the out-of-fold R2's interval reaches this."""
    replicates: int = 3
    """How often the full prompt is measured; the spread is the noise floor."""
    max_scored_tokens: int = 128
    """Only the first so many tokens of the answer are scored; a cut is recorded and shown."""
    target: str = WHOLE_OUTPUT
    """Which part of the answer is explained, as facts.aim spells it."""
    finer: str = ""
    """A segmenter: after this explanation another one is made, of the parts that this one found to matter, cut by it,
    with all else kept. Empty: none."""
    inside: str = ""
    """Id of the explanation whose strongest parts are the only ones that are cut; set by the worker."""
    plugins: Mapping[str, str] = field(default_factory=dict)
    """`kind:name` -> `distribution version`, filled in when the plugins are resolved."""

    def digest(self) -> str:
        """Of all fields; those that came later are left out where they say the usual, as in recipes stored before."""
        fields = dataclasses.asdict(self)
        for name, usual in (("target", WHOLE_OUTPUT), ("finer", ""), ("inside", "")):
            if fields[name] == usual:
                del fields[name]
        return seal(canonical_json(fields))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Recipe:
        """Rebuild a stored recipe. Unknown fields (from a newer version) are an error."""
        return cls(**data)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
