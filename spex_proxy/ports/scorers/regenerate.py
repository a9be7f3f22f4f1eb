"""Scorer `regenerate`: any server that the `openai` client can talk to, whether or not it tells log-probabilities.

The client's own request is sent again at temperature 0 without the masked segments' text, and what comes is compared
with the original answer, token by token (wire.wording.came_again). So a value counts the tokens that came again: it is
no log-probability, moves in whole words, and costs the answer's tokens each time.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spex_proxy.facts.errors import BadReply, CannotExplain
from spex_proxy.facts.evidence import Probe, Reading
from spex_proxy.facts.exchange import Exchange, ExchangeKind, Segmentation, TextRange, TokenizedExchange
from spex_proxy.facts.game import Scorer as ScorerFacts
from spex_proxy.facts.retest import spoken
from spex_proxy.ports.gate.rules import Manner
from spex_proxy.ports.model_server import ModelInfo, ModelServer
from spex_proxy.ports.scorers import Scored
from spex_proxy.ports.scorers.singly import singly
from spex_proxy.ports.speaking import speak
from spex_proxy.wire.chat import read_plain
from spex_proxy.wire.engine import Layout, kept
from spex_proxy.wire.removal import repeatable
from spex_proxy.wire.wording import came_again

BATCH = 8
IN_FLIGHT = 2
"""Each is a whole answer, and as long as one."""
MORE_THAN_IT_WAS = 2
"""A new answer may have so many times the original's tokens, and some: more of it tells nothing."""
_LIMITS: Mapping[ExchangeKind, tuple[str, ...]] = {
    "chat": ("max_completion_tokens", "max_tokens"),
    "completion": ("max_tokens",),
    "response": ("max_output_tokens",),
    "message": ("max_tokens",),
}
_OURS = ("priority", "cache_salt")
"""Fields that only vLLM knows: others refuse requests that have them."""


@dataclass(frozen=True, slots=True)
class Told:
    """What this scorer needs beside token ids: the request, and what of it is whose."""

    exchange: Exchange
    tokens: TokenizedExchange
    players: Segmentation
    start: int = 0
    """The first scored token of the answer; those before it stand at the end of each probe's prompt."""


class RegenerateScorer:
    """One explanation's scorer. Takes text out: of other maskers it knows nothing."""

    batch_size = BATCH
    manner: Manner = "alone"
    reads = 1
    max_tokens: int | None = None

    def __init__(self, server: ModelServer, info: ModelInfo, priority: int, layout: Layout, told: Told) -> None:
        self.facts = ScorerFacts("regenerate", info.model, info.server)
        self._server, self._priority = server, priority
        self._is_vllm = info.server.startswith("vllm")
        self._layout = layout
        self._told = told
        self._salt = f"spex-{secrets.token_hex(16)}"

    async def score(self, probes: Sequence[Probe], headers: Mapping[str, str], into: Scored | None = None) -> Scored:
        if len(probes) > self.batch_size:
            raise ValueError(f"{len(probes)} probes in one batch; at most {self.batch_size}")
        scored = Scored.of(probes) if into is None else into
        started = time.perf_counter()

        async def ask(number: int) -> None:
            reading, prompt_tokens = await self._one(probes[number], headers)
            scored.tell(number, reading, prompt_tokens, 0)

        try:
            await singly(range(len(probes)), scored.at_once(IN_FLIGHT), scored, ask)
        finally:
            scored.seconds += time.perf_counter() - started
        return scored

    async def _one(self, probe: Probe, headers: Mapping[str, str]) -> tuple[Reading, int]:
        told = self._told
        kind = told.exchange.kind
        said = await speak(self._server, kind, self.body(probe), self._priority, headers)
        answer = read_plain(kind, said)
        if not answer.choices:
            raise BadReply("the server answered without a choice")
        offsets = told.tokens.output_offsets[: told.start + len(probe.output_ids)]
        again = came_again(told.tokens.output_text, offsets, spoken(answer.choices[0]).text)
        return Reading(again[told.start :]), answer.prompt_tokens or 0

    def body(self, probe: Probe) -> dict[str, Any]:
        """The request without the text of what the probe's prompt lacks. Raises CannotExplain."""
        told = self._told
        ids = probe.prompt_ids[: len(probe.prompt_ids) - told.start]
        mask = kept(self._layout, ids)
        if mask is None or len(mask) != len(told.players):
            raise CannotExplain("the scorer regenerate takes segments out; this masker does something else with them")
        gone = [segment for segment, is_kept in zip(told.players.segments, mask, strict=True) if not is_kept]
        ranges = [TextRange(segment.message, segment.char_start, segment.char_end) for segment in gone]
        body = repeatable(told.exchange, ranges, self._priority, self._salt)
        if not self._is_vllm:
            for name in _OURS:
                body.pop(name, None)
        most = MORE_THAN_IT_WAS * (told.exchange.output_tokens or len(told.tokens.output_ids)) + 16
        limits = _LIMITS[told.exchange.kind]
        name = next((name for name in limits if name in body), limits[-1])
        body[name] = min(body[name], most) if isinstance(body.get(name), int) else most
        return body
