"""Does a rule fit? Pure; what may run on the relay's event loop is linear and takes no regular expression."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from spex_proxy.facts.exchange import Exchange, RequestHead
from spex_proxy.facts.rules import Globs, Rule, RuleBook, When
from spex_proxy.wire.asker import tags_of, user_of
from spex_proxy.wire.patterns import SEARCHED_CHARACTERS, expression, fits_glob

SEARCHED_TEXTS = 64
"""The last so many texts of a prompt are searched: the newest, where it is a conversation."""


def may_fit(when: When, head: RequestHead, project: str) -> bool:
    """Whether a rule can still fit, going by the request's head alone."""
    return _fits_place(when, head.path, project) and all(_any(globs, _lines(head, name)) for name, globs in when.header)


def fits(when: When, head: RequestHead, exchange: Exchange) -> bool:
    """Whether a rule fits an exchange. Runs after production was served."""
    return may_fit(when, head, exchange.project) and all(check(when, exchange) for check in _CHECKS)


def rule_for(book: RuleBook, head: RequestHead, exchange: Exchange) -> Rule:
    """The first rule that fits, of those that sample. The last one of a book always does."""
    return next(rule for rule in book.sampling if fits(rule.when, head, exchange))


class HeadView(NamedTuple):
    """What the head says of the rules: those which may decide, the first that surely would last."""

    rules: tuple[Rule, ...]

    @property
    def capture(self) -> float:
        """The highest rate of the rules that may decide: below it, a draw must be watched."""
        return max((rule.capture for rule in self.rules), default=0.0)

    @property
    def exact_token_ids(self) -> bool:
        return any(rule.exact_token_ids for rule in self.rules)


def view(book: RuleBook, head: RequestHead, project: str) -> HeadView:
    """The rules that may decide about a request, of which only the head is known."""
    found: list[Rule] = []
    for rule, knows_head_only in book.by_head:
        if may_fit(rule.when, head, project):
            found.append(rule)
            if knows_head_only:
                break  # it fits: no later rule decides
    return HeadView(tuple(found))


def rate_by_path(book: RuleBook, path: str, project: str) -> float | None:
    """`view(...).capture` of every request of this path; None if that depends on its header lines."""
    rate = 0.0
    for rule, knows_head_only in book.by_head:
        when = rule.when
        if when.header:
            return None
        if _fits_place(when, path, project):
            rate = max(rate, rule.capture)
            if knows_head_only:
                break
    return rate


# ------------------------------------------------------------------------------------- body and answer


def _any(globs: Globs, values: Iterable[str]) -> bool:
    return not globs or any(fits_glob(glob, value) for value in values for glob in globs)


def _fits_place(when: When, path: str, project: str) -> bool:
    return _any(when.path, (path,)) and _any(when.project, (project,))


def _lines(head: RequestHead, name: str) -> Iterator[str]:
    wanted = name.encode("latin-1", "replace")
    return (value.decode("latin-1") for key, value in head.headers if key.lower() == wanted)


def _found(pattern: str | None, texts: Sequence[str]) -> bool:
    if pattern is None:
        return True
    search: Callable[[str], Any] = expression(pattern).search
    return any(search(text[:SEARCHED_CHARACTERS]) is not None for text in texts[-SEARCHED_TEXTS:])


def _tags_fit(when: When, exchange: Exchange) -> bool:
    tags = tags_of(exchange.request)
    return all(isinstance(tags.get(key), str) and _any(globs, (tags[key],)) for key, globs in when.tag)


def mean_logprob(exchange: Exchange) -> float | None:
    """Of all tokens of all choices, if the answer carries log-probabilities."""
    values = [value for choice in exchange.choices for _, value in choice.logprobs or ()]
    return math.fsum(values) / len(values) if values else None


def _logprob_fits(when: When, exchange: Exchange) -> bool:
    if when.mean_logprob is None:
        return True
    mean = mean_logprob(exchange)
    return mean is not None and mean in when.mean_logprob


def _outputs(exchange: Exchange) -> tuple[str, ...]:
    return tuple(choice.text for choice in exchange.choices) or (exchange.output_text,)


_CHECKS: tuple[Callable[[When, Exchange], bool], ...] = (  # the cheap ones first
    lambda when, seen: _any(when.model, (seen.model,)),
    lambda when, seen: _any(when.user, filter(None, (user_of(seen.request),))),
    _tags_fit,
    lambda when, seen: _any(when.tool, (m.name or "" for m in seen.messages if m.kind == "tool_definition")),
    lambda when, seen: _any(
        when.finish_reason, {*(choice.finish_reason or "" for choice in seen.choices), seen.finish_reason or ""}
    ),
    lambda when, seen: when.input_chars is None or sum(len(m.text) for m in seen.messages) in when.input_chars,
    lambda when, seen: when.output_chars is None or sum(map(len, _outputs(seen))) in when.output_chars,
    _logprob_fits,
    lambda when, seen: _found(when.output, _outputs(seen)),
    lambda when, seen: _found(when.input, [m.text for m in seen.messages]),
)
