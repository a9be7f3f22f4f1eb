"""Which scorer a server can serve, the cheapest for it first."""

from __future__ import annotations

from dataclasses import dataclass

from spex_proxy.facts.errors import BadReply, CannotExplain, UpstreamBusy, UpstreamError
from spex_proxy.facts.evidence import Probe
from spex_proxy.ports.model_server import ModelInfo, ModelServer
from spex_proxy.ports.scorers import Scorer
from spex_proxy.ports.scorers.completions import CompletionsScorer
from spex_proxy.ports.scorers.engine import EngineScorer
from spex_proxy.ports.scorers.first_token import FirstTokenScorer
from spex_proxy.ports.scorers.generate import GenerateScorer
from spex_proxy.ports.scorers.regenerate import RegenerateScorer, Told
from spex_proxy.wire.engine import PROTOCOL, Layout
from spex_proxy.wire.generate import generate_body
from spex_proxy.wire.scoring import completions_body, read_completions

AUTO = "auto"
NAMES = ("engine", "generate", "completions", "first_token", "regenerate")
"""`auto` tries the first three in this order, and takes the last where none of them works."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A scorer, and why this one."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Plugin:
    """Ours in the server."""

    lacking: str
    """Why it can't be asked; empty if it can."""
    yields: bool = False
    """Whether it makes room for production by itself."""


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
        """Why not `generate`. Asked once, since the model computes something for it."""
        self._no_prompt_rows: dict[ModelInfo, str] = {}
        """Why not `completions`. Likewise."""

    async def choice(self, info: ModelInfo) -> Choice:
        """Raises UpstreamBusy if the server can't be asked now."""
        if self._wanted != AUTO:
            return Choice(self._wanted, "set by SPEX_SCORER")
        plugin = await self._plugin()
        if not plugin.lacking:
            room = ", and makes room for production inside the engine" if plugin.yields else ""
            return Choice("engine", f"the plugin spex-proxy-vllm is loaded{room}")
        if info not in self._no_rows:
            self._no_rows[info] = await self._lacks_rows(info)
        no_rows = self._no_rows[info]
        if not no_rows:
            return Choice("generate", f"no engine: {plugin.lacking}; /inference/v1/generate scores chosen tokens")
        why = f"no engine: {plugin.lacking}; no generate: {no_rows}"
        if info not in self._no_prompt_rows:
            self._no_prompt_rows[info] = await self._lacks_prompt_rows(info)
        if no_prompt_rows := self._no_prompt_rows[info]:
            return Choice("regenerate", f"nothing else works, and its values are cruder: {why}; {no_prompt_rows}")
        return Choice("completions", why)

    async def make(self, info: ModelInfo, layout: Layout, told: Told | None = None, name: str = "") -> Scorer:
        """A new one, with a cache salt of its own: `name`, or what `choice` says. `told` is for those that ask with
        text; without it they raise CannotExplain."""
        name = name or (await self.choice(info)).name
        if name == "engine":
            return EngineScorer(self._server, info, self._priority, layout, yields=(await self._plugin()).yields)
        if name == "generate":
            return GenerateScorer(self._server, info, self._priority)
        if name == "first_token":
            return FirstTokenScorer(self._server, info, self._priority)
        if name == "completions":
            return CompletionsScorer(self._server, info, self._priority)
        if told is None:
            raise CannotExplain("the scorer regenerate needs the request's text, and there is none here")
        return RegenerateScorer(self._server, info, self._priority, layout, told)

    async def make_loose(self, info: ModelInfo) -> Scorer:
        """One for probes that are not masked forms of one prompt. Ours inside the engine takes only such."""
        name = (await self.choice(info)).name
        if name == "generate":
            return GenerateScorer(self._server, info, self._priority)
        return CompletionsScorer(self._server, info, self._priority)

    async def _plugin(self) -> Plugin:
        try:
            about = await self._server.plugin()
        except UpstreamBusy:
            raise  # no answer to the question
        except (UpstreamError, BadReply) as error:
            return Plugin(str(error))
        if about is None:
            return Plugin("the plugin spex-proxy-vllm is not loaded")
        if about.get("protocol") != PROTOCOL:
            return Plugin(f"the plugin speaks protocol {about.get('protocol')}, this is {PROTOCOL}")
        return Plugin("", about.get("yields") is True)

    async def _lacks_rows(self, info: ModelInfo) -> str:
        """A question of two tokens. The ids 0 and 1 are in every vocabulary."""
        body = generate_body(info.model, Probe((0,), (1,), ""), self._priority, "spex-choose", whole=True)
        return await self._server.refusal(body) or ""

    async def _lacks_prompt_rows(self, info: ModelInfo) -> str:
        """vLLM has them; of others it is asked, with two tokens, and whether they tell ids at all."""
        if info.server.startswith("vllm"):
            return ""
        probes = [Probe((0,), (1,), "")]
        try:
            await self._server.tokenize({"model": info.model, "prompt": "a"})
            read_completions(
                await self._server.completions(completions_body(info.model, probes, self._priority, "spex-choose"), {}),
                probes,
            )
        except UpstreamBusy:
            raise
        except (UpstreamError, BadReply) as error:
            return f"no completions: {error}"
        return ""
