"""A rules file (YAML) -> a RuleBook, or every problem in it with its line and column (nodes.py)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from spex_proxy.facts.aim import read_aim
from spex_proxy.facts.errors import SettingsError, SpexError
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.rules import DEFAULT_RULE, USUAL_WATCHES, Action, Globs, Rule, RuleBook, Watch, When
from spex_proxy.facts.seals import canonical_json, seal
from spex_proxy.facts.token_budget import WINDOWS
from spex_proxy.flows.rules.nodes import Alias, Bad, Nodes, error_of, listed, root_of
from spex_proxy.wire.chat import KINDS

MOST_BYTES = 256 * 1024
MOST_RULES = 100
PRIORITIES = {"asked": 1, "flagged": 2, "sampled": 3}
_RECIPE_TEXTS = ("segmenter", "masker", "value", "method", "design", "finer")
_RECIPE_COUNTS = {"budget": 8, "seed": 0, "replicates": 1, "max_scored_tokens": 1}
"""Field of a recipe -> its smallest value."""

CheckRecipe = Callable[[Recipe], None]
"""Raises SpexError (a plugin that is not there, an unknown method) in words for the person who wrote the rule."""

CheckWatch = Callable[[Watch], None]
"""Raises SpexError or ValueError for a flagger that is not there, or options that it does not understand."""
MOST_WATCHES = 50
LONGEST_KEPT_DAYS = 36_500


def _anything(_watch: Watch) -> None:
    """Whoever reads a file for its rules alone need not have the plugins."""


def read_rules(text: str, where: str, otherwise: Rule, check: CheckRecipe, look: CheckWatch = _anything) -> RuleBook:
    """The rules of a file, and `otherwise` behind them: what the settings say.

    `where` names the file in messages. Raises SettingsError that lists every problem as `file:line:column`.
    """
    reader = _Reader(otherwise, check, look)
    try:
        rules, watches = reader.book(root_of(text))
    except Alias as alias:
        raise error_of(where, [(alias.mark, "aliases (*name) are not read; write it out")]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(part for part in (error.context, error.problem) if part)
        raise error_of(where, [(mark, said or "this is not YAML")]) from None
    except yaml.YAMLError as error:
        raise error_of(where, [(None, f"this is not YAML: {error}")]) from None
    except RecursionError:
        raise error_of(where, [(None, "it is nested too deep")]) from None
    if reader.problems:
        raise error_of(where, reader.problems)
    return make_book(rules, otherwise, text, watches)


def make_book(
    rules: Sequence[Rule], otherwise: Rule, text: str = "", watches: Sequence[Watch] = USUAL_WATCHES
) -> RuleBook:
    """Rules and what holds where none fits. The digest covers both: either can change what is sampled."""
    base = canonical_json(dataclasses.asdict(otherwise))
    return RuleBook(seal(text.encode(), base), (*rules, otherwise), text, tuple(watches))


def load_rules(path: Path, otherwise: Rule, check: CheckRecipe, look: CheckWatch = _anything) -> RuleBook:
    """Raises SettingsError, also for a file that can't be read."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise SettingsError(f"the rules file {path} can't be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"the rules file {path} is not UTF-8 (byte {error.start})") from None
    if len(data) > MOST_BYTES:
        raise SettingsError(f"the rules file {path} is longer than {MOST_BYTES} bytes")
    return read_rules(text, str(path), otherwise, check, look)


