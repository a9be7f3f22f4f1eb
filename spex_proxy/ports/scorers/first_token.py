"""Scorer `first_token`: any vLLM, one token of the answer, over `/v1/completions` with `logprob_token_ids`.

For choices, labels and names of tools, where the first token tells the answer. Unlike `completions` it reads the prefix
cache, and the server computes and sends one row a mask.
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
from spex_proxy.ports.scorers.singly import singly
from spex_proxy.wire.first_token import first_token_body, read_first_token

BATCH = 32
"""What is committed together."""
IN_FLIGHT = 8
"""Requests that are open at once, one a probe: of several prompts in one, vLLM tells the cached tokens of one only."""


class FirstTokenScorer:
    """One explanation's scorer: its own cache salt, so that nothing is shared with production."""

    batch_size = BATCH
    manner: Manner = "beside"
    reads = 1

    def __init__(self, server: ModelServer, info: ModelInfo, priority: int) -> None:
        self.facts = ScorerFacts("first_token", info.model, info.server)
        self.max_tokens = info.max_model_len
        self._server = server
        self._priority = priority
        self._salt = f"spex-{secrets.token_hex(16)}"

    async def score(self, probes: Sequence[Probe], headers: Mapping[str, str], into: Scored | None = None) -> Scored:
        """Raises ValueError for an answer of more than one token."""
        if len(probes) > self.batch_size or any(len(probe.output_ids) != 1 for probe in probes):
            raise ValueError(f"at most {self.batch_size} probes in one batch, each with an answer of one token")
        scored = Scored.of(probes) if into is None else into
        started = time.perf_counter()

        async def ask(number: int) -> None:
            body = first_token_body(self.facts.model, [probes[number]], self._priority, self._salt)
            reply = await self._server.completions(body, headers)
            (reading,), usage = read_first_token(reply, [probes[number]])
            scored.tell(number, reading, usage.prompt_tokens, usage.cached_tokens)

        try:
            await singly(range(len(probes)), scored.at_once(IN_FLIGHT), scored, ask)
        finally:
            scored.seconds += time.perf_counter() - started
        return scored
