"""Numbers as people read them, and what they mean in plain language. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from spex_proxy.engine.hierarchy import Hierarchy
from spex_proxy.facts.explanation import Fidelity
from spex_proxy.facts.game import MEASURES, Game

UNITS = {"sum_logprob": "nats"}
"""Unit of each value that we know; others have none."""


def unit_of(game: Game) -> str:
    """Of a game's values; empty where it is not known."""
    return "tokens" if game.scorer.name in MEASURES and game.value in UNITS else UNITS.get(game.value, "")


def measured(game: Game) -> str:
    """What a value is, in words that go on with a unit in brackets or behind `in`."""
    return MEASURES.get(game.scorer.name, "log-probability of the answer")


MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True, slots=True)
class Terms:
    """What things are called, in an explanation of a request and in one of a game."""

    title: str
    player: str
    players: str
    where: str
    """What players are parts of."""
    subject: str
    """What is explained."""
    full: str
    """The coalition with everybody in it."""
    raises: str
    lowers: str
    source: str
    """Who was asked."""


REQUEST = Terms(
    "Why this answer?", "segment", "segments", "prompt", "the answer", "full prompt",
    "makes the answer likelier", "less likely", "the model server",
)  # fmt: skip
GAME = Terms(
    "What makes this value?", "player", "players", "game", "the value", "full coalition",
    "raises the value", "lowers it", "the game",
)  # fmt: skip

STATE_WORDS = {
    "captured": "not explained",
    "queued": "waiting",
    "running": "explaining",
    "paused": "paused",
    "done": "done",
    "failed": "failed",
    "cancelled": "cancelled",
    "reliable": "reliable",
    "unreliable": "not reliable",
    "nothing_to_explain": "nothing to explain",
}


def signed(value: float, digits: int = 2) -> str:
    """+1.23, −0.40, 0.00: with a real minus, and no sign where nothing is left after rounding."""
    if not math.isfinite(value):
        return "unknown"
    text = f"{abs(value):,.{digits}f}"
    if not any(character in text for character in "123456789"):
        return text
    return ("+" if value > 0 else MINUS) + text


def decimal(value: float, digits: int = 2) -> str:
    """1.23, −0.40."""
    return signed(value, digits).removeprefix("+")


def digits_for(largest: float) -> int:
    """Decimals that show effects of this size: 2, or more where all are small."""
    if not math.isfinite(largest) or largest <= 0:
        return 2
    return min(6, max(2, 1 - math.floor(math.log10(largest))))


def factor(nats: float) -> str:
    """What a difference of log-probabilities does to a probability: `about 12 times likelier`."""
    if not math.isfinite(nats):
        return ""
    size = abs(nats)
    if size < math.log(1.05):
        return "about as likely as before"
    direction = "likelier" if nats > 0 else "less likely"
    if size > math.log(1e6):
        return f"over a million times {direction}"
    times = math.exp(size)
    shown = f"{times:.1f}" if times < 10 else f"{float(f'{times:.2g}'):,.0f}"
    return f"about {shown} times {direction}"


def effect_reading(effect: float, unit: str, is_likelihood: bool = True) -> str:
    """One player's effect in a sentence. `is_likelihood`: nats are those of an answer."""
    if unit == "nats" and is_likelihood:
        return f"Keeping it makes this answer {factor(effect)}, averaged over what else is kept."
    if abs(effect) == 0:
        return "Keeping it changes nothing on average."
    return f"Keeping it {'raises' if effect > 0 else 'lowers'} the value, averaged over what else is kept."


def together_reading(effect: float, order: int) -> str:
    """A group's effect, short: whether the value with all of them is above or below the sum of their parts.

    No more can be said of its sign alone: 'less' is overlap where the parts raise the value, and joint force where
    they lower it.
    """
    return ("more" if effect > 0 else "less") + (" than one by one" if order == 2 else " than their smaller groups")


def together_sentence(
    effect: float, numbers: tuple[int, ...], unit: str, digits: int, subject: str = "the answer"
) -> str:
    """A group's effect in a sentence."""
    size = f"{abs(effect):,.{digits}f}{' ' + unit if unit else ''}"
    if len(numbers) == 2:
        first, second = numbers
        if effect > 0:
            return f"With both kept, {subject} gains {size} more than {first} and {second} bring one by one."
        return (
            f"With both kept, {subject} gains {size} less than {first} and {second} bring one by one: "
            "one does part of what the other does, or undoes it."
        )
    group = ", ".join(str(number) for number in numbers[:-1]) + f" and {numbers[-1]}"
    more = "more" if effect > 0 else "less"
    return f"All of {group} together bring {size} {more} than their smaller groups account for."


def hierarchy_reading(found: Hierarchy, players: str = "segments") -> str:
    """Do the interactions stand on their parts? In a sentence without its full stop."""
    if not found.interactions:
        return f"{players} act one by one: no interaction is among the strongest terms"
    if found.interactions == 1:
        return "the one strong interaction " + ("stands on its parts" if found.standing else "is more than its parts")
    return f"{100 * found.standing:.0f}% of the {found.interactions} strongest interactions stand on their parts"


def hierarchy_rates(found: Hierarchy) -> str:
    """The three rates of the papers, over the strongest terms."""
    return f"DSR {found.direct_subset_rate:.2f}, SCR {found.strong_chain_rate:.2f}, SHR {found.subset_rate:.2f}"


def r2_reading(fidelity: Fidelity, method: str) -> str:
    """R2 with its interval and the noise ceiling; where every mask was measured, nothing is estimated."""
    r2, ceiling = decimal(fidelity.r2, 3), f"noise ceiling {decimal(fidelity.noise_ceiling, 4)}"
    if method == "exact":
        return f"R² {r2} expected of a second measurement, {ceiling}"
    low, high = decimal(fidelity.r2_low, 3), decimal(fidelity.r2_high, 3)
    return f"R² {r2} on masks that were not fitted, 95% interval {low} to {high}, {ceiling}"


def near_reading(near: Mapping[str, Any], unit: str, full: str = "full prompt") -> str:
    """How well masks near the full one are predicted (engine/near.py), in a sentence without its full stop.

    Empty where every mask was measured, and nothing is left to predict.
    """
    if near["judged"] == "repeated":
        return ""
    digits = digits_for(max(near["rmse"], near["typical"]))
    named = f" {unit}" if unit else ""
    return (
        f"near the {full}, with little removed, it is off by {decimal(near['rmse'], digits)}{named} "
        f"where the value changes by {decimal(near['typical'], digits)}: R² {decimal(near['r2'], 3)} "
        f"({near['masks']:,} {'mask' if near['masks'] == 1 else 'masks'})"
    )


def moment(at: datetime) -> str:
    """2026-11-22 17:00:09 UTC."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def seconds(value: float) -> str:
    """0.35 s, 47 s, 3 min 20 s."""
    if value < 10:
        return f"{value:.2f} s"
    if value < 120:
        return f"{value:.0f} s"
    return f"{value // 60:.0f} min {value % 60:.0f} s"


def sentence(text: str) -> str:
    """Text with a capital at the beginning; the rest stays as it is."""
    return text[:1].upper() + text[1:]
