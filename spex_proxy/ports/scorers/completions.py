"""Scorer `completions`: any stock vLLM server, over `/v1/completions` with `prompt_logprobs`.

The server re-reads every masked prompt whole (asking for prompt log-probabilities
switches the prefix cache off for reading), and building the reply holds its event
loop for some 30-50 ms per 2,000 tokens: so batches are small, and one at a time.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence

from spex_proxy.facts.evidence import Probe
from spex_proxy.facts.game import Scorer as ScorerFacts
from spex_proxy.ports.gate.rules import Manner
from spex_proxy.ports.model_server import ModelInfo, ModelServer
from spex_proxy.ports.scorers import Scored
from spex_proxy.wire.scoring import completions_body, read_completions

BATCH = 8
"""Larger batches would stall production's streams: the server answers them in one piece."""


class CompletionsScorer:
    """One explanation's scorer: its own cache salt, so nothing is shared with production."""

    batch_size = BATCH
    manner: Manner = "alone"
    reads = 1

    def __init__(self, server: ModelServer, info: ModelInfo, priority: int) -> None:
        self.facts = ScorerFacts("completions", info.model, info.server)
        self.max_tokens = None if info.max_model_len is None else info.max_model_len - 1
        self._server = server
        self._priority = priority
        self._salt = f"spex-{secrets.token_hex(16)}"

    async def score(self, probes: Sequence[Probe], headers: Mapping[str, str], into: Scored | None = None) -> Scored:
        """The server answers the batch in one piece: all of it is there, or nothing."""
        if len(probes) > self.batch_size:
            raise ValueError(f"{len(probes)} probes in one batch; at most {self.batch_size}")
        scored = Scored.of(probes) if into is None else into
        body = completions_body(self.facts.model, probes, self._priority, self._salt)
        started = time.perf_counter()
        reply = await self._server.completions(body, headers)
        scored.tell_all(*read_completions(reply, probes))
        scored.seconds += time.perf_counter() - started
        return scored
