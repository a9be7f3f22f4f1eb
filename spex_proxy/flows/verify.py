"""Check a stored explanation against the evidence stored with it. No GPU, no network.

Level `check` follows each link of the chain on any machine: token ids -> probes ->
readings -> values -> coefficients -> what is shown. Level `refit` makes the whole
explanation again from masks and values, and reports the drift.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple

import numpy as np
from sqlalchemy import Connection

from spex_proxy.engine.indices import rank_interactions
from spex_proxy.engine.verify_fit import TOLERANCE, check, refit
from spex_proxy.facts.errors import BadEvidence, NotFound, VerificationFailed
from spex_proxy.facts.evidence import Block, Evidence
from spex_proxy.facts.explanation import Check, Explanation, Fidelity
from spex_proxy.facts.game import Game
from spex_proxy.facts.spectrum import Spectrum
from spex_proxy.flows.probes import game_digest, make_probes, probes_digest
from spex_proxy.plug.load import Plugins, call
from spex_proxy.store import exchanges, explanations, games

WHOLE = "evidence blocks are what their digests say"


def verify(connection: Connection, explanation_id: str, project: str, plugins: Plugins) -> list[Check]:
    """All checks of one explanation, in the order of the chain. Reads only."""
    explanation = explanations.load_explanation(connection, explanation_id, project=project)
    checks: list[Check] = []
    evidence: list[Evidence] = []
    for game_id, cited in zip(explanation.game_ids, explanation.how["blocks"], strict=True):
        game = games.load_game(connection, game_id, project=project)
        try:
            blocks = games.load_blocks(connection, game_id, project=project)[:cited]
        except VerificationFailed as error:
            return [*checks, Check(WHOLE, False, str(error))]
        checks.append(Check(WHOLE, True, f"{len(blocks)} blocks"))
        checks.append(_values(game, blocks, plugins))
        checks.append(_probes(connection, game, blocks, plugins))
        evidence.append(Evidence.from_blocks(game.n_players, blocks))
    checks.extend(_fit(explanation, evidence[0]))
    return checks


def _values(game: Game, blocks: Sequence[Block], plugins: Plugins) -> Check:
    value = plugins.value(game.value)
    wrong = [b.number for b in blocks if not _equals(call("value", game.value, value.read, b.logprobs), b.values)]
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


def _fit(explanation: Explanation, evidence: Evidence) -> Iterator[Check]:
    recipe, spectrum = explanation.recipe, explanation.spectrum
    name = "check: the closed form gives the stored coefficients"
    try:
        yield _drift(name, check(spectrum, explanation.how, recipe, evidence))
        again = refit(recipe, evidence)
    except (VerificationFailed, BadEvidence) as error:
        yield Check(name, False, str(error))
        return
    yield _drift("refit: masks and values give the stored spectrum", _spectrum_drift(spectrum, again.spectrum))
    yield _drift("refit: fidelity and noise are as stored", _fidelity_drift(explanation.fidelity, again.fidelity))
    yield Check(
        "the verdict follows from the fidelity",
        again.verdict == explanation.verdict,
        f"stored {explanation.verdict}, made again {again.verdict}",
    )
    shown = rank_interactions(spectrum)
    yield Check(
        "the interactions shown follow from the spectrum",
        [i.players for i in shown] == [i.players for i in explanation.interactions]
        and all(abs(a.banzhaf - b.banzhaf) <= TOLERANCE for a, b in zip(shown, explanation.interactions, strict=True)),
        f"{len(explanation.interactions)} interactions",
    )


def _spectrum_drift(stored: Spectrum, made: Spectrum) -> float:
    """Largest difference of a coefficient; infinite if the terms differ."""
    if not np.array_equal(stored.supports, made.supports):
        return math.inf
    return float(np.max(np.abs(stored.coefficients - made.coefficients)))


def _fidelity_drift(stored: Fidelity, made: Fidelity) -> float:
    pairs = zip(astuple(stored), astuple(made), strict=True)
    return max(0.0 if math.isnan(a) and math.isnan(b) else abs(a - b) for a, b in pairs)


def _check(name: str, wrong: Sequence[int], detail: str) -> Check:
    if wrong:
        return Check(name, False, f"not so in block {', '.join(str(number) for number in wrong)}")
    return Check(name, True, detail)


def _drift(name: str, drift: float) -> Check:
    return Check(name, drift <= TOLERANCE, f"largest difference {drift:.1e}, allowed {TOLERANCE:.0e}")


def _equals(made: np.ndarray, stored: np.ndarray) -> bool:
    """Bit for bit up to the order of summation."""
    return bool(np.allclose(made, stored, rtol=1e-12, atol=1e-12))
