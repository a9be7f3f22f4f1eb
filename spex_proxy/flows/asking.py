"""The model server for games that are played by asking it: a plugin's thread asks, the flow's loop does the asking."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from spex_proxy.facts.errors import CannotExplain, UpstreamBusy
from spex_proxy.facts.evidence import Probe
from spex_proxy.flows.admission import admitted, most_of
from spex_proxy.flows.batch import Asking, count
from spex_proxy.flows.table import Caller, Parts
from spex_proxy.plug.kinds import Scores
from spex_proxy.ports.gate.gate import Kept
from spex_proxy.ports.model_server import ModelServer
from spex_proxy.wire.tokens import read_ids, read_rendered_ids

Result = TypeVar("Result")

PATIENCE_S = 600.0
"""How long production may keep us out, without one answer, before the job is given back."""


async def open_ask(config: Mapping[str, Any], parts: Parts, *, project: str, key: str) -> ServerAsk:
    """An `Ask` of the model that the configuration names; without a name, of the first that is served.
    Raises as the server does."""
    server = await parts.servers.choose(key)
    named = config.get("model")
    if named is not None and not isinstance(named, str):
        raise CannotExplain("`model` must be the name of a served model")
    info = await server.info(named or await server.first_model())
    scorer = await parts.scorers(server).make_loose(info)
    return ServerAsk(asyncio.get_running_loop(), server, Caller(scorer, project, server.base_url), parts)


class ServerAsk:
    """plug.kinds.Ask. Its methods are called from a thread that is not the loop's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, server: ModelServer, caller: Caller, parts: Parts) -> None:
        self.model = caller.scorer.facts.model
        self._loop, self._server, self._caller, self._parts = loop, server, caller, parts
        self._scorer = caller.scorer

    def tokens(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        return self._wait(self._tokens([dict(message) for message in messages]))

    def text_tokens(self, text: str) -> tuple[int, ...]:
        body = {"model": self.model, "prompt": text, "add_special_tokens": False}
        return read_ids(self._wait(self._server.tokenize(body)))

    def score(self, questions: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Scores:
        probes = [Probe(tuple(prompt), tuple(answer), "") for prompt, answer in questions]
        self._check(probes)
        return self._wait(self._score(probes))

    def _wait(self, question: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(question, self._loop).result()

    async def _tokens(self, messages: list[dict[str, str]]) -> tuple[int, ...]:
        rendered = await self._server.render("chat", {"model": self.model, "messages": messages})
        if rendered is not None:
            return read_rendered_ids(rendered)
        return read_ids(await self._server.tokenize({"model": self.model, "messages": messages}))

    def _check(self, probes: Sequence[Probe]) -> None:
        most = self._scorer.max_tokens
        longest = _longest(probes)
        if most is not None and longest > most:
            raise CannotExplain(f"a prompt with its answer has {longest} tokens, the server takes {most} to score them")
        if not all(probe.prompt_ids and probe.output_ids for probe in probes):
            raise CannotExplain("a question without a prompt or without an answer can't be scored")

    async def _score(self, probes: Sequence[Probe]) -> Scores:
        """Batch by batch; what the server left out is asked again. Raises UpstreamBusy when it does not get on."""
        found: list[NDArray[np.float32] | None] = [None] * len(probes)
        prompt_tokens = cached_tokens = 0
        now = asyncio.get_running_loop().time
        got_on_at = now()
        while missing := [number for number, row in enumerate(found) if row is None]:
            missing = missing[: most_of(self._caller, _longest(probes), self._parts)]
            question = Asking(self._scorer, [probes[number] for number in missing], {})
            scored = question.scored
            try:
                kept = await admitted(self._caller, question.probes, self._parts, question.ask, scored.answered)
            finally:
                count(self._parts.counters, question.ended())
            prompt_tokens += scored.prompt_tokens
            cached_tokens += scored.cached_tokens
            for number, reading in zip(missing, scored.readings, strict=True):
                found[number] = None if reading is None else reading.logprobs
            if scored.answered():
                got_on_at = now()
            elif isinstance(kept, Kept) and now() - got_on_at > PATIENCE_S:
                raise UpstreamBusy(f"kept out for {PATIENCE_S:.0f} s: {kept.why}")
        return Scores(tuple(row for row in found if row is not None), prompt_tokens, cached_tokens)


def _longest(probes: Sequence[Probe]) -> int:
    """Tokens of a prompt with its answer; 0 of none."""
    return max((len(probe.prompt_ids) + len(probe.output_ids) for probe in probes), default=0)
