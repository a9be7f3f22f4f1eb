"""YAML's nodes -> values, with every problem noted where it stands.

Read from nodes, not from Python objects: only nodes know their line and column in the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import yaml

from spex_proxy.facts.errors import SettingsError
from spex_proxy.facts.rules import Globs, Range
from spex_proxy.wire.patterns import expression

T = TypeVar("T")

LONGEST_EXPRESSION = 2_000


class Alias(Exception):
    """A reference to an earlier part of the file."""

    def __init__(self, mark: Any) -> None:
        self.mark = mark


def root_of(text: str) -> yaml.Node | None:
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):  # a few of them, nested, unfold to gigabytes
            raise Alias(event.start_mark)
    return yaml.compose(text, Loader=yaml.SafeLoader)


Problem = tuple[Any, str]
"""YAML's mark of a place (line and column, from 0), or None; what is wrong there."""


def error_of(where: str, problems: Sequence[Problem]) -> SettingsError:
    lines = [
        f"{where}:{mark.line + 1}:{mark.column + 1}: {said}" if mark else f"{where}: {said}" for mark, said in problems
    ]
    return SettingsError("these rules can't work:\n  " + "\n  ".join(lines))


class Bad(Exception):
    """This node says nothing that makes sense; the problem is noted."""


class Nodes:
    """Reads nodes; a problem is noted and the rest read on, so that one look shows all of them."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def bad(self, node: yaml.Node, said: str) -> Bad:
        self.problems.append((node.start_mark, said))
        return Bad()

    # ---- shapes ----

    def fields(self, node: yaml.Node, what: str, known: Mapping[str, Callable[[yaml.Node], Any]]) -> dict[str, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise self.bad(node, f"{what} must be a mapping of {listed(known)}")
        found: dict[str, Any] = {}
        for key, value in self.pairs(node):
            if key.value not in known:
                self.bad(key, f"{what} has no field {key.value!r}; there is {listed(known)}")
                continue
            try:
                found[key.value] = known[key.value](value)
            except Bad:
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
            except Bad:
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

    def plain(self, node: yaml.Node) -> Any:
        """A value that means something to somebody else: texts, numbers, lists and mappings of them."""
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(item) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            return {key.value: self.plain(value) for key, value in self.pairs(node)}
        kind, value = self.scalar(node, "a value")
        if kind in ("int", "float"):
            number = self.number(node)
            return int(number) if kind == "int" else number
        return self.truth(node) if kind == "bool" else None if kind == "null" else value


def listed(names: Mapping[str, Any]) -> str:
    return ", ".join(names)
