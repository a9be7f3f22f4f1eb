"""Plugins that break their contract in one way each. `name` is what the class does."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import numpy as np

from spex_proxy.facts.errors import CannotExplain
from spex_proxy.facts.exchange import Exchange, Segmentation, TextRange
from spex_proxy.plug.kinds import KINDS
from spex_proxy.plug.load import Plugins


class _Segmenter:
    def __init__(self) -> None:
        self.name = type(self).__name__

    def split(self, exchange: Exchange) -> Any:
        end = len(exchange.messages[0].text)
        return self.ranges(exchange, end)

    def ranges(self, exchange: Exchange, end: int) -> Any:
        raise NotImplementedError


class SegmenterThatRaises(_Segmenter):
    def ranges(self, exchange: Exchange, end: int) -> Any:
        raise ValueError(f"cannot cut {exchange.messages[0].text!r}")


class SegmenterOutOfText(_Segmenter):
    def ranges(self, exchange: Exchange, end: int) -> Sequence[TextRange]:
        return [TextRange(0, 0, end + 5)]


class SegmenterOfAnotherMessage(_Segmenter):
    def ranges(self, exchange: Exchange, end: int) -> Sequence[TextRange]:
        return [TextRange(7, 0, 3)]


class SegmenterThatOverlaps(_Segmenter):
    def ranges(self, exchange: Exchange, end: int) -> Sequence[TextRange]:
        return [TextRange(0, 0, 20), TextRange(0, 10, end)]


class SegmenterOfNothing(_Segmenter):
    def ranges(self, exchange: Exchange, end: int) -> Any:
        return None


class SegmenterThatDeclines(_Segmenter):
    def ranges(self, exchange: Exchange, end: int) -> Any:
        raise CannotExplain("this is a poem")


class _Masker:
    def __init__(self) -> None:
        self.name = type(self).__name__


class MaskerThatRaises(_Masker):
    def apply(self, prompt_ids: Sequence[int], players: Segmentation, mask: np.ndarray) -> tuple[int, ...]:
        raise KeyError(len(mask))


class MaskerThatLosesAToken(_Masker):
    def apply(self, prompt_ids: Sequence[int], players: Segmentation, mask: np.ndarray) -> tuple[int, ...]:
        return tuple(prompt_ids[1:])


class MaskerOfEverything(_Masker):
    def apply(self, prompt_ids: Sequence[int], players: Segmentation, mask: np.ndarray) -> tuple[int, ...]:
        return tuple(prompt_ids) if mask.all() else ()


class MaskerOfText(_Masker):
    def apply(self, prompt_ids: Sequence[int], players: Segmentation, mask: np.ndarray) -> Any:
        return "all kept"


class MaskerThatWritesIntoTheMask(_Masker):
    def apply(self, prompt_ids: Sequence[int], players: Segmentation, mask: np.ndarray) -> tuple[int, ...]:
        mask[:] = True
        return tuple(prompt_ids)


class _Value:
    unit = "nats"

    def __init__(self) -> None:
        self.name = type(self).__name__


class ValueThatRaises(_Value):
    def read(self, logprobs: np.ndarray) -> np.ndarray:
        raise ZeroDivisionError


class ValueOfNaN(_Value):
    def read(self, logprobs: np.ndarray) -> np.ndarray:
        return np.full(len(logprobs), np.nan)


class ValueOfEachToken(_Value):
    def read(self, logprobs: np.ndarray) -> np.ndarray:
        return logprobs


class ValueOfWords(_Value):
    def read(self, logprobs: np.ndarray) -> Any:
        return ["high"] * len(logprobs)


EXPECTED: dict[str, tuple[type, str]] = {
    "segmenter raises": (SegmenterThatRaises, "failed with a ValueError"),
    "segmenter leaves the text": (SegmenterOutOfText, "reaches out of its message"),
    "segmenter invents a message": (SegmenterOfAnotherMessage, "in message 7 of 1"),
    "segmenter overlaps": (SegmenterThatOverlaps, "begins before the end"),
    "segmenter returns None": (SegmenterOfNothing, "failed with a TypeError"),
    "masker raises": (MaskerThatRaises, "failed with a KeyError"),
    "masker loses a token": (MaskerThatLosesAToken, "although every player is kept"),
    "masker returns nothing": (MaskerOfEverything, "no token at all"),
    "masker returns text": (MaskerOfText, "failed with a TypeError"),
    "masker writes into the mask": (MaskerThatWritesIntoTheMask, "failed with a ValueError"),
    "value raises": (ValueThatRaises, "failed with a ZeroDivisionError"),
    "value is NaN": (ValueOfNaN, "not a finite number"),
    "value of each token": (ValueOfEachToken, "shape (8, 3)"),
    "value is no number": (ValueOfWords, "failed with a ValueError"),
}
"""Case -> the plugin, and what must be said of it."""


def kind_of(plugin: type) -> str:
    return next(kind for kind in KINDS if plugin.__name__.lower().startswith(kind))


def plugins_with(*classes: type) -> Plugins:
    """What is installed, and these, under their class's names."""
    mine = [EntryPoint(c.__name__, f"{c.__module__}:{c.__name__}", KINDS[kind_of(c)][0]) for c in classes]
    return Plugins([*mine, *(point for group, _ in KINDS.values() for point in entry_points(group=group))])
