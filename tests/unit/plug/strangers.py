"""Plugins as strangers write them: one good one, and each of the ways to get it wrong."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from spex_proxy.facts.errors import CannotExplain
from spex_proxy.facts.exchange import Exchange, TextRange


class Good:
    name = "good"

    def split(self, exchange: Exchange) -> Sequence[TextRange]:
        return [TextRange(0, 0, 1)]


class GoodValue:
    name = "mean"
    unit = "nats"

    def read(self, logprobs: Any, *, scale: float = 1.0) -> Any:
        return np.asarray(logprobs, dtype=np.float64).mean(axis=1) * scale


class OtherName(Good):
    name = "better"


class NoName:
    def split(self, exchange: Exchange) -> Sequence[TextRange]:
        return []


class NoMethod:
    name = "bad"


class MethodIsText:
    name = "bad"
    split = "a, b"


class TooFewArguments:
    name = "bad"

    def split(self) -> list[TextRange]:
        return []


class TooManyArguments:
    name = "bad"

    def split(self, exchange: Exchange, language: str) -> list[TextRange]:
        return []


class KeywordNeeded:
    name = "bad"

    def split(self, exchange: Exchange, *, language: str) -> list[TextRange]:
        return []


class Async:
    name = "bad"

    async def split(self, exchange: Exchange) -> list[TextRange]:
        return []


class NoUnit:
    name = "bad"

    def read(self, logprobs: Any) -> Any:
        return logprobs


class UnitIsNumber(NoUnit):
    unit = 3


class NeedsArguments(Good):
    def __init__(self, path: str) -> None:
        self.path = path


class FailsAtStart(Good):
    def __init__(self) -> None:
        raise OSError("no such dictionary: words.txt")


class FailsWhenLookedAt:
    @property
    def name(self) -> str:
        raise RuntimeError("not ready")


class Exits(Good):
    def __init__(self) -> None:
        sys.exit(3)


class FailsAtWork:
    name = "fails"

    def split(self, exchange: Exchange) -> list[TextRange]:
        return [TextRange(0, 0, 1 // len(exchange.output_text))]


class SaysNo:
    name = "no"

    def split(self, exchange: Exchange) -> list[TextRange]:
        raise CannotExplain("only chats in Latin script")


not_callable = 7
