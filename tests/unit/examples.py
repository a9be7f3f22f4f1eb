"""A small explained exchange whose every number is known by hand."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

from spex_proxy.engine.indices import rank_interactions
from spex_proxy.facts.exchange import Exchange, Message, Segment, Segmentation, Target
from spex_proxy.facts.explanation import Cost, Explanation, Fidelity
from spex_proxy.facts.game import Game, Scorer
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.spectrum import Spectrum

NOON = datetime(2026, 11, 22, 12, 0, 0, 250_000, tzinfo=UTC)
MESSAGES = (
    Message("system", "Answer from the notes."),
    Message("tool", "The bell is in Oslo. It rang twice.\n", "search"),
    Message("user", "Where is the bell?"),
)


def an_exchange(**changes: Any) -> Exchange:
    values: dict[str, Any] = {
        "id": "0199b3c5-0000-7000-8000-000000000001",
        "project": "default",
        "kind": "chat",
        "model": "tiny",
        "messages": MESSAGES,
        "output_text": "In Oslo.",
        "finish_reason": "stop",
        "upstream_id": "chatcmpl-1",
        "streamed": False,
        "received_at": NOON,
        "first_byte_s": 0.125,
        "duration_s": 0.5,
        "prompt_tokens": 40,
        "output_tokens": 3,
        "capture_probability": 1.0,
        "request": {"model": "tiny", "messages": []},
    }
    return Exchange(**values | changes)


def chat(*texts: str) -> Exchange:
    """An exchange whose messages have these texts."""
    return an_exchange(messages=tuple(Message("user", text) for text in texts))


def a_game(**changes: Any) -> Game:
    """Three players: two sentences of the search's result, and the question. The system prompt is nobody's."""
    players = (
        Segment(1, 0, 21, 8, 13, "tool", "tool:search"),
        Segment(1, 21, 36, 13, 17, "tool", "tool:search"),
        Segment(2, 0, 18, 20, 25, "user", "user"),
    )
    game = Game(
        id="game-1",
        project="default",
        kind="features",
        exchange_id="0199b3c5-0000-7000-8000-000000000001",
        parent_game_id=None,
        players=Segmentation("sentence", players),
        masker="delete",
        value="sum_logprob",
        scorer=Scorer("completions", "tiny", "vllm 0.32.0"),
        target=Target(0, 3),
        digest="hmac-sha256:00",
    )
    return dataclasses.replace(game, **changes)


SPECTRUM = Spectrum.from_terms(3, [(), (0,), (1,), (2,), (0, 2)], [-9.0, -2.0, 0.25, -1.0, 0.75])
"""Banzhaf values: keeping the first sentence adds 4, the second -0.5, the question 2; the first
and the question together 3 more."""


def an_explanation(**changes: Any) -> Explanation:
    explanation = Explanation(
        id="ab12cd34ef56ab12cd34ef56ab12cd34",
        project="default",
        exchange_id="0199b3c5-0000-7000-8000-000000000001",
        game_ids=("game-1",),
        target=Target(0, 3),
        recipe=Recipe(),
        spectrum=SPECTRUM,
        fidelity=Fidelity(0.987, 0.971, 0.993, 0.001, 0.9999, -2.5, -16.25, 40),
        interactions=rank_interactions(SPECTRUM),
        how={"method": "proxyspex"},
        verdict="reliable",
        verdict_reason="it predicts 99% of what masking does to the output",
        cost=Cost(42, 12345, 0, 7.5),
        flags=(),
        trace_id="0af7651916cd43dd8448eb211c80319c",
        span_id="b7ad6b7169203331",
        created_at=NOON,
    )
    return dataclasses.replace(explanation, **changes)
