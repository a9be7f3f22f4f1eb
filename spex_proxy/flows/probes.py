"""A coalition as a question to the model, and the seals that tie evidence to what was asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, replace

from spex_proxy.facts.evidence import Block, Evidence, Masks, Probe
from spex_proxy.facts.exchange import Target, TokenizedExchange
from spex_proxy.facts.game import Game
from spex_proxy.facts.seals import canonical_json, salted_seal, seal
from spex_proxy.plug import answers
from spex_proxy.plug.load import Plugins


def game_digest(game: Game, tokens: TokenizedExchange, salt: bytes) -> str:
    """Keyed seal over everything that fixes the values of a game, the token ids among it."""
    fixed = {
        "kind": game.kind,
        "players": [game.players.method, *(astuple(segment) for segment in game.players.segments)],
        "masker": game.masker,
        "value": game.value,
        "scorer": [game.scorer.name, game.scorer.model, game.scorer.server],
        "target": astuple(game.target),
        "prompt_ids": tokens.prompt_ids,
        "output_ids": tokens.output_ids,
    }
    if game.players.filler:
        fixed["filler"] = game.players.filler
    return salted_seal(salt, canonical_json(fixed))


def make_probes(
    game: Game, tokens: TokenizedExchange, salt: bytes, plugins: Plugins, masks: Masks
) -> tuple[Probe, ...]:
    """One probe per mask, each with its keyed digest."""
    masker = plugins.masker(game.masker)
    output = tokens.output_ids[game.target.start : game.target.end]
    before = tokens.output_ids[: game.target.start]
    probes = []
    for mask in masks:
        kept = answers.apply(masker, game.masker, tokens.prompt_ids, game.players, mask)
        digest = salted_seal(salt, canonical_json([kept, before, output]))
        probes.append(Probe((*kept, *before), output, digest))
    return tuple(probes)


def evidence_of(game: Game, target: Target, blocks: Sequence[Block], plugins: Plugins) -> Evidence:
    """What the game's readings say of one target: its values, read from the log-probabilities of its tokens alone."""
    first, last = target.start - game.target.start, target.end - game.target.start
    if (first, last) != (0, len(game.target)):
        value = plugins.value(game.value)
        blocks = [
            replace(block, values=answers.read(value, game.value, block.logprobs[:, first:last])) for block in blocks
        ]
    return Evidence.from_blocks(game.n_players, blocks)


def probes_digest(probes: Sequence[Probe]) -> str:
    """One seal over a batch's probes, in order."""
    return seal(*(probe.digest.encode("ascii") for probe in probes))
