"""Scorer `engine`: our plugin inside vLLM (`plugins/vllm_engine`), one small request for a whole batch of masks.

The engine computes only what its prefix cache does not hold, and answers come as they are ready.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing

from spex_proxy.facts.errors import BadReply, UpstreamBusy
from spex_proxy.facts.evidence import Probe
from spex_proxy.facts.game import Scorer as ScorerFacts
from spex_proxy.ports.gate.rules import Manner
from spex_proxy.ports.model_server import ModelInfo, ModelServer
from spex_proxy.ports.scorers import Scored
from spex_proxy.wire.engine import Interrupted, Layout, read_line, score_body

BATCH = 32
"""What is committed together."""
IN_FLIGHT = 8
"""Masks that the engine holds at once: enough to fill its steps, few enough to be gone soon."""


class EngineScorer:
    """One explanation's scorer: its own cache salt, so that nothing is shared with production."""

    batch_size = BATCH
    reads = 2
    """Once more without the prefix cache, where it reached into the answer."""

    def __init__(self, server: ModelServer, info: ModelInfo, priority: int, layout: Layout, *, yields: bool) -> None:
        """`yields`: whether the server can make room for production by itself."""
        self.manner: Manner = "yields" if yields else "beside"
        self.facts = ScorerFacts("engine", info.model, info.server)
        self.max_tokens = None if info.max_model_len is None else info.max_model_len - 1
        self._server = server
        self._priority = priority
        self._layout = layout
        self._salt = f"spex-{secrets.token_hex(16)}"
        self._is_warm = False

    async def score(self, probes: Sequence[Probe], headers: Mapping[str, str], into: Scored | None = None) -> Scored:
        if len(probes) > self.batch_size:
            raise ValueError(f"{len(probes)} probes in one batch; at most {self.batch_size}")
        scored = Scored.of(probes) if into is None else into
        body = score_body(
            self.facts.model, self._layout, probes, priority=self._priority, cache_salt=self._salt,
            in_flight=scored.at_once(IN_FLIGHT), warm=not self._is_warm, yields=scored.yields,
        )  # fmt: skip
        started = time.perf_counter()
        trouble = ""
        try:
            async with aclosing(self._server.score(body, headers)) as lines:
                async for line in lines:
                    answer = read_line(line, len(probes), len(probes[0].output_ids))
                    if isinstance(answer, int):
                        break
                    if isinstance(answer, Interrupted):
                        scored.interrupted.append(answer.number)
                        continue
                    if answer.error and not answer.again:
                        raise BadReply(f"probe {answer.number}: {answer.error}")
                    usage = answer.usage
                    scored.tell(answer.number, answer.reading, usage.prompt_tokens, usage.cached_tokens)
                    self._is_warm |= answer.reading is not None
                    trouble = answer.error or trouble
                else:
                    trouble = "the answer was cut off"
        except UpstreamBusy as error:
            trouble = str(error)
        finally:
            scored.seconds += time.perf_counter() - started
        if not any(scored.readings):
            raise UpstreamBusy(trouble or "POST /v1/spex/score answered no mask")
        return scored
