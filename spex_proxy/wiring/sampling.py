"""Settings -> the sampling rules: what `serve` samples by, and what `rules check` looks at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from spex_proxy.engine.decide import METHODS
from spex_proxy.facts.errors import SettingsError
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.rules import DEFAULT_RULE, Rule, RuleBook, Watch, When
from spex_proxy.flows.acting import Orders
from spex_proxy.flows.relay import Callers
from spex_proxy.flows.rules.read import CheckRecipe, CheckWatch, load_rules, make_book
from spex_proxy.plug import answers
from spex_proxy.plug.load import Plugins
from spex_proxy.ports.counters import Counters
from spex_proxy.settings import Settings
from spex_proxy.wiring.shared import make_recipe

_LOOPBACK = ("127.", "::1", "localhost", "unix:")


def default_rule(settings: Settings) -> Rule:
    """What the settings say, as the rule behind all others."""
    return Rule(
        name=DEFAULT_RULE,
        when=When(),
        capture=settings.capture_rate,
        explain=settings.explain_rate,
        recipe=make_recipe(settings),
    )


def load_book(settings: Settings, path: Path | None) -> RuleBook:
    """The rules of a file, or those of the settings alone. Raises SettingsError."""
    otherwise = default_rule(settings)
    if path is None:
        return make_book((), otherwise)
    book = load_rules(path, otherwise, recipe_check(), watch_check())
    telling = [rule.name for rule in book.acting if rule.action and rule.action.webhook]
    if telling and settings.webhook_secret is None:
        raise SettingsError(f"{path}: rule {telling[0]!r} has a webhook, so SPEX_WEBHOOK_SECRET must hold a secret")
    return book


def watch_check() -> CheckWatch:
    """Refuses flaggers that are not there, and options that they do not understand."""
    plugins = Plugins()

    def check(watch: Watch) -> None:
        answers.check_options(plugins.flagger(watch.flagger), watch.flagger, watch.options)

    return check


def recipe_check() -> CheckRecipe:
    """Refuses methods and plugins that are not there."""
    plugins = Plugins()

    def check(recipe: Recipe) -> None:
        if recipe.method not in METHODS:
            raise SettingsError(f"method {recipe.method!r} is unknown; there is {', '.join(METHODS)}")
        for kind, name in (("segmenter", recipe.segmenter), ("masker", recipe.masker), ("value", recipe.value)):
            plugins.get(kind, name)
        if recipe.finer:
            plugins.get("segmenter", recipe.finer)

    return check


def make_orders(settings: Settings, book: Callable[[], RuleBook], plugins: Plugins, counters: Counters) -> Orders:
    return Orders(book, plugins, counters, settings.draw_secret.get_secret_value().encode())


def callers(settings: Settings) -> Callers:
    """Who may use `x-spex-explain`. Raises SettingsError for a choice that can't work."""
    key = settings.explain_key.get_secret_value().encode() if settings.explain_key else None
    who = settings.explain_callers
    if who == "key" and not key:
        raise SettingsError("explain_callers (SPEX_EXPLAIN_CALLERS) is key, so SPEX_EXPLAIN_KEY must hold the key")
    if who == "anyone" or (who == "local" and settings.host.startswith(_LOOPBACK)):
        return Callers(everybody=True)
    return Callers(key=None if who == "nobody" else key)
