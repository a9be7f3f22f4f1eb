"""Maskers: a coalition becomes a prompt, in token-id space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spex_proxy.facts.exchange import Segmentation


class DeleteMasker:
    """Leaves masked segments out; the kept token ranges are joined.

    Deletion is the natural counterfactual for text ("had this sentence not been
    there") and never re-tokenises, so no tokens merge across a seam.
    """

    name = "delete"

    def apply(self, prompt_ids: Sequence[int], players: Segmentation, mask: NDArray[np.bool_]) -> tuple[int, ...]:
        kept: list[int] = []
        position = 0
        for segment, is_kept in zip(players.segments, mask, strict=True):
            if not is_kept:
                kept.extend(prompt_ids[position : segment.token_start])
                position = segment.token_end
        kept.extend(prompt_ids[position:])
        return tuple(kept)


class PlaceholderMasker:
    """Puts dots in the place of masked segments, as many tokens as were there: nothing behind them moves.

    Says "something stood here" where deletion says "nothing did", and keeps every position. What the
    model makes of the dots is in the values too.
    """

    name = "placeholder"
    filler = " ..."

    def apply(self, prompt_ids: Sequence[int], players: Segmentation, mask: NDArray[np.bool_]) -> tuple[int, ...]:
        ids = list(prompt_ids)
        for segment, is_kept in zip(players.segments, mask, strict=True):
            if not is_kept:
                length = segment.token_end - segment.token_start
                ids[segment.token_start : segment.token_end] = (players.filler * length)[:length]
        return tuple(ids)


class BlankMessageMasker:
    """A message stays only if all of its players are kept; else all of them are left out, and the template stays.

    Asks what whole messages, documents and tool results are worth while the players remain the finer
    segments: it equals `delete` where each message is one player.
    """

    name = "blank_message"

    def apply(self, prompt_ids: Sequence[int], players: Segmentation, mask: NDArray[np.bool_]) -> tuple[int, ...]:
        blank = {segment.message for segment, is_kept in zip(players.segments, mask, strict=True) if not is_kept}
        whole = np.asarray([segment.message not in blank for segment in players.segments], dtype=np.bool_)
        return DeleteMasker().apply(prompt_ids, players, whole)
