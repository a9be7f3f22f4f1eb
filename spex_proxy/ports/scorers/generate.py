"""Scorer `generate`: a stock vLLM with the V2 model runner and --enable-scale-out, over `/inference/v1/generate`.

One request a probe, a few at once, each cancellable on its own. Not yet run on a GPU, which the V2 runner needs.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence

from spex_proxy.facts.errors import BadReply
from spex_proxy.facts.evidence import Probe, Reading
from spex_proxy.facts.game import Scorer as ScorerFacts
from spex_proxy.ports.gate.rules import Manner
from spex_proxy.ports.model_server import ModelInfo, ModelServer
from spex_proxy.ports.scorers import Scored
from spex_proxy.ports.scorers.singly import singly
from spex_proxy.wire.generate import FIELD, generate_body, read_generate
from spex_proxy.wire.scoring import Usage

BATCH = 32
"""What is committed together."""
IN_FLIGHT = 8
"""Requests that are open at once."""


class GenerateScorer:
    """One explanation's scorer: its own cache salt, so that nothing is shared with production."""

    batch_size = BATCH
    manner: Manner = "beside"
    reads = 2
    """Once more without the prefix cache, where it reached into the answer."""

    def __init__(self, server: ModelServer, info: ModelInfo, priority: int) -> None:
        self.facts = ScorerFacts("generate", info.model, info.server)
        self.max_tokens = None if info.max_model_len is None else info.max_model_len - 1
        self._server = server
        self._priority = priority
        self._salt = f"spex-{secrets.token_hex(16)}"
        self._is_warm = False

    async def score(self, probes: Sequence[Probe], headers: Mapping[str, str], into: Scored | None = None) -> Scored:
        if len(probes) > self.batch_size:
            raise ValueError(f"{len(probes)} probes in one batch; at most {self.batch_size}")
        scored = Scored.of(probes) if into is None else into
        started = time.perf_counter()

        async def ask(number: int) -> None:
            reading, usage = await self._one(probes[number], headers)
            scored.tell(number, reading, usage.prompt_tokens, usage.cached_tokens)

        try:
            left = list(range(len(probes)))
            if not self._is_warm:  # the first alone: the others find its prefix cached
                await ask(left.pop(0))
                self._is_warm = True
            await singly(left, scored.at_once(IN_FLIGHT), scored, ask)
        finally:
            scored.seconds += time.perf_counter() - started
        return scored

    async def _one(self, probe: Probe, headers: Mapping[str, str]) -> tuple[Reading, Usage]:
        """Null means that the cache reached into the answer: the same once more without it."""
        prompt_tokens = cached_tokens = 0
        for whole in (False, True):
            body = generate_body(self.facts.model, probe, self._priority, self._salt, whole=whole)
            reading, usage = read_generate(await self._server.generate(body, headers), len(probe.output_ids))
            prompt_tokens += usage.prompt_tokens
            cached_tokens += usage.cached_tokens
            if reading is not None:
                return reading, Usage(prompt_tokens, cached_tokens)
        raise BadReply(f"/inference/v1/generate answered null in {FIELD}, even without its prefix cache")
