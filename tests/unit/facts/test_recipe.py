"""A recipe's digest: the same for the same choices, another for any other choice."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from spex_proxy.facts.recipe import Recipe

OTHER: dict[str, Any] = {
    "segmenter": "word",
    "masker": "blank",
    "value": "first_token",
    "method": "spex",
    "design": "paired",
    "budget": 257,
    "seed": 1,
    "target_r2": 0.9,
    "replicates": 4,
    "max_scored_tokens": 64,
    "target": "first_token",
    "finer": "sentence",
    "inside": "01a2",
    "plugins": {"segmenter:sentence": "spex-proxy 0.1.0"},
}
"""For each field, something else than its default."""


def test_the_digest_of_the_defaults_never_changes() -> None:
    """Stored explanations cite it. A new field or default changes it: say so in the changelog, then here."""
    assert Recipe().digest() == "sha256:9ba0f568184f1bb977040634fd7bc9d7d12028ddc589513f5930b39875e65b41"


def test_every_field_is_tried() -> None:
    assert set(OTHER) == {field.name for field in dataclasses.fields(Recipe)}


@pytest.mark.parametrize("name", OTHER)
def test_the_digest_sees_each_field(name: str) -> None:
    assert Recipe(**{name: OTHER[name]}).digest() != Recipe().digest()


def test_all_digests_differ() -> None:
    assert len({Recipe(**{name: OTHER[name]}).digest() for name in OTHER}) == len(OTHER)


def test_the_order_of_plugins_does_not_count() -> None:
    one = Recipe(plugins={"masker:delete": "a 1", "value:sum": "b 2"})
    assert one.digest() == Recipe(plugins={"value:sum": "b 2", "masker:delete": "a 1"}).digest()


def test_it_survives_storage() -> None:
    recipe = Recipe(**OTHER)
    stored = json.loads(json.dumps(recipe.to_json()))
    assert Recipe.from_json(stored) == recipe
    assert Recipe.from_json(stored).digest() == recipe.digest()


def test_a_newer_recipe_is_not_half_read() -> None:
    with pytest.raises(TypeError, match="temperature"):
        Recipe.from_json({**Recipe().to_json(), "temperature": 1})
