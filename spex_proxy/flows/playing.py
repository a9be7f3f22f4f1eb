"""A game that is no production request: opened from its configuration, played where this process runs.

Its plugin stands where the model server stands for a request: it is asked coalitions, and answers readings.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spex_proxy.facts.errors import CannotExplain, PluginError, SpexError
from spex_proxy.facts.evidence import Masks, Probe, Reading
from spex_proxy.facts.exchange import Exchange
from spex_proxy.facts.game import Scorer as ScorerFacts
from spex_proxy.facts.seals import salted_seal
from spex_proxy.flows.asking import open_ask
from spex_proxy.flows.table import Parts
from spex_proxy.flows.written_game import coalitions, differences
from spex_proxy.plug.kinds import Measured, OpenGame, Recorded, Rules
from spex_proxy.ports.gate.rules import Manner
from spex_proxy.ports.scorers import Scored

LONGEST_GROUP = 60
MOST_FAILURES = 2
"""Tries of one coalition."""


async def open_game(maker: str, config: Mapping[str, Any], parts: Parts, *, project: str, key: str) -> OpenGame:
    """Load a game, in a thread: it may take minutes. `key` chooses the replica of the model server, if it is asked.

    Raises CannotExplain where the configuration makes no sense or a package is missing, PluginError for a game that
    breaks its contract.
    """
    plugin = parts.plugins.game(maker)
    ask = await open_ask(config, parts, project=project, key=key) if plugin.needs_server else None
    try:
        game = await asyncio.to_thread(plugin.open, config, ask)
    except SpexError:
        raise
    except ModuleNotFoundError as error:
        raise CannotExplain(
            f"the game {maker!r} needs the Python package {error.name!r}, which is not installed where this runs; "
            "`pip install 'spex-proxy[components,training]'` brings what the built-in games need"
        ) from error
    except (ValueError, FileNotFoundError) as error:
        raise CannotExplain(f"the game {maker!r} can't be played so: {error}") from error
    except Exception as error:
        raise PluginError(f"the game {maker!r} failed to open with a {type(error).__name__}") from error
    try:
        check_rules(maker, game.rules)
    except PluginError:
        game.close()
        raise
    return game


def check_rules(maker: str, rules: Rules) -> None:
    """Raises PluginError for rules that break the contract of kinds.py."""
    texts = [player.text for player in rules.players]
    wrong = {
        "it has no players": not texts,
        "a player has no text": not all(texts),
        f"a player's group is longer than {LONGEST_GROUP} characters": any(
            len(player.group) > LONGEST_GROUP for player in rules.players
        ),
        "it measures nothing": not rules.items,
        "the name of an item is empty or has a line break in it": not all(
            item and "\n" not in item for item in rules.items
        ),
        "its batch is smaller than 1": rules.batch < 1,
        "it has no digest": not rules.digest,
    }
    for what, is_so in wrong.items():
        if is_so:
            raise PluginError(f"the game {maker!r} broke its contract: {what}")


class GameScorer:
    """Asks an open game what a scorer asks a model server. Closes it in the end."""

    max_tokens: int | None = None
    manner: Manner = "elsewhere"
    reads = 0  # of the model server: what a game asks it, the game counts

    def __init__(self, maker: str, provenance: str, game: OpenGame, salt: bytes) -> None:
        rules = game.rules
        sealed = salted_seal(salt, rules.digest.encode())
        self.facts = ScorerFacts(f"game {maker}", rules.subject, f"{provenance}, {sealed}")
        self.batch_size = rules.batch
        self._maker, self._game = maker, game
        self._playing = threading.Lock()
        """A job that is cancelled leaves its thread measuring: the game is closed once that is done."""
        self._failed: dict[bytes, int] = {}
        self.recorded: Masks | None = game.recorded() if isinstance(game, Recorded) else None
        """Shape (m, n). The only coalitions that it can answer; None: any."""

    async def score(
        self,
        probes: Sequence[Probe],
        headers: Mapping[str, str],  # noqa: ARG002 - a game knows no traces
        into: Scored | None = None,
    ) -> Scored:
        """Raises CannotExplain for a coalition that failed twice, PluginError for a game that breaks its contract."""
        masks = coalitions(probes, len(self._game.rules.players))
        started = time.perf_counter()
        measured = await asyncio.to_thread(self._measure, masks)
        scored = Scored.of(probes) if into is None else into
        scored.seconds += time.perf_counter() - started
        scored.prompt_tokens += measured.prompt_tokens
        scored.cached_tokens += measured.cached_tokens
        for row, reading in enumerate(measured.readings):
            is_lost = row in measured.failures
            scored.tell(row, None if is_lost else Reading(np.asarray(reading, dtype=np.float32)), 0, 0)
        self._note_failures(masks, measured)
        return scored

    def close(self) -> None:
        with self._playing:
            self._game.close()

    def _measure(self, masks: Masks) -> Measured:
        try:
            with self._playing:
                measured = self._game.measure(masks)
        except SpexError:
            raise
        except Exception as error:
            raise PluginError(f"the game {self._maker!r} failed with a {type(error).__name__}") from error
        expected = len(masks), len(self._game.rules.items)
        if measured.readings.shape != expected or not measured.failures.keys() <= set(range(len(masks))):
            raise PluginError(f"the game {self._maker!r} broke its contract: readings of shape {expected} were due")
        infinite: list[int] = np.flatnonzero(~np.isfinite(measured.readings).all(axis=1)).tolist()
        lost = dict.fromkeys(infinite, "a value that is no finite number")
        return Measured(
            measured.readings, {**lost, **measured.failures}, measured.prompt_tokens, measured.cached_tokens
        )

    def _note_failures(self, masks: Masks, measured: Measured) -> None:
        for row, why in sorted(measured.failures.items()):
            key = masks[row].tobytes()
            self._failed[key] = self._failed.get(key, 0) + 1
            if self._failed[key] >= MOST_FAILURES or len(measured.failures) == len(masks):
                raise CannotExplain(
                    f"the coalition that keeps {int(masks[row].sum())} of {masks.shape[1]} players can't be measured: "
                    f"{why}. What was measured before is stored."
                )


async def scorer_of(exchange: Exchange, parts: Parts, salt: bytes) -> tuple[GameScorer, Rules]:
    """The scorer of a stored game, opened anew. Raises CannotExplain if it is not the same game any more."""
    maker, config = str(exchange.request["game"]), exchange.request["config"]
    game = await open_game(maker, config, parts, project=exchange.project, key=exchange.id)
    changed = differences(exchange, game.rules)
    if changed:
        game.close()
        raise CannotExplain(
            f"this game is not what it was when it was stored: {' and '.join(changed)} changed. "
            "Start it anew with `spex-proxy game run`; what was measured of the old one stays as it is."
        )
    return GameScorer(maker, parts.plugins.get("game", maker).provenance, game, salt), game.rules
