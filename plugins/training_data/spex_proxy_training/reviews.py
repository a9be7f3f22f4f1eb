"""A small text data set that needs no download: product reviews with a sentiment, written by a seed.

Two opinions a review, both of its sentiment, sometimes turned by a `not`, so that single words do not decide; and
one review in twelve repeats an earlier one word for word, as real data do.
"""

from __future__ import annotations

from spex_proxy.engine.draws import raw_words

THINGS = ("kettle", "lamp", "jacket", "keyboard", "tent", "radio", "chair", "backpack")
PARTS = ("handle", "colour", "battery", "lid", "fabric", "sound", "price", "manual")
GOOD = ("solid", "lovely", "quick", "quiet", "comfortable", "clever", "bright", "reliable")
BAD = ("flimsy", "ugly", "slow", "noisy", "stiff", "confusing", "dull", "broken")
OPENINGS = (
    "Bought this {thing} last month.",
    "My second {thing}.",
    "A {thing} for my sister.",
    "The {thing} came today.",
)
ENDINGS = ("Would buy it again.", "It stays.", "I sent it back.", "Never again.")
STREAM = 110
REPEATED = 12


def write(count: int, seed: int) -> list[tuple[str, str]]:
    """`count` (text, `negative` or `positive`). A longer list begins with the same reviews."""
    words = raw_words(seed, STREAM, 12 * count).reshape(count, 12)
    written: list[tuple[str, str]] = []
    for row in words:
        draws = [int(word >> 33) for word in row]
        if written and draws[10] % REPEATED == 0:
            written.append(written[draws[11] % len(written)])
            continue
        is_good = draws[0] % 2 == 1
        opening = OPENINGS[draws[1] % len(OPENINGS)].format(thing=THINGS[draws[2] % len(THINGS)])
        first, second = opinion(draws[3:6], is_good), opinion(draws[6:9], is_good)
        ending = f" {ENDINGS[(0 if is_good else 2) + draws[9] % 2]}" if draws[9] % 3 == 0 else ""
        written.append((f"{opening} The {first}, and the {second}.{ending}", "positive" if is_good else "negative"))
    return written


def opinion(draws: list[int], is_good: bool) -> str:
    """One part of the thing, praised or not; a third of them by denying the opposite."""
    part, is_denied = PARTS[draws[0] % len(PARTS)], draws[2] % 3 == 0
    adjectives = GOOD if is_good != is_denied else BAD
    return f"{part} is {'not ' if is_denied else ''}{adjectives[draws[1] % len(adjectives)]}"
