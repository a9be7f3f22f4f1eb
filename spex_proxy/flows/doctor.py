"""`doctor`: is everything there that production and explanations need, and if not, what to do.

Facts are collected here, through ports and the store; what they mean is decided in `diagnose_server`
and `diagnose_house`, which do no I/O. Nothing is changed anywhere, and the model is asked for one
batch of three tokens at our low priority. Whether the relay is transparent and quick on this server is
not a matter of single questions: `flows.self_test` asks more of them, when told to.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from sqlalchemy import Engine
from sqlalchemy.engine import make_url

from spex_proxy.facts.errors import BadReply, CannotExplain, PluginError, SpexError, UpstreamBusy
from spex_proxy.facts.evidence import Probe
from spex_proxy.facts.exchange import Exchange, RawExchange, RequestHead, Segmentation, Skipped
from spex_proxy.facts.finding import Finding
from spex_proxy.flows import diagnose_house as house
from spex_proxy.flows import diagnose_server as server_side
from spex_proxy.flows.diagnose_server import Outcome, unknown
from spex_proxy.flows.tokenize import tokenize
from spex_proxy.plug.kinds import KINDS
from spex_proxy.plug.load import Plugins
from spex_proxy.ports.look import Answer, Looker
from spex_proxy.ports.model_server import ModelServer
from spex_proxy.ports.scorers import Scored
from spex_proxy.ports.scorers.choose import Choice, Scorers
from spex_proxy.ports.scorers.regenerate import Told
from spex_proxy.store import condition
from spex_proxy.store.connect import RevisionState, StoreError, address_of, open_store, revision_state
from spex_proxy.wire.about import ModelCard
from spex_proxy.wire.chat import parse
from spex_proxy.wire.engine import Layout
from spex_proxy.wire.wording import in_words

TEXT = "Grüße aus 東京 🙂"
"""More than one byte a character, more than one character a token: where tokenizers go wrong."""
PROBE_TOKENS = 3
ANSWER_S = 60.0
"""How long one of our questions may take: they wait behind production."""
PROTOBUF = "application/x-protobuf"


@dataclass(frozen=True, slots=True)
class Setup:
    """What the operator has set, as far as it can be wrong."""

    upstream: str = field(repr=False)
    """Base URL of the model server; of the first one, if there are replicas."""
    api_key: str | None = field(repr=False)
    model: str | None
    """The one to try; None takes the first that the server lists."""
    scheduling_policy: str
    priority: int
    relay_url: str
    second_url: str
    """Of the second port."""
    store: str = field(repr=False)
    chosen: Mapping[str, str]
    """Plugins that new explanations use, by kind."""
    otlp_endpoint: str | None = field(repr=False)
    version: str
    replicas: Sequence[str] = field(default=(), repr=False)
    """Base URLs of the others."""
    scorer: str = "auto"
    """How explanations are to ask."""

    def secrets(self) -> tuple[str, ...]:
        """What no report may show, wherever a message picked it up."""
        urls = (make_url(url) for url in (self.upstream, self.otlp_endpoint) if url and "@" in url)
        return tuple(str(secret) for secret in (self.api_key, *(url.password for url in urls)) if secret)


@dataclass(frozen=True, slots=True)
class Doctor:
    """What facts are collected with."""

    setup: Setup
    server: ModelServer
    looker: Looker
    plugins: Plugins

    async def examine(self) -> AsyncIterator[Finding]:
        """Findings, one by one, as they become known."""
        async for finding in self._everything():
            found = finding.found
            for secret in self.setup.secrets():
                found = found.replace(secret, "***")
            yield replace(finding, found=" ".join(found.split()))

    async def _everything(self) -> AsyncIterator[Finding]:
        version = await self.looker.get(self.setup.upstream, "/version")
        yield server_side.upstream(self.setup.upstream, version)
        for url in self.setup.replicas:
            other = await self.looker.get(url, "/version")
            listed = [
                await self.looker.get(one, "/v1/models", self.setup.api_key) for one in (self.setup.upstream, url)
            ]
            yield server_side.replica(url, version, other, *listed)
        async for finding in self._server(is_there=isinstance(version, Answer)):
            yield finding
        yield server_side.clock(version)
        relayed = await self.looker.get(self.setup.relay_url, "/version")
        second = await self.looker.get(self.setup.second_url, "/healthz")
        yield house.relay(self.setup.relay_url, version, relayed, second, self.setup.version)
        for finding in await asyncio.to_thread(self._store):
            yield finding
        yield self._plugins()
        yield await self._telemetry()

    async def _server(self, *, is_there: bool) -> AsyncIterator[Finding]:
        """What can be asked of the model server only while it is there."""
        model = None
        if is_there:
            asked, key = (self.setup.upstream, "/v1/models"), self.setup.api_key
            bare = await self.looker.get(*asked)
            keyed = await self.looker.get(*asked, key) if key else None
            yield server_side.api_key(key is not None, bare, keyed)
            listed, model = server_side.models(keyed or bare, self.setup.model)
            yield listed
        else:
            yield unknown("API key")
            yield unknown("model")
        if model is None:
            for name in ("tokenizer", "token ids", "scorer"):
                yield unknown(name)
        else:
            ids, back = await self._there_and_back(model.name)
            yield server_side.tokenizer(TEXT, back)
            yield server_side.token_ids(await self._token_ids(model.name))
            yield server_side.scorer(ids, *await self._score(model, ids))
        yield server_side.scheduling(self.setup.scheduling_policy, self.setup.priority)
        metrics = await self.looker.get(self.setup.upstream, "/metrics") if is_there else None
        yield server_side.prefix_cache(metrics) if metrics is not None else unknown("prefix cache")

    async def _there_and_back(self, model: str) -> tuple[tuple[int, ...], Outcome]:
        """The ids of TEXT (a few of them, for the scorer), and the text that they spell."""
        try:
            async with asyncio.timeout(ANSWER_S):
                reply = await self.server.tokenize({"model": model, "prompt": TEXT, "add_special_tokens": False})
                tokens = reply.get("tokens")
                if not isinstance(tokens, list) or len(tokens) < PROBE_TOKENS or {*map(type, tokens)} != {int}:
                    raise BadReply(f"/tokenize answered without `tokens`, or with fewer than {PROBE_TOKENS}")
                ids = tuple(tokens)
                return ids[:PROBE_TOKENS], await self.server.detokenize(model, ids)
        except (SpexError, TimeoutError) as error:
            return (), _as_ours(error)

    async def _token_ids(self, model: str) -> Mapping[str, Outcome]:
        """Where ids come from: by the same way as an explanation takes, on an exchange made up for it."""
        outcomes: dict[str, Outcome] = {}
        for path in ("/v1/chat/completions", "/v1/completions"):
            exchange = _made_up(path, model)
            try:
                async with asyncio.timeout(ANSWER_S):
                    outcomes[exchange.kind] = (await tokenize(exchange, self.server)).ids_source
                break
            except (SpexError, TimeoutError) as error:
                outcomes[exchange.kind] = _as_ours(error)
        return outcomes

    async def _score(self, model: ModelCard, ids: tuple[int, ...]) -> tuple[Choice | None, Scored | SpexError]:
        """Three tokens by the same way as an explanation's masks; the scorer checks values and ids."""
        choice = None
        try:
            async with asyncio.timeout(ANSWER_S):
                info = await self.server.info(model.name)
                scorers = Scorers(self.server, self.setup.scorer, self.setup.priority)
                choice = await scorers.choice(info)
                exchange = _made_up("/v1/chat/completions", model.name)
                words = in_words(exchange)
                if choice.name == "regenerate":
                    probe = Probe(words.prompt_ids, words.output_ids, digest="")
                elif ids:
                    probe = Probe(ids[:-1], ids[-1:], digest="")
                else:
                    raise BadReply("it needs token ids, and the tokenizer gives none")
                told = Told(exchange, words, Segmentation("", ()))
                scorer = await scorers.make(info, Layout(probe.prompt_ids, ()), told, choice.name)
                return choice, await scorer.score([probe], {})
        except (SpexError, TimeoutError) as error:
            return choice, _as_ours(error)

    def _store(self) -> list[Finding]:
        """Store, migrations, queue, disk and the database's clock. Blocks: runs in a thread."""
        names = ("migrations", "queue", "disk", "clock (database)")
        shown = "the store"
        try:
            engine = open_store(self.setup.store, create=False)
        except SpexError as error:
            return [house.store(shown, str(error)), *map(unknown, names)]
        shown = address_of(self.setup.store)
        try:
            state = _revision(engine)
            is_migrated = isinstance(state, RevisionState) and state.is_current
            seen = condition.condition(engine, is_migrated=is_migrated)
            return [
                house.store(shown, seen),
                house.migrations(state),
                house.queue(condition.queue(engine)) if is_migrated else unknown("queue"),
                house.disk(condition.disk(engine)),
                house.database_clock(seen),
            ]
        except (SpexError, StoreError) as error:
            cause = f"{shown} can't be read: {getattr(error, 'orig', None) or error}"
            return [house.store(shown, cause), *map(unknown, names)]
        finally:
            engine.dispose()

    def _plugins(self) -> Finding:
        loaded, refused = 0, {}
        wanted = [(kind, name) for kind in KINDS for name in self.plugins.names(kind)]
        for kind, name in dict.fromkeys([*wanted, *self.setup.chosen.items()]):
            try:
                self.plugins.get(kind, name)
                loaded += 1
            except PluginError as error:
                refused[kind, name] = str(error)
        return house.plugins(loaded, refused, self.setup.chosen)

    async def _telemetry(self) -> Finding:
        endpoint = self.setup.otlp_endpoint
        if endpoint is None:
            return house.telemetry(None, None)
        look = await self.looker.post(endpoint, "/v1/traces", b"", PROTOBUF)  # an empty batch is valid
        return house.telemetry(endpoint, look)


def _as_ours(error: Exception) -> SpexError:
    if isinstance(error, SpexError):
        return error
    return UpstreamBusy(f"no answer in {ANSWER_S:.0f} s")


def _revision(engine: Engine) -> RevisionState | str:
    try:
        return revision_state(engine)
    except SpexError as error:
        return str(error)


def _made_up(path: str, model: str) -> Exchange:
    """An exchange that nobody sent, as it would have come off the wire."""
    prompt = {"messages": [{"role": "user", "content": TEXT}]} if "chat" in path else {"prompt": TEXT}
    said = {"message": {"role": "assistant", "content": "Yes."}} if "chat" in path else {"text": "Yes."}
    reply = {"id": "doctor", "model": model, "choices": [{"index": 0, "finish_reason": "stop", **said}]}
    head = RequestHead("doctor", "POST", path, (), datetime.now(UTC))
    sent, got = json.dumps({"model": model, **prompt}).encode(), json.dumps(reply).encode()
    raw = RawExchange(head, sent, 200, (), got, 0.0, 0.0, 1.0, None)
    exchange = parse(raw)
    if isinstance(exchange, Skipped):
        raise CannotExplain(f"an exchange made up for the check was not understood: {exchange.reason}")
    return exchange
