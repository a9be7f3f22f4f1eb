"""Masks in, lines of JSON out: at most so many in flight, each line as soon as its mask is answered.

    {"mask": 3, "value": -1.25, "logprobs": "AAAgvw...", "prompt_tokens": 321, "cached_tokens": 288}
    {"mask": 4, "error": "...", "again": false, "prompt_tokens": 640, "cached_tokens": 0}
    {"mask": 2, "interrupted": true}
    {"done": 5}

`logprobs` is the base64 of k little-endian float32, nats, in the order of the answer's ids; `value` their sum.
Tokens count every attempt that the engine answered. An interrupted mask made room for production and is asked again:
it has another line later. Without the last line the answer was cut.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spex_proxy_vllm.asked import Asked, repeats
from spex_proxy_vllm.presence import Presence

ROUNDING = 1e-3
"""Log-probabilities may exceed 0 by as much, by the server's own rounding."""


class Failed(Exception):
    """The engine could not answer one mask."""

    def __init__(self, why: str, *, again: bool) -> None:
        super().__init__(why)
        self.again = again
        """Whether asking again later may help."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What the engine gave for one prompt."""

    logprobs: NDArray[np.float32] | None
    """Shape (k,); None where some row was not computed, because the prefix cache reached into the answer."""
    prompt_tokens: int
    cached_tokens: int


class Engine(Protocol):
    """The one thing that this needs of vLLM."""

    async def ask(self, prompt: list[int], asked: Asked, *, whole: bool) -> Answer:
        """Score `asked.output_ids` after `prompt`; `whole`: without reading the prefix cache. Raises Failed."""
        ...


async def lines(asked: Asked, engine: Engine, production: Presence) -> AsyncIterator[bytes]:
    """One line for each mask, and one each time that a mask is ended for production's sake; then the last. Closing it
    early aborts what is in flight."""
    again = repeats([row.tobytes() for row in asked.masks])

    async def one(number: int) -> dict[str, Any]:
        return await score(number, asked, engine, whole=again[number])

    flight = Flight(one, len(asked), asked.in_flight, production if asked.yields else Presence())
    answered = 0
    try:
        async with aclosing(flight.results(first_alone=asked.warm)) as results:
            async for line in results:
                answered += "interrupted" not in line
                yield json.dumps(line).encode() + b"\n"
    finally:
        await flight.end()
    yield json.dumps({"done": answered}).encode() + b"\n"


class Flight:
    """one(0) to one(count - 1), at most `most` of them at once, started in order while production is away."""

    def __init__(
        self, one: Callable[[int], Awaitable[dict[str, Any]]], count: int, most: int, production: Presence
    ) -> None:
        self._one, self._most, self._production = one, most, production
        self._waiting = deque(range(count))
        self._running: dict[asyncio.Future[dict[str, Any]], int] = {}

    async def results(self, *, first_alone: bool) -> AsyncGenerator[dict[str, Any], None]:
        """As they come; {"mask": number, "interrupted": true} of one that made room and will be asked again."""
        room = 1 if first_alone else self._most
        while self._waiting or self._running:
            if self._production.is_here:
                room = self._most = 1  # from here on each request finds a step with one mask in it, at most
                for number in await self.end():
                    self._production.lost()
                    yield {"mask": number, "interrupted": True}
            else:
                pause = self._production.wait_s()
                while self._waiting and len(self._running) < room and not pause:
                    number = self._waiting.popleft()
                    self._running[asyncio.ensure_future(self._timed(number))] = number
                await self._change(pause or None)
            for task in [task for task in self._running if task.done()]:
                room = self._most
                del self._running[task]
                yield task.result()
            if self._production.is_here and self._waiting and not self._running:
                await self._production.gone()

    async def _timed(self, number: int) -> dict[str, Any]:
        begun, is_alone = time.monotonic(), self._most == 1
        line = await self._one(number)
        if is_alone:  # of those that share their steps nothing follows for one
            self._production.took(time.monotonic() - begun)
        return line

    async def _change(self, longest_s: float | None) -> None:
        """Until one has ended, or production is here, or so long."""
        came = asyncio.ensure_future(self._production.here())
        changes: set[asyncio.Future[Any]] = {came, *self._running}
        try:
            await asyncio.wait(changes, timeout=longest_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            came.cancel()

    async def end(self) -> list[int]:
        """Abort what runs: it waits again, first of all. Those that had just ended stay, to be told."""
        ended = {task: number for task, number in self._running.items() if not task.done()}
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)
        numbers = sorted(number for task, number in ended.items() if task.cancelled())
        for number in reversed(numbers):
            self._waiting.appendleft(number)
        self._running = {task: number for task, number in self._running.items() if not task.cancelled()}
        return numbers


async def score(number: int, asked: Asked, engine: Engine, *, whole: bool) -> dict[str, Any]:
    """One mask's line. Rows that the prefix cache swallowed are asked once more without it."""
    prompt, asked = asked.prompt(number), asked.alone(number)
    prompt_tokens = cached_tokens = 0
    line: dict[str, Any] = {"mask": number}
    for without_cache in (True,) if whole else (False, True):
        try:
            answer = await engine.ask(prompt, asked, whole=without_cache)
        except Failed as error:
            line |= {"error": str(error), "again": error.again}
            break
        prompt_tokens += answer.prompt_tokens
        cached_tokens += answer.cached_tokens
        if answer.logprobs is not None and is_sound(answer.logprobs, len(asked.output_ids)):
            value = math.fsum(float(logprob) for logprob in answer.logprobs)
            packed = base64.b64encode(answer.logprobs.astype("<f4").tobytes()).decode("ascii")
            line |= {"value": value, "logprobs": packed}
            break
    else:
        line |= {"error": "the engine gave no log-probability for some token of the answer", "again": False}
    return line | {"prompt_tokens": prompt_tokens, "cached_tokens": cached_tokens}


def is_sound(logprobs: NDArray[np.float32], k: int) -> bool:
    """Whether these can be k log-probabilities at all: rows that were never written seldom are."""
    return logprobs.shape == (k,) and bool(np.isfinite(logprobs).all() and (logprobs <= ROUNDING).all())
