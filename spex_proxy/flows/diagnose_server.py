"""What was seen of the model server -> findings. Pure: no I/O here, each line of the report has one function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from spex_proxy.facts.errors import SpexError, UpstreamBusy
from spex_proxy.facts.finding import Finding, Level
from spex_proxy.facts.game import MEASURES
from spex_proxy.ports.look import Answer, Look, Silence
from spex_proxy.ports.scorers import Scored
from spex_proxy.ports.scorers.choose import Choice
from spex_proxy.wire.about import ModelCard, read_models, read_prefix_cache, read_version, release

OLDEST = (0, 32)
"""The vLLM release that this is written for and tested with."""
CLOCK_S = 5.0
"""Clocks further apart than this make records of different machines hard to read side by side."""

Outcome = str | SpexError
"""What came of one attempt: where it succeeded, a word about how."""


def upstream(url: str, look: Look) -> Finding:
    name = "upstream"
    if isinstance(look, Silence):
        advice = "Start vLLM there, or name the right address: --upstream or SPEX_UPSTREAM."
        return Finding(name, "broken", f"{url} does not answer: {look.reason}", advice)
    version = read_version(look.body) if look.status == 200 else None
    if version is None:
        return Finding(
            name, "broken", f"{url} answers, but is no vLLM server (GET /version gave {look.status})",
            "Apps are relayed to it all the same; it is explained as the scorer below can. Name a vLLM server "
            "(SPEX_UPSTREAM) for more.",
        )  # fmt: skip
    found = f"vLLM {version} at {url}, {look.seconds * 1000:.0f} ms away"
    placed = release(version)
    if placed is None:
        advice = "Rely on what the checks below find: they ask it for all that is needed."
        return Finding(name, "warning", f"{found}; not a release", advice)
    if placed < OLDEST:
        advice = "Take vLLM 0.32 or newer; with an older one, rely on what the checks below find."
        return Finding(name, "warning", f"{found}; older than what this was tested with", advice)
    return Finding(name, "ok", found)


def replica(url: str, first: Look, version: Look, first_models: Look, models: Look) -> Finding:
    """A further replica beside the first: `/version` and `/v1/models` of both."""
    name = "replica"
    if isinstance(version, Silence):
        advice = "The relay leaves it out until it answers; start it, or take it out of SPEX_UPSTREAM."
        return Finding(name, "broken", f"{url} does not answer: {version.reason}", advice)
    versions, served = [_version(first), _version(version)], [_names(first_models), _names(models)]
    if versions[0] != versions[1] or served[0] != served[1]:
        found = f"{url} runs vLLM {versions[1]} with {served[1]}, the first {versions[0]} with {served[0]}"
        advice = "Replicas should be equal: the relay sends any request to any of them."
        return Finding(name, "warning", found, advice)
    return Finding(name, "ok", f"{url} runs vLLM {versions[1]} with the same models")


def _version(look: Look) -> str:
    found = read_version(look.body) if isinstance(look, Answer) and look.status == 200 else None
    return found or "of unknown version"


def _names(look: Look) -> str:
    cards = read_models(look.body) if isinstance(look, Answer) and look.status == 200 else ()
    return ", ".join(sorted(card.name for card in cards or ())) or "no known model"


def api_key(has_key: bool, bare: Look, keyed: Look | None) -> Finding:
    """`bare` was asked without a key, `keyed` with ours."""
    name = "API key"
    if isinstance(bare, Silence):
        return unknown(name)
    if bare.status == 200:
        return Finding(name, "ok", "none is needed" + (" (the one that is set is not looked at)" if has_key else ""))
    if bare.status not in (401, 403):
        found = f"GET /v1/models gave {bare.status}"
        return Finding(name, "unknown", found, "Look into the server's log: it should list its models.")
    if keyed is None:
        return Finding(
            name, "broken", f"needed ({bare.status} without one), and none is set",
            "Set SPEX_UPSTREAM_API_KEY to the key of vLLM's --api-key. Apps go on sending their own.",
        )  # fmt: skip
    if isinstance(keyed, Answer) and keyed.status == 200:
        return Finding(name, "ok", "needed, and ours is accepted")
    got = keyed.status if isinstance(keyed, Answer) else keyed.reason
    advice = "Set SPEX_UPSTREAM_API_KEY to a key that the server was started with."
    return Finding(name, "broken", f"needed, and ours is refused ({got})", advice)


def models(look: Look, wanted: str | None) -> tuple[Finding, ModelCard | None]:
    """The finding, and the model to try things with."""
    name = "model"
    cards = read_models(look.body) if isinstance(look, Answer) and look.status == 200 else None
    if cards is None:
        return unknown(name), None
    if not cards:
        return Finding(name, "broken", "the server lists no models", "Start vLLM with --model."), None
    chosen = next((card for card in cards if card.name == wanted), None) if wanted else cards[0]
    listed = ", ".join(_with_length(card) for card in cards)
    if chosen is None:
        return Finding(name, "broken", f"{wanted} is not served; served: {listed}", "Choose one of those."), None
    found = f"{listed}; the checks below use {chosen.name}" if len(cards) > 1 else listed
    if chosen.max_model_len is None:
        advice = "Nothing to do: prompts that are too long are refused by the server when they are asked."
        return Finding(name, "warning", found, advice), chosen
    return Finding(name, "ok", found), chosen


def tokenizer(text: str, back: Outcome) -> Finding:
    name = "tokenizer"
    if isinstance(back, SpexError):
        return _failed(name, back, "It must answer POST /tokenize and /detokenize: is a gateway in between?")
    if back != text:
        return Finding(
            name, "warning", f"{text!r} comes back as {back!r}",
            "Answers whose text does not survive tokenising are not explained, and say so. ASCII may still do.",
        )  # fmt: skip
    return Finding(name, "ok", f"{text!r} survives there and back")


def token_ids(outcomes: Mapping[str, Outcome]) -> Finding:
    """By kind, in the order in which they were tried: `chat`, then `completion` if chat failed."""
    name = "token ids"
    sources = {kind: outcome for kind, outcome in outcomes.items() if isinstance(outcome, str)}
    failures = {kind: outcome for kind, outcome in outcomes.items() if isinstance(outcome, SpexError)}
    if not sources:
        return _failed(name, next(iter(failures.values())), "Nothing can be explained without them: mend this first.")
    kind, source = next(iter(sources.items()))
    if failures:
        lost, why = next(iter(failures.items()))
        advice = f"{lost.capitalize()} requests are relayed, not explained. Has the model a chat template?"
        return Finding(name, "warning", f"{kind} requests: {source}; {lost} requests: {why}", advice)
    if source == "render":
        return Finding(name, "ok", "from the render route, with offsets")
    return Finding(
        name, "warning", f"from /{source} and its token strings; the render route is switched off",
        "Start vLLM with --enable-scale-out: the render route is exact for every template and tokenizer.",
    )  # fmt: skip


def scorer(ids: Sequence[int], choice: Choice | None, scored: Scored | SpexError) -> Finding:
    name = "scorer"
    if isinstance(scored, SpexError):
        advice = "Nothing can be explained until the server answers this; SPEX_SCORER=auto takes what it can do."
        failed = _failed(name, scored, advice)
        return failed if choice is None else replace(failed, found=f"{choice.name} ({choice.why}): {failed.found}")
    reading = scored.readings[0]
    if choice is None or reading is None:
        return unknown(name)
    if measure := MEASURES.get(choice.name):
        return Finding(
            name, "warning", f"{choice.name} ({choice.why}): a made-up request was answered in "
            f"{scored.seconds * 1000:.0f} ms; values count {measure}, and are no log-probabilities",
            "For finer and cheaper explanations let SPEX_UPSTREAM be a vLLM server; see docs/scoring.md.",
        )  # fmt: skip
    found = f"{choice.name} ({choice.why}): {len(ids)} tokens asked, log-probability of the last "
    return Finding(name, "ok", f"{found}{float(reading.logprobs[-1]):.2f}, ids match, {scored.seconds * 1000:.0f} ms")


def scheduling(word: str, priority: int) -> Finding:
    """vLLM 0.32 shows its policy nowhere over HTTP, and takes priorities silently without following them."""
    name = "scheduling"
    do = "Start vLLM with --scheduling-policy priority, and set SPEX_SCHEDULING_POLICY=priority."
    if word == "priority":
        return Finding(name, "ok", f"priority, says the operator; masked queries are sent with {priority}, apps have 0")
    if word == "fcfs":
        found = "first come, first served, says the operator: requests of apps wait behind masked queries"
        return Finding(name, "warning", found, do)
    return Finding(name, "unknown", "vLLM does not show it; if it is fcfs, apps wait behind masked queries", do)


def prefix_cache(look: Look) -> Finding:
    name = "prefix cache"
    cache = None
    if isinstance(look, Answer) and look.status == 200:
        cache = read_prefix_cache(look.body.decode(errors="replace"))
    if cache is None:
        got = f"GET /metrics gave {look.status}" if isinstance(look, Answer) else look.reason
        found = f"no vllm:cache_config_info ({got})"
        return Finding(name, "unknown", found, "Is /metrics kept from us, or vLLM started with --disable-log-stats?")
    state = {True: "on", False: "off", None: "on or off, it does not say"}[cache.is_on]
    room = f", room for {cache.tokens:,} tokens" if cache.tokens else ""
    found = f"{state}; blocks of {cache.block_tokens or 'unknown'} tokens{room}"
    return Finding(name, "ok", f"{found}; masked queries write into it under salts of their own")


def clock(look: Look) -> Finding:
    """By the `Date` header: whole seconds, and servers make it once a second."""
    name = "clock (upstream)"
    stated = _date(look.headers.get("date", "")) if isinstance(look, Answer) else None
    if not isinstance(look, Answer) or stated is None:
        return Finding(name, "unknown", "the upstream gives no time", "Keep the clocks in step with NTP.")
    apart = (look.answered_at - stated).total_seconds()
    return clocks(name, 0.0 if 0 <= apart <= 2 else apart)


def clocks(name: str, ours_ahead_s: float) -> Finding:
    """Two clocks, for the upstream and the database alike."""
    if abs(ours_ahead_s) < 1:
        return Finding(name, "ok", "in step, to the second")
    found = f"ours is {abs(ours_ahead_s):.1f} s {'ahead' if ours_ahead_s > 0 else 'behind'}"
    level: Level = "ok" if abs(ours_ahead_s) <= CLOCK_S else "warning"
    return Finding(name, level, found, "" if level == "ok" else "Set both clocks by NTP.")


def unknown(name: str) -> Finding:
    """What depends on something that is not there."""
    return Finding(name, "unknown", "could not be asked", "Mend what is broken above first.")


def _failed(name: str, error: SpexError, advice: str) -> Finding:
    if isinstance(error, UpstreamBusy):
        return Finding(name, "unknown", str(error), "The server is busy or failing: look again in a moment.")
    return Finding(name, "broken", str(error), advice)


def _with_length(card: ModelCard) -> str:
    return f"{card.name} ({card.max_model_len:,} tokens)" if card.max_model_len else f"{card.name} (length unknown)"


def _date(text: str) -> datetime | None:
    try:
        stated = parsedate_to_datetime(text)
    except ValueError:
        return None
    return stated if stated.tzinfo else stated.replace(tzinfo=UTC)
