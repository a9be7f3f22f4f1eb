"""Sampling rules: which exchanges are captured, which of them are explained, how, and how often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.token_budget import TokenBudget

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
    flag: Globs = ()
    """Name of a flag that was raised. Only for rules that act."""
    # known from the answer
    output: str | None = None
    """A regular expression (RE2) that is found in the answer's text."""
    output_chars: Range | None = None
    finish_reason: Globs = ()
    mean_logprob: Range | None = None
    """Mean log-probability of the answer's tokens, natural logarithm; never fits an answer that has none."""

    @property
    def knows_head_only(self) -> bool:
        """Whether the request's head alone tells if a rule fits."""
        return When(path=self.path, header=self.header, project=self.project) == self


@dataclass(frozen=True, slots=True)
class Watch:
    """A flagger at work: what it is given to look at, and what its flag is called."""

    name: str
    """Of the flag."""
    flagger: str
    """Name of the plugin."""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Action:
    """What a rule does about an exchange that it fits."""

    explain: bool = False
    """Explain it, unless that has been asked already with the same recipe."""
    queue: str | None = None
    """Put it into this queue for review."""
    keep_days: int | None = None
    """Keep it for so many days from its arrival, whatever retention says."""
    webhook: str | None = None
    """Tell this address."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Without an action it samples: the first rule that fits an exchange decides whether it is captured and explained.
    With one, it acts upon what was captured, and every rule that fits acts."""

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
    tokens_per_minute: int | None = None
    """Most prompt tokens that the model server may compute for its exchanges in any minute; None is no limit."""
    tokens_per_hour: int | None = None
    tokens_per_day: int | None = None
    exact_token_ids: bool = False
    """Have the answer carry token ids, and take them out before the client sees it (wire/exact_ids.py)."""
    rate: float = 1.0
    """Probability that it acts upon an exchange that it fits, drawn once for each."""
    action: Action | None = None

    @property
    def budget(self) -> TokenBudget:
        """Of the exchanges that it decided about, whoever asks for their explanations."""
        return TokenBudget(self.tokens_per_minute, self.tokens_per_hour, self.tokens_per_day)


USUAL_WATCHES = tuple(Watch(name, name) for name in ("refusal", "low_confidence", "untrusted", "dominant", "overruled"))
"""What is looked for where a rules file names no flaggers."""


@dataclass(frozen=True, slots=True)
class RuleBook:
    """One version of all rules. The last one fits everything, so that every exchange has its rule."""

    digest: str
    """Of the file's bytes and of the settings that it builds upon."""
    rules: tuple[Rule, ...]
    text: str = ""
    """The file as it was read; empty if there is none."""
    watches: tuple[Watch, ...] = USUAL_WATCHES
    by_head: tuple[tuple[Rule, bool], ...] = field(init=False, repr=False, compare=False)
    """The rules that sample, each with `knows_head_only`: asked for every request, so it is found out once."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_head", tuple([(rule, rule.when.knows_head_only) for rule in self.sampling]))

    @property
    def sampling(self) -> tuple[Rule, ...]:
        """Those of which the first that fits decides."""
        return tuple(rule for rule in self.rules if rule.action is None)

    @property
    def acting(self) -> tuple[Rule, ...]:
        return tuple(rule for rule in self.rules if rule.action is not None)

    def named(self, name: str) -> Rule | None:
        return next((rule for rule in self.rules if rule.name == name), None)
