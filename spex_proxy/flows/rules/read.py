"""A rules file (YAML) -> a RuleBook, or every problem in it with its line and column.

Read from YAML's nodes, not from Python objects: only nodes know where they stand in the file.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml

from spex_proxy.facts.errors import SettingsError, SpexError
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.rules import DEFAULT_RULE, Globs, Range, Rule, RuleBook, When
from spex_proxy.facts.seals import canonical_json, seal
from spex_proxy.flows.rules.match import expression
from spex_proxy.wire.chat import KINDS

T = TypeVar("T")

MOST_BYTES = 256 * 1024
MOST_RULES = 100
LONGEST_EXPRESSION = 2_000
PRIORITIES = {"asked": 1, "flagged": 2, "sampled": 3}
_RECIPE_TEXTS = ("segmenter", "masker", "value", "method", "design")
_RECIPE_COUNTS = {"budget": 8, "seed": 0, "replicates": 1, "max_scored_tokens": 1}
"""Field of a recipe -> its smallest value."""

CheckRecipe = Callable[[Recipe], None]
"""Raises SpexError (a plugin that is not there, an unknown method) in words for the person who wrote the rule."""


def read_rules(text: str, where: str, otherwise: Rule, check: CheckRecipe) -> RuleBook:
    """The rules of a file, and `otherwise` behind them: what the settings say.

    `where` names the file in messages. Raises SettingsError that lists every problem as `file:line:column`.
    """
    reader = _Reader(otherwise, check)
    try:
        rules = reader.book(_root(text))
    except _Alias as alias:
        raise _error(where, [(alias.mark, "aliases (*name) are not read; write it out")]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(part for part in (error.context, error.problem) if part)
        raise _error(where, [(mark, said or "this is not YAML")]) from None
    except yaml.YAMLError as error:
        raise _error(where, [(None, f"this is not YAML: {error}")]) from None
    except RecursionError:
        raise _error(where, [(None, "it is nested too deep")]) from None
    if reader.problems:
        raise _error(where, reader.problems)
    return make_book(rules, otherwise, text)


def make_book(rules: Sequence[Rule], otherwise: Rule, text: str = "") -> RuleBook:
    """Rules and what holds where none fits. The digest covers both: either can change what is sampled."""
    base = canonical_json(dataclasses.asdict(otherwise))
    return RuleBook(seal(text.encode(), base), (*rules, otherwise), text)


def load_rules(path: Path, otherwise: Rule, check: CheckRecipe) -> RuleBook:
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
    return read_rules(text, str(path), otherwise, check)


class _Alias(Exception):
    def __init__(self, mark: Any) -> None:
        self.mark = mark


def _root(text: str) -> yaml.Node | None:
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):  # a few of them, nested, unfold to gigabytes
            raise _Alias(event.start_mark)
    return yaml.compose(text, Loader=yaml.SafeLoader)


Problem = tuple[Any, str]
"""YAML's mark of a place (line and column, from 0), or None; what is wrong there."""


def _error(where: str, problems: Sequence[Problem]) -> SettingsError:
    lines = [
        f"{where}:{mark.line + 1}:{mark.column + 1}: {said}" if mark else f"{where}: {said}" for mark, said in problems
    ]
    return SettingsError("these rules can't work:\n  " + "\n  ".join(lines))


class _Bad(Exception):
    """This node says nothing that makes sense; the problem is noted."""


