"""Facts for the store's tests."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import UTC, datetime
from typing import Any

import numpy as np
import sqlalchemy as sa

from spex_proxy.facts.evidence import Block
from spex_proxy.facts.exchange import (
    Exchange,
    Message,
    MessagePlace,
    Segment,
    Segmentation,
    Target,
    TokenizedExchange,
)
from spex_proxy.facts.explanation import Cost, Explanation, Fidelity, Flag, Interaction
from spex_proxy.facts.game import Game, Scorer
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.seals import seal
from spex_proxy.facts.spectrum import Spectrum
from spex_proxy.store.exchanges import Kept, save_captured

NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)


class Make:
    """Makes facts: plausible, small, every field set to something that a slip would show."""

    recipe = Recipe(budget=99, seed=7, plugins={"segmenter:sentence": "spex-proxy 0.1.0"})
    target = Target(0, 3, "first words", is_cut=True)
    scorer = Scorer("completions", "tiny", "vllm 0.32.0")

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def id(self) -> str:
        """In time order, with beginnings that differ from the first character on."""
        number = next(self._numbers)
        return f"{number:02d}9b3c5d-0000-7000-8000-{number:012d}"

    def exchange(self, **changes: Any) -> Exchange:
        values: dict[str, Any] = {
            "id": self.id(),
            "project": "default",
            "kind": "chat",
            "model": "tiny",
            "messages": (Message("system", "Be brief."), Message("tool", "18 °C\u0000\ud800", "weather")),
            "output_text": "It is warm. ☀",
            "finish_reason": "stop",
            "upstream_id": "chatcmpl-" + self.id(),
            "streamed": True,
            "received_at": NOON,
            "first_byte_s": 0.1,
            "duration_s": 1 / 3,
            "prompt_tokens": 12,
            "output_tokens": 4,
            "capture_probability": 0.25,
            "request": {"model": "tiny", "messages": [], "seed": 3, "$array": [1], "logit_bias": {"5": -0.1}},
            "prompt_ids": (1, 2, 3),
        }
        return Exchange(**values | changes)

    def tokens(self) -> TokenizedExchange:
        return TokenizedExchange(
            prompt_ids=(5, 6, 7),
            prompt_text="<u>hi",
            offsets=((0, 3), (3, 4), (4, 5)),
            places=(MessagePlace(3, 5, trimmed=1), None),
            output_ids=(9, 8),
            ids_source="render",
        )

    def players(self, n: int = 3) -> Segmentation:
        parts = (Segment(0, 5 * i, 5 * i + 5, 2 * i, 2 * i + 2, "user", "user") for i in range(n))
        return Segmentation("sentence", tuple(parts))

    def game(self, exchange_id: str | None, **changes: Any) -> Game:
        game = Game(
            id=self.id(),
            project="default",
            kind="features",
            exchange_id=exchange_id,
            parent_game_id=None,
            players=self.players(),
            masker="delete",
            value="sum_logprob",
            scorer=self.scorer,
            target=self.target,
            digest="hmac-sha256:00",
        )
        return dataclasses.replace(game, **changes)

    def block(self, number: int = 0, m: int = 4, n: int = 3, k: int = 2) -> Block:
        rng = np.random.default_rng(number)
        return Block(
            number=number,
            masks=rng.random((m, n)) < 0.5,
            replicates=np.arange(m) % 2,
            values=rng.normal(size=m),
            logprobs=rng.normal(size=(m, k)).astype(np.float32),
            prompt_tokens=400,
            cached_tokens=100,
            seconds=0.7,
            probes_digest=seal(b"probes"),
        )

    def explanation(self, exchange_id: str | None, game_ids: tuple[str, ...], **changes: Any) -> Explanation:
        explanation = Explanation(
            id=self.id(),
            project="default",
            exchange_id=exchange_id,
            game_ids=game_ids,
            target=self.target,
            recipe=self.recipe,
            spectrum=Spectrum.from_terms(3, [(0,), (1, 2)], [-0.1, 1 / 3], [0.01, 0.02]),
            fidelity=Fidelity(0.9, 0.85, 0.95, 0.001, float("-inf"), -3.0, -30.5, 99),
            interactions=(
                Interaction((1, 2), 1 / 3, 4 / 3, 2 / 3, 0.02),
                Interaction((0,), -0.1, 0.2, 0.1, None),
            ),
            how={"penalty": 0.1, "folds": np.asarray([0, 1, 2], dtype=np.int32), "support": [[0], [1, 2]]},
            verdict="reliable",
            verdict_reason="out-of-fold R2 0.90",
            cost=Cost(99, 4000, 1000, 7.5),
            flags=(Flag("injection", "segment 2"), Flag("cut", "128 tokens")),
            trace_id="0af7651916cd43dd8448eb211c80319c",
            span_id="b7ad6b7169203331",
            created_at=NOON,
        )
        return dataclasses.replace(explanation, **changes)

    def saved(self, conn: sa.Connection, **changes: Any) -> Exchange:
        """An exchange in the store, captured and chosen to be explained."""
        exchange = self.exchange(**changes)
        save_captured(conn, [Kept(exchange, None, None, None, explain=True, why="drawn", explain_probability=0.5)])
        return exchange
