"""Masks in, lines of JSON out: at most so many in flight, each line as soon as its mask is answered.

    {"mask": 3, "value": -1.25, "logprobs": "AAAgvw...", "prompt_tokens": 321, "cached_tokens": 288}
    {"mask": 4, "error": "...", "again": false, "prompt_tokens": 640, "cached_tokens": 0}
    {"done": 5}

`logprobs` is the base64 of k little-endian float32, nats, in the order of the answer's ids; `value` their sum.
Tokens count every attempt. Without the last line the answer was cut.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spex_proxy_vllm.asked import Asked, repeats

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


async def lines(asked: Asked, engine: Engine) -> AsyncIterator[bytes]:
    """One line for each mask, then the last. Closing it early aborts what is in flight."""
    again = repeats([row.tobytes() for row in asked.masks])

    async def one(number: int) -> dict[str, Any]:
        return await score(number, asked, engine, whole=again[number])

    answered = 0
    stream = in_flight(one, len(asked), asked.in_flight, first_alone=asked.warm)
    try:
        async for line in stream:
            answered += 1
            yield json.dumps(line).encode() + b"\n"
    finally:
        await stream.aclose()
    yield json.dumps({"done": answered}).encode() + b"\n"


async def in_flight(
    one: Callable[[int], Awaitable[dict[str, Any]]], count: int, most: int, *, first_alone: bool
) -> Any:
    """Results of one(0), one(1), ... as they come; at most `most` run at once, started in order."""
    running: set[asyncio.Task[dict[str, Any]]] = set()
    started, answered = 0, 0
    try:
        while started < count or running:
            room = 1 if first_alone and not answered else most
            while started < count and len(running) < room:
                running.add(asyncio.ensure_future(one(started)))
                started += 1
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            answered += len(done)
            for task in done:
                yield task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


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
