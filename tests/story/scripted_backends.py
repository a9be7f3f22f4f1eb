"""The scripted model behind the other scoring routes, with a prefix cache that swallows rows as vLLM's does.

The plugin's route is answered by the plugin's own code; only the engine under it is scripted.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import numpy as np

from spex_proxy_vllm import PROTOCOL
from spex_proxy_vllm.asked import Asked, read
from spex_proxy_vllm.presence import Presence
from spex_proxy_vllm.scoring import Answer, Failed, lines
from tests.story.scripted_model import ScriptedModel
from tests.story.upstream import HANG, RESET, Seen, Step, answer

BLOCK = 4
"""Tokens; only whole blocks are cached."""


class BackedModel(ScriptedModel):
    """Serves the routes of `backends`, and of course the stock one."""

    def __init__(self, *arguments: Any, backends: Sequence[str] = (), **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.backends = set(backends)
        self.cuts_after: int | None = None
        """The plugin's next answer breaks off after so many lines."""
        self.hangs_after: int | None = None
        """The plugin's next answer stops after so many lines, and nothing more comes."""
        self.busy_masks: set[int] = set()
        """Numbers in the plugin's next request for which the engine has no room."""
        self.yields = False
        """The plugin makes room for production by itself."""
        self.interrupted_masks: set[int] = set()
        """Numbers of the plugin's questions to the engine in the middle of which production comes to it."""
        self.never = False
        """No row of the answer is ever computed."""
        self.prompt_tokens = self.cached_tokens = 0
        self._cache: dict[str, list[tuple[int, ...]]] = {}
        self._routes["/v1/spex/load"] = lambda _: (
            (200, {"plugin": "0", "protocol": PROTOCOL, "yields": self.yields})
            if "engine" in self.backends
            else (404, {"error": "Not Found"})
        )

    async def _respond(self, seen: Seen) -> Sequence[Step]:
        path = seen.target.decode()
        if path == "/v1/spex/score" and "engine" in self.backends:
            return await self._score_in_engine(seen.body)
        if path == "/inference/v1/generate":
            return self._generate(json.loads(seen.body))
        return await super()._respond(seen)

    def one(self, ids: Sequence[int], k: int, salt: str, *, whole: bool) -> tuple[list[float] | None, int]:
        """Rows of the last `k` ids and how many tokens were cached; rows that the cache covers are not there."""
        before = self._cache.setdefault(salt, [])
        longest = max((_shared(ids, other) for other in before), default=0)
        cached = 0 if whole else min(longest, len(ids) - 1) // BLOCK * BLOCK
        before.append(tuple(ids))
        self.prompt_tokens += len(ids)
        self.cached_tokens += cached
        rows = self.logprobs(ids)
        return (None if self.never or cached > len(ids) - k - 1 else rows), cached

    async def _score_in_engine(self, body: bytes) -> Sequence[Step]:
        asked, model, prompts, production = read(body), self, iter(range(1 << 20)), Presence()
        busy, self.busy_masks = self.busy_masks, set()
        interrupted, self.interrupted_masks = self.interrupted_masks, set()

        class Engine:
            async def ask(self, prompt: list[int], asked: Asked, *, whole: bool) -> Answer:
                number = next(prompts)
                if number in interrupted:
                    model.prompt_tokens += len(prompt) + len(asked.output_ids)  # read, and told to nobody
                    production.came()
                    asyncio.get_running_loop().call_later(0.02, production.went)
                    await asyncio.Event().wait()
                if number in busy:
                    raise Failed("the queue is full", again=True)
                ids = [*prompt, *asked.output_ids]
                rows, cached = model.one(ids, len(asked.output_ids), asked.cache_salt, whole=whole)
                return Answer(None if rows is None else np.asarray(rows, dtype=np.float32), len(ids), cached)

        told = [line async for line in lines(asked, Engine(), production)]
        whole = answer(b"".join(told))
        cut, self.cuts_after = self.cuts_after, None
        hang, self.hangs_after = self.hangs_after, None
        for lines_left, end in ((cut, RESET), (hang, HANG)):
            if lines_left is not None:
                return [whole[: len(whole) - sum(map(len, told[lines_left:]))], end]
        return [whole]

    def _generate(self, body: dict[str, Any]) -> Sequence[Step]:
        if "generate" not in self.backends:
            return [answer(b'{"error": {"message": "scale-out is off"}}', status="403 Forbidden")]
        sampling = body["sampling_params"]
        wanted = sampling["prompt_logprob_token_ids"]
        ids = body["token_ids"]
        assert len(wanted) == len(ids) - 1 - sampling["prompt_logprob_start"]
        if ids == [0, 1]:  # the question whether this route is there
            rows, cached = [-1.0], 0
        else:
            found, cached = self.one(ids, len(wanted), body["cache_salt"], whole=sampling["skip_reading_prefix_cache"])
            rows = found
        packed = None
        if rows is not None:
            file = io.BytesIO()
            np.save(file, np.asarray(rows, dtype=np.float32)[:, None])
            packed = base64.b64encode(file.getvalue()).decode()
        usage = {"prompt_tokens": len(ids), "prompt_tokens_details": {"cached_tokens": cached}}
        return [answer(json.dumps({"usage": usage, "choices": [], "prompt_token_id_logprobs": packed}).encode())]


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
