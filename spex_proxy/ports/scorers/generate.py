"""Scorer `generate`: a stock vLLM with the V2 model runner and --enable-scale-out, over `/inference/v1/generate`.

One request a probe, a few at once, each cancellable on its own. Not yet run on a GPU, which the V2 runner needs.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence

from spex_proxy.facts.errors import BadReply, UpstreamBusy
from spex_proxy.facts.evidence import Probe, Reading
from spex_proxy.facts.game import Scorer as ScorerFacts
from spex_proxy.ports.gate.rules import Manner
from spex_proxy.ports.model_server import ModelInfo, ModelServer
from spex_proxy.ports.scorers import Scored
from spex_proxy.wire.generate import FIELD, generate_body, read_generate
from spex_proxy.wire.scoring import Usage

BATCH = 32
"""What is committed together."""
IN_FLIGHT = 8
"""Requests that are open at once."""

_Answer = tuple[Reading | None, Usage]


class GenerateScorer:
    """One explanation's scorer: its own cache salt, so that nothing is shared with production."""

    batch_size = BATCH
    manner: Manner = "beside"

    def __init__(self, server: ModelServer, info: ModelInfo, priority: int) -> None:
        self.facts = ScorerFacts("generate", info.model, info.server)
        self.max_tokens = None if info.max_model_len is None else info.max_model_len - 1
        self._server = server
        self._priority = priority
        self._salt = f"spex-{secrets.token_hex(16)}"
        self._is_warm = False

    async def score(self, probes: Sequence[Probe], headers: Mapping[str, str]) -> Scored:
        if len(probes) > self.batch_size:
            raise ValueError(f"{len(probes)} probes in one batch; at most {self.batch_size}")
        started = time.perf_counter()
        answers: list[_Answer | BaseException] = []
        if not self._is_warm:  # the first alone: the others find its prefix cached
            answers.append(await self._one(probes[0], headers))
            self._is_warm = True
        room = asyncio.Semaphore(IN_FLIGHT)

        async def in_turn(probe: Probe) -> _Answer:
            async with room:
                return await self._one(probe, headers)

        asked = [in_turn(probe) for probe in probes[len(answers) :]]
        answers += await asyncio.gather(*asked, return_exceptions=True)
        got = [answer for answer in answers if not isinstance(answer, BaseException)]
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        for failure in failures:
            if not got or not isinstance(failure, UpstreamBusy):
                raise failure
        return Scored(
            tuple(None if isinstance(answer, BaseException) else answer[0] for answer in answers),
            sum(usage.prompt_tokens for _, usage in got),
            sum(usage.cached_tokens for _, usage in got),
            time.perf_counter() - started,
        )

    async def _one(self, probe: Probe, headers: Mapping[str, str]) -> _Answer:
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
