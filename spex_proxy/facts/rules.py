"""Sampling rules: which exchanges are captured, which of them are explained, how, and how often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spex_proxy.facts.recipe import Recipe

Globs = tuple[str, ...]
"""Patterns of which one must fit: `*` stands for any characters, everything else for itself."""
Window = Literal["minute", "day"]

DEFAULT_RULE = "default"
"""The rule of the settings, behind all others: it fits everything."""


@dataclass(frozen=True, slots=True)
class Range:
    """A number is in it if it is at least the one and at most the other; None is no bound."""

    at_least: float | None = None
    at_most: float | None = None

    def __contains__(self, value: float) -> bool:
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


@dataclass(frozen=True, slots=True)
class When:
    """What an exchange must be for a rule to fit: all of what is said here. Empty says nothing."""

    # known from the request's head
    path: Globs = ()
    header: tuple[tuple[str, Globs], ...] = ()
    """(Name in lower case, patterns for its value): any of its lines."""
    project: Globs = ()
    # known from the request's body
    model: Globs = ()
    user: Globs = ()
    tag: tuple[tuple[str, Globs], ...] = ()
    """(Key of the request's `metadata`, patterns for its value)."""
    tool: Globs = ()
    """Name of a tool that the request defines."""
    input: str | None = None
    """A regular expression (RE2) that is found in one of the prompt's texts."""
    input_chars: Range | None = None
    # known from the answer
    output: str | None = None
    """A regular expression (RE2) that is found in the answer's text."""
    output_chars: Range | None = None
    finish_reason: Globs = ()
    mean_logprob: Range | None = None
    """Mean log-probability of the answer's tokens, natural logarithm; never fits an answer that has none."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The first rule that fits an exchange decides about it."""

    name: str
    when: When
    capture: float
    """Probability that an exchange of this rule is captured."""
    explain: float
    """Probability that a captured one is explained."""
    recipe: Recipe
    priority: int = 3
    """Of its jobs, 1 is the most urgent; 1 is what people ask for."""
    per_minute: int | None = None
    """Most jobs that begin in one minute of the clock, of all processes together."""
    per_day: int | None = None
    """The same for one day, in UTC."""
    exact_token_ids: bool = False
    """Have the answer carry token ids, and take them out before the client sees it (wire/exact_ids.py)."""


@dataclass(frozen=True, slots=True)
class RuleBook:
    """One version of all rules. The last one fits everything, so that every exchange has its rule."""

    digest: str
    """Of the file's bytes and of the settings that it builds upon."""
    rules: tuple[Rule, ...]
    text: str = ""
    """The file as it was read; empty if there is none."""

    def named(self, name: str) -> Rule | None:
        return next((rule for rule in self.rules if rule.name == name), None)
