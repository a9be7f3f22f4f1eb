"""What is in the store, read with nothing of ours: plain sqlite3, zlib, json and numpy.

Whoever audits a store years from now may have no more than that and the description in store/codec.py.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Evidence:
    """All measurements of one exchange's game."""

    masks: np.ndarray
    """Shape (m, n), bool, True = kept."""
    values: np.ndarray
    """Shape (m,), float64."""
    logprobs: np.ndarray
    """Shape (m, k), float32."""
    segments: list[dict[str, Any]]
    fidelity: dict[str, Any]
    prompt_ids: list[int]
    prompt_text: str
    offsets: list[list[int]]
    output_ids: list[int]
    """Those that were scored."""

    def masked_prompt(self, row: int) -> list[int]:
        gone = {i for s in self._gone(row) for i in range(s["token_start"], s["token_end"])}
        return [token for i, token in enumerate(self.prompt_ids) if i not in gone]

    def kept_text(self, row: int) -> str:
        """The rendered prompt without the text that the masked segments' tokens cover."""
        text = self.prompt_text
        for s in reversed(self._gone(row)):
            text = text[: self.offsets[s["token_start"]][0]] + text[self.offsets[s["token_end"] - 1][1] :]
        return text

    def _gone(self, row: int) -> list[dict[str, Any]]:
        return [segment for segment, kept in zip(self.segments, self.masks[row], strict=True) if not kept]


def evidence_of(store: Path, upstream_id: str) -> Evidence:
    """Of the exchange that vLLM gave this id."""
    with closing(sqlite3.connect(store)) as db:
        game_id, players, scored, fidelity = db.execute(
            "SELECT g.id, g.players, g.scored_tokens, e.fidelity FROM exchanges x JOIN games g ON g.exchange_id = x.id "
            "JOIN explanation_games eg ON eg.game_id = g.id JOIN explanations e ON e.id = eg.explanation_id "
            "WHERE x.upstream_id = ? ORDER BY e.created_at",
            (upstream_id,),
        ).fetchone()
        blocks = db.execute(
            "SELECT n_masks, n_players, n_tokens, masks, mask_values, logprobs FROM evidence_blocks "
            "WHERE game_id = ? ORDER BY number",
            (game_id,),
        ).fetchall()
    packed = [np.frombuffer(masks, np.uint8).reshape(m, -1) for m, _, _, masks, _, _ in blocks]
    tokens, target = token_ids(store, upstream_id), json.loads(scored)
    return Evidence(
        masks=np.concatenate([np.unpackbits(p, axis=1, count=blocks[0][1]).astype(bool) for p in packed]),
        values=np.concatenate([np.frombuffer(values, "<f8") for *_, values, _ in blocks]),
        logprobs=np.concatenate([np.frombuffer(lp, "<f4").reshape(m, k) for m, _, k, _, _, lp in blocks]),
        segments=json.loads(players)["segments"],
        fidelity=json.loads(fidelity),
        prompt_ids=tokens["prompt_ids"],
        prompt_text=tokens["prompt_text"],
        offsets=tokens["offsets"],
        output_ids=tokens["output_ids"][target["start"] : target["end"]],
    )


def token_ids(store: Path, upstream_id: str) -> dict[str, Any]:
    """Prompt and answer as the model saw them: `SPJ1`, then JSON packed by zlib."""
    with closing(sqlite3.connect(store)) as db:
        (blob,) = db.execute(
            "SELECT c.blob FROM contents c JOIN exchanges x ON x.id = c.exchange_id "
            "WHERE x.upstream_id = ? AND c.part = 'tokens'",
            (upstream_id,),
        ).fetchone()
    assert blob[:4] == b"SPJ1"
    found: dict[str, Any] = json.loads(zlib.decompress(blob[4:]))
    return found
