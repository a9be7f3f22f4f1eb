"""Which scorer a server can serve, the cheapest for it first."""

from __future__ import annotations

from dataclasses import dataclass

from spex_proxy.facts.errors import BadReply, UpstreamBusy, UpstreamError
from spex_proxy.facts.evidence import Probe
from spex_proxy.ports.model_server import ModelInfo, ModelServer
from spex_proxy.ports.scorers import Scorer
from spex_proxy.ports.scorers.completions import CompletionsScorer
from spex_proxy.ports.scorers.engine import EngineScorer
from spex_proxy.ports.scorers.generate import GenerateScorer
from spex_proxy.wire.engine import PROTOCOL, Layout
from spex_proxy.wire.generate import generate_body

AUTO = "auto"
NAMES = ("engine", "generate", "completions")
"""In the order in which they are tried."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A scorer, and why this one."""

    name: str
    why: str


class Scorers:
    """Makes explanations' scorers for one server, which may be restarted with other flags at any time."""

    def __init__(self, server: ModelServer, wanted: str, priority: int) -> None:
        """`wanted`: one of NAMES, or AUTO."""
        if wanted not in (AUTO, *NAMES):
            raise ValueError(f"scorer {wanted!r} is unknown; there are {', '.join((AUTO, *NAMES))}")
        self._server = server
        self._wanted = wanted
        self._priority = priority
        self._no_rows: dict[ModelInfo, str] = {}
        """Why not `generate`. Asked once: it is the only question that the model computes anything for."""

    async def choice(self, info: ModelInfo) -> Choice:
        """Raises UpstreamBusy if the server can't be asked now."""
        if self._wanted != AUTO:
            return Choice(self._wanted, "set by SPEX_SCORER")
        no_plugin = await self._lacks_plugin()
        if not no_plugin:
            return Choice("engine", "the plugin spex-proxy-vllm is loaded")
        if info not in self._no_rows:
            self._no_rows[info] = await self._lacks_rows(info)
        no_rows = self._no_rows[info]
        if not no_rows:
            return Choice("generate", f"no engine: {no_plugin}; /inference/v1/generate scores chosen tokens")
        return Choice("completions", f"no engine: {no_plugin}; no generate: {no_rows}")

    async def make(self, info: ModelInfo, layout: Layout) -> Scorer:
        """A new one, with a cache salt of its own."""
        name = (await self.choice(info)).name
        if name == "engine":
            return EngineScorer(self._server, info, self._priority, layout)
        if name == "generate":
            return GenerateScorer(self._server, info, self._priority)
        return CompletionsScorer(self._server, info, self._priority)

    async def make_loose(self, info: ModelInfo) -> Scorer:
        """One for probes that are not masked forms of one prompt. Ours inside the engine takes only such."""
        name = (await self.choice(info)).name
        if name == "generate":
            return GenerateScorer(self._server, info, self._priority)
        return CompletionsScorer(self._server, info, self._priority)

    async def _lacks_plugin(self) -> str:
        try:
            about = await self._server.plugin()
        except UpstreamBusy:
            raise  # no answer to the question
        except (UpstreamError, BadReply) as error:
            return str(error)
        if about is None:
            return "the plugin spex-proxy-vllm is not loaded"
        if about.get("protocol") != PROTOCOL:
            return f"the plugin speaks protocol {about.get('protocol')}, this is {PROTOCOL}"
        return ""

    async def _lacks_rows(self, info: ModelInfo) -> str:
        """A question of two tokens. The ids 0 and 1 are in every vocabulary."""
        body = generate_body(info.model, Probe((0,), (1,), ""), self._priority, "spex-choose", whole=True)
        return await self._server.refusal(body) or ""