class _Reader(Nodes):
    """The fields of a rules file."""

    def __init__(self, otherwise: Rule, check: CheckRecipe, look: CheckWatch) -> None:
        super().__init__()
        self._otherwise = otherwise
        self._check = check
        self._look = look
        self._names: set[str] = set()

    def book(self, node: yaml.Node | None) -> tuple[tuple[Rule, ...], tuple[Watch, ...]]:
        if node is None:
            return (), USUAL_WATCHES
        known = {
            "rules": lambda inner: self.items(inner, self.rule),
            "flaggers": lambda inner: self.items(inner, self.watch),
        }
        try:
            fields = self.fields(node, "the file", known)
        except Bad:
            return (), USUAL_WATCHES
        rules: tuple[Rule, ...] = fields.get("rules", ())
        if len(rules) > MOST_RULES:
            self.bad(node, f"there are {len(rules)} rules; at most {MOST_RULES} are looked through for each request")
        watches: tuple[Watch, ...] = fields.get("flaggers", USUAL_WATCHES)
        if len(watches) > MOST_WATCHES:
            self.bad(node, f"there are {len(watches)} flaggers; at most {MOST_WATCHES} look at each exchange")
        return rules, watches

    # ---- flaggers ----

    def watch(self, node: yaml.Node) -> Watch:
        fields = self.fields(node, "a flagger", {"flagger": self.text, "flag": self.text, "options": self.options})
        if "flagger" not in fields:
            raise self.bad(node, "a flagger's name is needed: `flagger: regex`")
        watch = Watch(fields.get("flag", fields["flagger"]), fields["flagger"], fields.get("options", {}))
        try:
            self._look(watch)
        except (SpexError, ValueError) as error:
            raise self.bad(node, f"{watch.flagger}: {error}") from None
        return watch

    def options(self, node: yaml.Node) -> dict[str, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise self.bad(node, "must be a mapping of options to values")
        return {key.value: self.plain(value) for key, value in self.pairs(node)}

    # ---- rules ----

    def rule(self, node: yaml.Node) -> Rule:
        fields = self.fields(
            node,
            "a rule",
            {
                "name": self.text,
                "when": self.when,
                "capture": self.share,
                "explain": self.share,
                "per_minute": self.count,
                "per_day": self.count,
                **{f"tokens_per_{window}": partial(self.count, least=1) for window in WINDOWS},
                "priority": self.priority,
                "exact_token_ids": self.truth,
                "recipe": self.recipe,
                "rate": self.share,
                "do": self.action,
            },
        )
        if "name" not in fields:
            raise self.bad(node, "a rule needs a name: it is stored with every exchange that it decides about")
        if fields["name"] == DEFAULT_RULE or fields["name"] in self._names:
            raise self.bad(node, f"there is another rule named {fields['name']!r}")
        self._names.add(fields["name"])
        return self._whole_rule(node, {"when": When(), **fields})

    def _whole_rule(self, node: yaml.Node, fields: dict[str, Any]) -> Rule:
        """Of one kind or the other: what samples can't act, what acts does not sample."""
        action = fields.pop("do", None)
        if action is None and any(key.value == "do" for key, _ in getattr(node, "value", ())):
            raise Bad  # what is wrong with it is noted
        if action is None:
            if fields["when"].flag or "rate" in fields:
                raise self.bad(node, "`flag` and `rate` are for rules that act: say what, with `do`")
            return dataclasses.replace(self._otherwise, **fields)
        budgets = [f"tokens_per_{window}" for window in WINDOWS]
        strange = [name for name in ("capture", "explain", "exact_token_ids", *budgets) if name in fields]
        if strange:
            raise self.bad(node, f"a rule that acts does not sample: {strange[0]!r} belongs into a rule without `do`")
        acting = {"capture": 0.0, "explain": 0.0, "priority": PRIORITIES["flagged"], "action": action, **fields}
        return dataclasses.replace(self._otherwise, **acting)

    def action(self, node: yaml.Node) -> Action:
        known: dict[str, Callable[[yaml.Node], Any]] = {
            "explain": self.truth,
            "review": self.text,
            "keep_days": partial(self.count, least=1),
            "webhook": self.url,
        }
        before = len(self.problems)
        fields = self.fields(node, "do", known)
        if len(self.problems) > before:
            raise Bad
        if "review" in fields:
            fields["queue"] = fields.pop("review")
        if fields.get("keep_days", 1) > LONGEST_KEPT_DAYS:
            raise self.bad(node, f"keep_days is at most {LONGEST_KEPT_DAYS}")
        action = Action(**fields)
        if action == Action():
            raise self.bad(node, f"there is nothing to do; there is {listed(known)}")
        return action

    def url(self, node: yaml.Node) -> str:
        url = self.text(node)
        if not _is_url(url):
            raise self.bad(node, "must be an address that begins with http:// or https://, without a user's name")
        return url

    def priority(self, node: yaml.Node) -> int:
        kind, value = self.scalar(node, "a priority")
        if value in PRIORITIES:
            return PRIORITIES[value]
        if kind != "int":
            raise self.bad(node, f"must be {listed(PRIORITIES)} or a whole number from 1 (most urgent), not {value!r}")
        return self.count(node, 1)

    def when(self, node: yaml.Node) -> When:
        return When(
            **self.fields(
                node,
                "when",
                {
                    "path": self.path,
                    "header": self.header,
                    "project": self.globs,
                    "model": self.globs,
                    "user": self.globs,
                    "tag": self.named_globs,
                    "tool": self.globs,
                    "input": self.regex,
                    "input_chars": self.range,
                    "output": self.regex,
                    "output_chars": self.range,
                    "finish_reason": self.globs,
                    "mean_logprob": self.range,
                    "flag": self.globs,
                },
            )
        )

    def header(self, node: yaml.Node) -> tuple[tuple[str, Globs], ...]:
        return tuple((name.lower(), globs) for name, globs in self.named_globs(node))

    def path(self, node: yaml.Node) -> Globs:
        globs = self.globs(node)
        for glob in globs:
            if "*" not in glob and glob not in KINDS:
                raise self.bad(node, f"{glob!r} is not captured, so no rule can choose it; there is {listed(KINDS)}")
        return globs

    def target(self, node: yaml.Node) -> str:
        try:
            return str(read_aim(self.text(node)))
        except ValueError as error:
            raise self.bad(node, str(error)) from None

    def recipe(self, node: yaml.Node) -> Recipe:
        names = {field.name for field in dataclasses.fields(Recipe)}
        known: dict[str, Callable[[yaml.Node], Any]] = {n: self.text for n in _RECIPE_TEXTS if n in names}
        for name, least in _RECIPE_COUNTS.items():
            known[name] = partial(self.count, least=least)
        known["target_r2"] = self.share
        known["target"] = self.target
        recipe = dataclasses.replace(self._otherwise.recipe, **self.fields(node, "a recipe", known))
        try:
            self._check(recipe)
        except SpexError as error:
            raise self.bad(node, str(error)) from None
        return recipe


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return (
        is_right and not (parts.username or parts.password or parts.fragment) and url.isprintable() and " " not in url
    )
