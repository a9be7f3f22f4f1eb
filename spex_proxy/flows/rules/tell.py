"""A rule in plain words, for `rules check`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.rules import Action, Globs, Range, Rule, RuleBook, When
from spex_proxy.facts.token_budget import WINDOWS


def tell(book: RuleBook) -> Iterator[str]:
    """One paragraph for each rule, in the order in which they are tried."""
    base = book.rules[-1].recipe
    for number, rule in enumerate(book.rules, 1):
        yield "\n".join((f"{number}. {rule.name}", *(f"   {line}" for line in _lines(rule, base))))


def never_reached(book: RuleBook) -> tuple[str, ...]:
    """Names of rules behind one that fits every request."""
    everything = next(n for n, rule in enumerate(book.sampling) if rule.when == When())
    return tuple(rule.name for rule in book.sampling[everything + 1 : -1])


def _lines(rule: Rule, base: Recipe) -> Iterator[str]:
    conditions = list(_conditions(rule.when))
    yield "fits " + ("every exchange" if not conditions else " and ".join(conditions))
    if rule.action is not None:
        yield from _acts(rule, rule.action)
        return
    yield f"captures {rule.capture:.4g} of them" + _watched(rule)
    caps = [
        f"{most} a {unit}" for unit, most in (("minute", rule.per_minute), ("day", rule.per_day)) if most is not None
    ]
    yield f"explains {rule.explain:.4g} of the captured" + (f", at most {' and '.join(caps)}" if caps else "")
    tokens = [f"{most:,} a {window}" for window in WINDOWS if (most := getattr(rule.budget, window)) is not None]
    if tokens:
        yield f"explaining them may cost at most {' and '.join(tokens)} prompt tokens"
    yield f"with priority {rule.priority}" + (", exact token ids" if rule.exact_token_ids else "")
    changes = {
        field.name: getattr(rule.recipe, field.name)
        for field in dataclasses.fields(Recipe)
        if getattr(rule.recipe, field.name) != getattr(base, field.name)
    }
    if changes:
        yield "recipe: " + ", ".join(f"{name} {value}" for name, value in changes.items())


def _acts(rule: Rule, action: Action) -> Iterator[str]:
    does = {
        "explains it": action.explain,
        f"puts it into the queue {action.queue}": action.queue is not None,
        f"keeps it for {action.keep_days} days": action.keep_days is not None,
        f"tells {action.webhook}": action.webhook is not None,
    }
    yield (f"acts upon {rule.rate:.4g} of them: " if rule.rate < 1 else "") + ", ".join(
        w for w, is_so in does.items() if is_so
    )
    if not rule.when.flag:
        yield "once, when an exchange is stored"


def _watched(rule: Rule) -> str:
    if rule.capture in (0.0, 1.0) or rule.when.knows_head_only:
        return ""
    return " (every request that may turn out to be one is read first)"


def _conditions(when: When) -> Iterator[str]:
    for name in ("path", "project", "model", "user", "tool", "finish_reason", "flag"):
        globs: Globs = getattr(when, name)
        if globs:
            yield f"{name.replace('_', ' ')} {_or(globs)}"
    yield from (f"header {name}: {_or(globs)}" for name, globs in when.header)
    yield from (f"tag {key}: {_or(globs)}" for key, globs in when.tag)
    for name in ("input", "output"):
        pattern: str | None = getattr(when, name)
        if pattern is not None:
            yield f"{name} has /{pattern}/"
    for name in ("input_chars", "output_chars", "mean_logprob"):
        span: Range | None = getattr(when, name)
        if span is not None:
            yield f"{name.replace('_', ' ')} {_span(span)}"


def _or(globs: Globs) -> str:
    return " or ".join(globs)


def _span(span: Range) -> str:
    bounds = (("at least", span.at_least), ("at most", span.at_most))
    return " and ".join(f"{word} {value:g}" for word, value in bounds if value is not None) or "known"
