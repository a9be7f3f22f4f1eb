"""What somebody with a database client and this source code can do to a stored explanation.

Digests that can be recomputed are recomputed: they protect against accidents, not against people.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from spex_proxy.facts.evidence import Block
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.seals import salted_seal, seal
from spex_proxy.facts.spectrum import Spectrum
from spex_proxy.store import codec

Tamper = Callable[[sqlite3.Connection], object]


def sql(statement: str) -> Tamper:
    return lambda db: db.execute(statement)


def block(change: Callable[[Block], Block], *, of: str = "whole prompt") -> Tamper:
    """Rewrite the evidence block that holds the whole prompt (or the last one), digest and all."""

    def tamper(db: sqlite3.Connection) -> None:
        db.row_factory = sqlite3.Row
        rows = [dict(row) for row in db.execute("SELECT * FROM evidence_blocks ORDER BY number")]
        blocks = [codec.decode_block(row, "block") for row in rows]
        wanted = next(b for b in blocks if b.masks.all(axis=1).any()) if of == "whole prompt" else blocks[-1]
        columns = codec.encode_block(change(wanted))
        names = ", ".join(f"{name} = :{name}" for name in columns)
        db.execute(f"UPDATE evidence_blocks SET {names} WHERE number = :number", columns)

    return tamper


def value(b: Block, row: int = -1, by: float = 0.01) -> Block:
    values = b.values.copy()
    values[row] += by
    return replace(b, values=values)


def consistent_value(b: Block, row: int = -1, by: float = 0.01) -> Block:
    """A value and the log-probabilities that it is the sum of."""
    logprobs = b.logprobs.copy()
    logprobs[row, 0] -= by
    return replace(b, logprobs=logprobs, values=logprobs.astype(np.float64).sum(axis=1))


def replicate(b: Block) -> Block:
    return consistent_value(b, row=int(np.flatnonzero(b.masks.all(axis=1))[-1]))


def all_replicates(b: Block) -> Block:
    """Each by another amount, so that their mean stays what it was."""
    rows = np.flatnonzero(b.masks.all(axis=1))
    for row, by in zip(rows, (0.25, -0.25, 0.0), strict=True):
        b = consistent_value(b, row=int(row), by=by)
    return b


def mask_bit(b: Block) -> Block:
    masks = b.masks.copy()
    masks[-1, 1] ^= True
    return replace(b, masks=masks)


def mask_bit_with_its_seal(db: sqlite3.Connection) -> None:
    """The salt is in the store too, so the keyed digests of the probes can be forged as well."""
    (salt,) = db.execute("SELECT salt FROM contents WHERE part = 'exchange'").fetchone()
    block(lambda b: replace(mask_bit(b), probes_digest=seal(salted_seal(salt, b"forged").encode())))(db)


def last_row_dropped(b: Block) -> Block:
    return replace(b, masks=b.masks[:-1], replicates=b.replicates[:-1], values=b.values[:-1], logprobs=b.logprobs[:-1])


def spectrum(change: Callable[[Spectrum], Spectrum]) -> Tamper:
    """The checksum in the blob is recomputed."""

    def tamper(db: sqlite3.Connection) -> None:
        (blob,) = db.execute("SELECT spectrum FROM explanations").fetchone()
        forged = codec.encode_spectrum(change(codec.decode_spectrum(blob, "spectrum")))
        db.execute("UPDATE explanations SET spectrum = ?", (forged,))

    return tamper


def coefficient(s: Spectrum) -> Spectrum:
    return replace(s, coefficients=s.coefficients + np.eye(len(s))[-1] * 1e-6)


def flipped_byte(db: sqlite3.Connection) -> None:
    (blob,) = db.execute("SELECT spectrum FROM explanations").fetchone()
    db.execute("UPDATE explanations SET spectrum = ?", (blob[:-9] + bytes([blob[-9] ^ 1]) + blob[-8:],))


def fields(table: str, column: str, change: Callable[[dict[str, Any]], object]) -> Tamper:
    """Something in a JSON column."""

    def tamper(db: sqlite3.Connection) -> None:
        data = json.loads(db.execute(f"SELECT {column} FROM {table}").fetchone()[0])
        change(data)
        db.execute(f"UPDATE {table} SET {column} = ?", (json.dumps(data),))

    return tamper


def how(**changes: Any) -> Tamper:
    def tamper(db: sqlite3.Connection) -> None:
        data = codec.unpack_json(db.execute("SELECT how FROM explanations").fetchone()[0], "how")
        db.execute("UPDATE explanations SET how = ?", (codec.pack_json(data | changes),))

    return tamper


def fewer_blocks_cited(db: sqlite3.Connection) -> None:
    (cited,) = codec.unpack_json(db.execute("SELECT how FROM explanations").fetchone()[0], "how")["blocks"]
    how(blocks=[cited - 1])(db)


def tokens(**changes: Any) -> Tamper:
    """Token ids: what was asked would be another prompt, or another answer."""

    def tamper(db: sqlite3.Connection) -> None:
        (blob,) = db.execute("SELECT blob FROM contents WHERE part = 'tokens'").fetchone()
        data = codec.unpack_json(blob, "tokens")
        for name, change in changes.items():
            data[name] = change(data[name])
        db.execute("UPDATE contents SET blob = ? WHERE part = 'tokens'", (codec.pack_json(data),))

    return tamper


def recipe_with_its_digest(**changes: Any) -> Tamper:
    def tamper(db: sqlite3.Connection) -> None:
        data = json.loads(db.execute("SELECT recipe FROM explanations").fetchone()[0]) | changes
        forged = Recipe.from_json(data).digest()
        db.execute("UPDATE explanations SET recipe = ?, recipe_digest = ?", (json.dumps(data), forged))

    return tamper


def swapped_ranks(db: sqlite3.Connection) -> None:
    for old, new in ((0, 99), (1, 0), (99, 1)):
        db.execute("UPDATE interactions SET rank = ? WHERE rank = ?", (new, old))


def _of_first_segment(**changes: Any) -> Tamper:
    return fields("games", "players", lambda players: players["segments"][0].update(changes))


_FIDELITY = ("r2", "r2_low", "r2_high", "noise_sigma", "noise_ceiling", "value_full", "value_empty", "masks")

TAMPERINGS: dict[str, Tamper] = {
    # the evidence
    "a value, and nothing else": sql("UPDATE evidence_blocks SET mask_values = zeroblob(length(mask_values))"),
    "a value": block(value),
    "a value by very little": block(lambda b: value(b, by=1e-8)),
    "a value and its log-probabilities": block(consistent_value),
    "the same in the last block": block(consistent_value, of="last"),
    "log-probabilities": block(lambda b: replace(b, logprobs=b.logprobs - np.float32(0.01))),
    "a repeat of the whole prompt": block(replicate),
    "all repeats, their mean kept": block(all_replicates),
    "a mask bit": block(mask_bit),
    "a mask bit and its seal": mask_bit_with_its_seal,
    "the seal of what was asked": block(lambda b: replace(b, probes_digest=seal(b"other"))),
    "a row left out": block(last_row_dropped),
    "a block left out": sql("DELETE FROM evidence_blocks WHERE number = 1"),
    "the last block left out": sql(
        "DELETE FROM evidence_blocks WHERE number = (SELECT max(number) FROM evidence_blocks)"
    ),
    "all blocks left out": sql("DELETE FROM evidence_blocks"),
    "what a block cost": sql("UPDATE evidence_blocks SET prompt_tokens = 1 WHERE number = 0"),
    # the game
    "where a segment stands in the text": _of_first_segment(char_end=5),
    "who said a segment": _of_first_segment(role="system", provenance="system"),
    "which tokens a segment has": _of_first_segment(token_end=6),
    "a game's target": fields("games", "scored_tokens", lambda t: t.update(label="the name")),
    "the model that was asked": fields("games", "scorer", lambda s: s.update(model="another")),
    "the prompt's ids": tokens(prompt_ids=lambda ids: [*ids[:-1], 7]),
    "the answer's ids": tokens(output_ids=lambda ids: [*ids[:-1], 7]),
    "the salt": sql("UPDATE contents SET salt = zeroblob(32) WHERE part = 'exchange'"),
    # the result
    "a coefficient": spectrum(coefficient),
    "a flipped byte": flipped_byte,
    "two coefficients swapped": spectrum(lambda s: replace(s, coefficients=s.coefficients[::-1].copy())),
    "a coefficient made NaN": spectrum(lambda s: replace(s, coefficients=s.coefficients * np.nan)),
    "made-up standard errors": spectrum(lambda s: replace(s, standard_errors=np.full(len(s), 1e-6))),
    "one term less": spectrum(lambda s: Spectrum(s.n_players, s.supports[:-1], s.coefficients[:-1])),
    "one player more": spectrum(lambda s: replace(s, n_players=s.n_players + 1)),
    "the noise, unseen": how(noise_sigma=float("nan")),
    "penalties": how(penalties=[0.5], method="proxyspex"),
    "fewer blocks cited": fewer_blocks_cited,
    "no blocks cited": how(blocks=[]),
    "the verdict": sql("UPDATE explanations SET verdict = 'unreliable'"),
    "why the verdict": sql("UPDATE explanations SET verdict_reason = 'it predicts everything'"),
    "the target": fields("explanations", "target", lambda t: t.update(label="the name")),
    "the seed": recipe_with_its_digest(seed=5),
    "the masker": recipe_with_its_digest(masker="replace"),
    "the recipe": fields("explanations", "recipe", lambda recipe: recipe.update(budget=1000)),
    "the recipe's digest": sql("UPDATE explanations SET recipe_digest = 'sha256:00'"),
    "the cost": sql("UPDATE explanations SET cost_prompt_tokens = cost_prompt_tokens - 1"),
    "the number of masks": sql("UPDATE explanations SET cost_masks = cost_masks + 1"),
    "a flag added": sql(
        "INSERT INTO flags (project, id, exchange_id, explanation_id, position, flagger, version, name, detail, "
        "raised_at) SELECT project, 'new', exchange_id, id, 7, 'verdict', '', 'injection', 'segment 2', created_at "
        "FROM explanations"
    ),
    "another target": recipe_with_its_digest(target="first_token"),
    "fewer tokens explained": fields("explanations", "target", lambda t: t.update(end=1)),
    # what is searched and shown
    "an interaction's players": sql("UPDATE interactions SET players = '[2]', size = 1 WHERE rank = 0"),
    "an interaction's size": sql("UPDATE interactions SET size = 9 WHERE rank = 0"),
    "interactions swapped": swapped_ranks,
    "an interaction left out": sql("DELETE FROM interactions WHERE rank = 0"),
    "the last interaction left out": sql("DELETE FROM interactions WHERE rank = (SELECT max(rank) FROM interactions)"),
    **{
        f"an interaction's {column}": sql(f"UPDATE interactions SET {column} = coalesce({column}, 0) + 1e-3")
        for column in ("fourier", "banzhaf", "moebius", "standard_error")
    },
    **{
        f"a searched {column}": sql(f"UPDATE explanations SET {column} = 0.9999")
        for column in ("r2", "r2_low", "r2_high", "n_players")
    },
    **{
        f"fidelity: {name}": fields("explanations", "fidelity", lambda f, name=name: f.update({name: f[name] + 0.001}))  # type: ignore[misc]
        for name in _FIDELITY
    },
    **{
        f"fidelity: {name} made NaN": fields("explanations", "fidelity", lambda f, name=name: f.update({name: "nan"}))  # type: ignore[misc]
        for name in _FIDELITY
    },
}
