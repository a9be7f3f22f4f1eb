"""Check a stored explanation against the evidence stored with it. No GPU, no network.

Level `check` follows each link of the chain on any machine: token ids -> probes ->
readings -> values -> coefficients -> what is shown. Level `refit` makes the whole
explanation again from masks and values, and reports the drift.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple, fields, replace

import numpy as np
from sqlalchemy import Connection

from spex_proxy.engine.indices import rank_interactions
from spex_proxy.engine.verify_fit import TOLERANCE, check, refit, tolerance
from spex_proxy.facts.aim import read_aim
from spex_proxy.facts.errors import BadEvidence, CannotExplain, NotFound, VerificationFailed
from spex_proxy.facts.evidence import Block, Evidence
from spex_proxy.facts.exchange import Exchange, TokenizedExchange
from spex_proxy.facts.explanation import Check, Explanation, Fidelity, Flag, Interaction
from spex_proxy.facts.game import Game, most_scored
from spex_proxy.facts.spectrum import Spectrum
from spex_proxy.flows.finer import cut, load_coarser
from spex_proxy.flows.probes import evidence_of, game_digest, make_probes, probes_digest
from spex_proxy.flows.result import cost_of, flags_of
from spex_proxy.plug import answers
from spex_proxy.plug.kinds import Seen
from spex_proxy.plug.load import Plugins
from spex_proxy.store import exchanges, explanations, games
from spex_proxy.wire.aiming import aim_at
from spex_proxy.wire.tokens import align

WHOLE = "evidence blocks are what their digests say"


def verify(connection: Connection, explanation_id: str, project: str, plugins: Plugins) -> list[Check]:
    """All checks of one explanation, in the order of the chain. Reads only."""
    explanation = explanations.load_explanation(connection, explanation_id, project=project)
    checks: list[Check] = []
    played: list[tuple[Game, Sequence[Block]]] = []
    later: list[Sequence[Block]] = []
    try:
        for game_id, cited in zip(explanation.game_ids, explanation.how.get("blocks", ()), strict=True):
            game, blocks = _load(connection, game_id, cited, project)
            played.append((game, blocks[:cited]))
            later.append(blocks)
    except (VerificationFailed, ValueError) as error:
        return [Check(WHOLE, False, str(error))]
    for (game, blocks), everything in zip(played, later, strict=True):
        added = len(everything) - len(blocks)
        checks.append(Check(WHOLE, True, f"{len(blocks)} blocks" + (f", and {added} asked later" if added else "")))
        checks.append(_values(game, everything, plugins))
        checks.append(_probes(connection, game, everything, plugins))
    game, blocks = played[0]
    aimed = _target(connection, explanation, game)
    checks.append(aimed)
    if aimed.is_passed:
        checks.extend(_fit(explanation, evidence_of(game, explanation.target, blocks, plugins)))
    if explanation.recipe.inside:
        checks.append(_levels(connection, explanation, game, plugins))
    checks.append(_told(connection, explanation, played, plugins))
    return checks


def _load(connection: Connection, game_id: str, cited: int, project: str) -> tuple[Game, Sequence[Block]]:
    """A game and its blocks, of which an explanation cites the first ones; the others were asked later."""
    game = games.load_game(connection, game_id, project=project)
    blocks = games.load_blocks(connection, game_id, project=project)
    shape = game.n_players, len(game.target)
    if len(blocks) < cited or any((b.masks.shape[1], b.logprobs.shape[1]) != shape for b in blocks):
        raise VerificationFailed(f"{cited} blocks over {shape[0]} players and {shape[1]} tokens are cited, not stored")
    return game, blocks


def _values(game: Game, blocks: Sequence[Block], plugins: Plugins) -> Check:
    value = plugins.value(game.value)
    wrong = [b.number for b in blocks if not _equals(answers.read(value, game.value, b.logprobs), b.values)]
    return _check("values follow from the stored log-probabilities", wrong, f"value {game.value}")


def _probes(connection: Connection, game: Game, blocks: Sequence[Block], plugins: Plugins) -> Check:
    name = "masks and answer are those that were asked"
    try:
        tokens = exchanges.load_tokens(connection, game.exchange_id, project=game.project) if game.exchange_id else None
        salt = exchanges.load_salt(connection, game.exchange_id, project=game.project) if game.exchange_id else None
    except NotFound:
        tokens = salt = None
    if tokens is None or salt is None:
        return Check(name, True, "content was erased: this link can't be followed any more", is_skipped=True)
    if game_digest(game, tokens, salt) != game.digest:
        return Check(name, False, "the game's digest does not fit its players and token ids")
    wrong = [
        b.number for b in blocks if probes_digest(make_probes(game, tokens, salt, plugins, b.masks)) != b.probes_digest
    ]
    return _check(name, wrong, "keyed digests made again from token ids")


def _target(connection: Connection, explanation: Explanation, game: Game) -> Check:
    """What is explained is what the recipe aims at, and was scored."""
    name, target = "the target is what the recipe aims at", explanation.target
    if not game.target.start <= target.start < target.end <= game.target.end:
        return Check(name, False, "the target's tokens were not scored")
    content = _content(connection, game)
    try:
        aim = read_aim(explanation.recipe.target)
        if content is None:
            is_right = target.label == aim.label and (aim.kind != "output" or target == game.target)
            is_told = aim.kind in ("output", "first_token")
            return Check(name, is_right, f"{target.label}; content was erased", is_skipped=is_right and not is_told)
        exchange, tokens = content
        if aim.kind not in ("output", "first_token") and not tokens.output_text:
            return Check(name, target.label == aim.label, "no offsets of the answer are stored", is_skipped=True)
        aimed = aim_at(aim, exchange, tokens, most_scored(game.scorer.name, explanation.recipe.max_scored_tokens))
    except (ValueError, CannotExplain) as error:
        return Check(name, False, str(error))
    return Check(name, aimed == (target, game.target), f"{target.label}: tokens {target.start} to {target.end}")


def _levels(connection: Connection, explanation: Explanation, game: Game, plugins: Plugins) -> Check:
    """The players of a finer level are what the coarser one makes them."""
    name, recipe = "the players are parts of what mattered in the coarser explanation", explanation.recipe
    try:
        coarser, above = load_coarser(connection, recipe, explanation.project)
    except NotFound as error:
        return Check(name, False, str(error))
    content = _content(connection, game)
    if content is None:
        return Check(name, True, "content was erased: this link can't be followed any more", is_skipped=True)
    exchange, tokens = content
    texts = answers.split(plugins.segmenter(recipe.segmenter), recipe.segmenter, exchange)
    players = cut(coarser, above.players, align(recipe.segmenter, texts, exchange, tokens))
    return Check(name, players.segments == game.players.segments, f"of {recipe.inside}")


def _content(connection: Connection, game: Game) -> tuple[Exchange, TokenizedExchange] | None:
    """None if there is none any more."""
    if game.exchange_id is None:
        return None
    try:
        tokens = exchanges.load_tokens(connection, game.exchange_id, project=game.project)
        exchange = exchanges.load_exchange(connection, game.exchange_id, project=game.project)
    except NotFound:
        return None
    return None if tokens is None else (exchange, tokens)


def _fit(explanation: Explanation, evidence: Evidence) -> Iterator[Check]:
    recipe, spectrum = explanation.recipe, explanation.spectrum
    name = "check: the closed form gives the stored coefficients"
    allowed = tolerance(evidence)
    try:
        yield _drift(name, check(spectrum, explanation.how, recipe, evidence), allowed)
        again = refit(recipe, evidence)
    except (VerificationFailed, BadEvidence) as error:
        yield Check(name, False, str(error))
        return
    yield _drift("refit: masks and values give the stored spectrum", _spectrum_drift(spectrum, again.spectrum), allowed)
    yield _fidelity(explanation.fidelity, again.fidelity, allowed)
    yield Check(
        "the verdict follows from the fidelity",
        (again.verdict, again.verdict_reason) == (explanation.verdict, explanation.verdict_reason),
        f"stored {explanation.verdict}, made again {again.verdict}",
    )
    shown = rank_interactions(spectrum)
    yield Check(
        "the interactions shown follow from the spectrum",
        len(shown) == len(explanation.interactions)
        and all(_same_interaction(*pair, allowed) for pair in zip(shown, explanation.interactions, strict=True)),
        f"{len(explanation.interactions)} interactions",
    )


def _told(
    connection: Connection,
    explanation: Explanation,
    played: Sequence[tuple[Game, Sequence[Block]]],
    plugins: Plugins,
) -> Check:
    """What an explanation says about itself, against its games, and its copies for searching."""
    game, recipe = played[0][0], explanation.recipe
    blocks = [block for _, cited in played for block in cited]
    told = {
        "exchange": (explanation.exchange_id, game.exchange_id),
        "plugins": ((recipe.segmenter, recipe.masker, recipe.value), (game.players.method, game.masker, game.value)),
        "cost": (explanation.cost, cost_of(blocks)),
        "flags": (explanation.flags, _flags(connection, explanation, game, plugins)),
    }
    wrong = [name for name, (stored, made) in told.items() if stored != made]
    wrong += explanations.wrong_copies(connection, explanation)
    return Check("what is told about it follows", not wrong, f"wrong: {', '.join(wrong)}" if wrong else ", ".join(told))


def _flags(connection: Connection, explanation: Explanation, game: Game, plugins: Plugins) -> tuple[Flag, ...]:
    """What its flaggers say when they look once more; as stored, where the content that they looked at was erased."""
    own = flags_of(explanation.verdict, explanation.verdict_reason, explanation.target)
    rest = explanation.flags[len(own) :]
    looked = explanation.how.get("looked", ())
    content = _content(connection, game)
    if content is None:
        known = {one["flagger"] for one in looked}
        return own + tuple(flag for flag in rest if flag.flagger in known)
    seen = Seen(content[0], replace(explanation, flags=own), game.players)
    again: list[Flag] = []
    for one in looked:
        versions = {flag.version for flag in rest if flag.flagger == one["flagger"]}
        version = versions.pop() if len(versions) == 1 else ""
        found = answers.inspect(plugins.flagger(one["flagger"]), one["flagger"], seen, one["options"])
        again.extend(Flag(one["name"], detail, score, one["flagger"], version) for detail, score in found)
    return (*own, *again)


def _spectrum_drift(stored: Spectrum, made: Spectrum) -> float:
    """Largest difference of a coefficient or its error; infinite if the terms differ, or only one has errors."""
    if not np.array_equal(stored.supports, made.supports):
        return math.inf
    drift = np.max(np.abs(stored.coefficients - made.coefficients))
    if stored.standard_errors is not None and made.standard_errors is not None:
        return float(np.maximum(drift, np.max(np.abs(stored.standard_errors - made.standard_errors))))
    return float(drift) if stored.standard_errors is made.standard_errors else math.inf


def _fidelity(stored: Fidelity, made: Fidelity, allowed: float) -> Check:
    """Shares and the number of masks by themselves, the rest in the value's unit."""
    name = "refit: fidelity and noise are as stored"
    drift = {f.name: _difference(getattr(stored, f.name), getattr(made, f.name)) for f in fields(Fidelity)}
    in_unit = max(drift.pop(figure) for figure in ("noise_sigma", "value_full", "value_empty"))
    shares = _drift(name, max(drift.values()), TOLERANCE)
    return shares if not shares.is_passed or in_unit <= allowed else _drift(name, in_unit, allowed)


def _same_interaction(one: Interaction, other: Interaction, allowed: float) -> bool:
    numbers = zip(astuple(one)[1:], astuple(other)[1:], strict=True)
    return one.players == other.players and all(_difference(a, b) <= allowed for a, b in numbers)


def _difference(a: float | None, b: float | None) -> float:
    """0 for equals, NaN and NaN among them; infinite where only one is a number."""
    if a == b or (a != a and b != b):
        return 0.0
    difference = math.inf if a is None or b is None else abs(a - b)
    return math.inf if math.isnan(difference) else difference


def _check(name: str, wrong: Sequence[int], detail: str) -> Check:
    if wrong:
        return Check(name, False, f"not so in block {', '.join(str(number) for number in wrong)}")
    return Check(name, True, detail)


def _drift(name: str, drift: float, allowed: float) -> Check:
    return Check(name, drift <= allowed, f"largest difference {drift:.1e}, allowed {allowed:.0e}")


def _equals(made: np.ndarray, stored: np.ndarray) -> bool:
    """Bit for bit up to the order of summation."""
    return bool(np.allclose(made, stored, rtol=1e-12, atol=1e-12))