class _Reader:
    """Reads nodes; a problem is noted and the rest read on, so that one look shows all of them."""

    def __init__(self, otherwise: Rule, check: CheckRecipe) -> None:
        self.problems: list[Problem] = []
        self._otherwise = otherwise
        self._check = check
        self._names: set[str] = set()

    def bad(self, node: yaml.Node, said: str) -> _Bad:
        self.problems.append((node.start_mark, said))
        return _Bad()

    def book(self, node: yaml.Node | None) -> tuple[Rule, ...]:
        if node is None:
            return ()
        try:
            fields = self.fields(node, "the file", {"rules": lambda inner: self.items(inner, self.rule)})
        except _Bad:
            return ()
        rules: tuple[Rule, ...] = fields.get("rules", ())
        if len(rules) > MOST_RULES:
            self.bad(node, f"there are {len(rules)} rules; at most {MOST_RULES} are looked through for each request")
        return rules

    # ---- shapes ----

    def fields(self, node: yaml.Node, what: str, known: Mapping[str, Callable[[yaml.Node], Any]]) -> dict[str, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise self.bad(node, f"{what} must be a mapping of {_listed(known)}")
        found: dict[str, Any] = {}
        for key, value in self.pairs(node):
            if key.value not in known:
                self.bad(key, f"{what} has no field {key.value!r}; there is {_listed(known)}")
                continue
            try:
                found[key.value] = known[key.value](value)
            except _Bad:
                pass
        return found

    def pairs(self, node: yaml.MappingNode) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
        """Keys that are texts, each once."""
        seen: set[str] = set()
        pairs = []
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.bad(key, "a key must be one word")
            elif key.value in seen:
                self.bad(key, f"{key.value!r} stands here twice")
            else:
                seen.add(key.value)
                pairs.append((key, value))
        return pairs

    def items(self, node: yaml.Node, read: Callable[[yaml.Node], T]) -> tuple[T, ...]:
        if not isinstance(node, yaml.SequenceNode):
            raise self.bad(node, "must be a list: lines that begin with `- `")
        found: list[T] = []
        for item in node.value:
            try:
                found.append(read(item))
            except _Bad:
                pass
        return tuple(found)

    # ---- scalars ----

    def scalar(self, node: yaml.Node, wanted: str) -> tuple[str, str]:
        """(kind, text) of a scalar; kind as YAML sees it: str, int, float, bool, null."""
        if not isinstance(node, yaml.ScalarNode):
            raise self.bad(node, f"must be {wanted}")
        return node.tag.rpartition(":")[2], node.value

    def text(self, node: yaml.Node) -> str:
        kind, value = self.scalar(node, "a text")
        if kind not in ("str", "int", "float") or not value:
            raise self.bad(node, f"must be a text, not {value or 'nothing'!r}; quote it if it is meant so")
        return value

    def truth(self, node: yaml.Node) -> bool:
        kind, value = self.scalar(node, "true or false")
        if kind != "bool":
            raise self.bad(node, f"must be true or false, not {value!r}")
        return value.lower() in ("true", "yes", "on")

    def number(self, node: yaml.Node) -> float:
        _, value = self.scalar(node, "a number")
        try:
            number = float(value.replace("_", ""))
        except ValueError:
            raise self.bad(node, f"must be a number, not {value!r}") from None
        if not math.isfinite(number):
            raise self.bad(node, f"must be a number, not {value!r}")
        return number

    def share(self, node: yaml.Node) -> float:
        number = self.number(node)
        if not 0 <= number <= 1:
            raise self.bad(node, f"must be a share from 0 to 1, not {number:g}")
        return number

    def count(self, node: yaml.Node, least: int = 0) -> int:
        number = self.number(node)
        if number != int(number) or number < least:
            raise self.bad(node, f"must be a whole number, at least {least}, not {number:g}")
        return int(number)

    def globs(self, node: yaml.Node) -> Globs:
        """One pattern, or a list of them."""
        return self.items(node, self.text) if isinstance(node, yaml.SequenceNode) else (self.text(node),)

    def named_globs(self, node: yaml.Node) -> tuple[tuple[str, Globs], ...]:
        if not isinstance(node, yaml.MappingNode):
            raise self.bad(node, "must be a mapping of names to patterns, {name: pattern}")
        return tuple((key.value, self.globs(value)) for key, value in self.pairs(node))

    def regex(self, node: yaml.Node) -> str:
        pattern = self.text(node)
        if len(pattern) > LONGEST_EXPRESSION:
            raise self.bad(node, f"an expression may have {LONGEST_EXPRESSION} characters, this one has {len(pattern)}")
        try:
            expression(pattern)
        except ValueError as error:
            raise self.bad(node, f"is no regular expression of RE2: {error}") from None
        return pattern

    def range(self, node: yaml.Node) -> Range:
        found = self.fields(node, "a range", {"at_least": self.number, "at_most": self.number})
        span = Range(found.get("at_least"), found.get("at_most"))
        if span.at_least is not None and span.at_most is not None and span.at_least > span.at_most:
            raise self.bad(node, f"nothing is at least {span.at_least:g} and at most {span.at_most:g}")
        return span

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
                "priority": self.priority,
                "exact_token_ids": self.truth,
                "recipe": self.recipe,
            },
        )
        if "name" not in fields:
            raise self.bad(node, "a rule needs a name: it is stored with every exchange that it decides about")
        if fields["name"] == DEFAULT_RULE or fields["name"] in self._names:
            raise self.bad(node, f"there is another rule named {fields['name']!r}")
        self._names.add(fields["name"])
        return dataclasses.replace(self._otherwise, **{"when": When(), **fields})

    def priority(self, node: yaml.Node) -> int:
        kind, value = self.scalar(node, "a priority")
        if value in PRIORITIES:
            return PRIORITIES[value]
        if kind != "int":
            raise self.bad(node, f"must be {_listed(PRIORITIES)} or a whole number from 1 (most urgent), not {value!r}")
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
                },
            )
        )

    def header(self, node: yaml.Node) -> tuple[tuple[str, Globs], ...]:
        return tuple((name.lower(), globs) for name, globs in self.named_globs(node))

    def path(self, node: yaml.Node) -> Globs:
        globs = self.globs(node)
        for glob in globs:
            if "*" not in glob and glob not in KINDS:
                raise self.bad(node, f"{glob!r} is not captured, so no rule can choose it; there is {_listed(KINDS)}")
        return globs

    def recipe(self, node: yaml.Node) -> Recipe:
        names = {field.name for field in dataclasses.fields(Recipe)}
        known: dict[str, Callable[[yaml.Node], Any]] = {n: self.text for n in _RECIPE_TEXTS if n in names}
        for name, least in _RECIPE_COUNTS.items():
            known[name] = partial(self.count, least=least)
        known["target_r2"] = self.share
        recipe = dataclasses.replace(self._otherwise.recipe, **self.fields(node, "a recipe", known))
        try:
            self._check(recipe)
        except SpexError as error:
            raise self.bad(node, str(error)) from None
        return recipe


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(names)
