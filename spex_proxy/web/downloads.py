"""Evidence as files: what spreadsheets and numpy read."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from spex_proxy.facts.records import EvidenceRecord
from spex_proxy.store.browse_explanations import Measured

CSV_TYPE = "text/csv"
NPZ_TYPE = "application/octet-stream"

COLUMNS = ("game_id", "block", "replicate", "mask", "value")


def as_csv(evidence: EvidenceRecord) -> str:
    """One line for each reading. Masks are texts of 0 and 1: open them as text, not as numbers."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for game in evidence.games:
        rows = zip(game.blocks, game.replicates, game.masks, game.values, strict=True)
        writer.writerows((game.game_id, *row) for row in rows)
    return out.getvalue()


def as_npz(games: Sequence[Measured]) -> bytes:
    """`game_ids`, and for game g (from 0): `masks_g` (m, n) bool, `values_g` (m,), `replicates_g` (m,),
    `blocks_g` (m,) and `logprobs_g` (m, k) float32, the log-probability of each token of the target."""
    arrays: dict[str, Any] = {"game_ids": np.asarray([measured.game.id for measured in games])}
    for number, measured in enumerate(games):
        blocks = measured.blocks
        if not blocks:
            continue
        arrays[f"masks_{number}"] = np.concatenate([b.masks for b in blocks])
        arrays[f"values_{number}"] = np.concatenate([b.values for b in blocks])
        arrays[f"replicates_{number}"] = np.concatenate([b.replicates for b in blocks])
        arrays[f"blocks_{number}"] = np.concatenate([np.full(len(b.values), b.number) for b in blocks])
        arrays[f"logprobs_{number}"] = np.concatenate([b.logprobs for b in blocks])
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()
