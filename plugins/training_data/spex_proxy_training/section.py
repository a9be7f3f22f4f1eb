"""What stands in a person's configuration, read so that every mistake is named: where it is, what to write there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping of the configuration. Its readers raise ValueError in words for whoever wrote it."""

    entries: Mapping[str, Any]
    where: str
    """Its path, `trainer`; empty for the top of the file."""

    @classmethod
    def of(cls, given: Any, where: str, known: Sequence[str]) -> Section:
        """Raises ValueError for what is no mapping and for a name that nobody reads."""
        place = where or "the configuration"
        if not isinstance(given, Mapping):
            raise ValueError(f"{place} must be a mapping with some of: {', '.join(known)}; it is {kind(given)}")
        unknown = [str(name) for name in given if name not in known]
        if unknown:
            raise ValueError(f"{place} knows no {unknown[0]!r}; there is {', '.join(known)}")
        return cls(dict(given), where)

    def path(self, name: str) -> str:
        return f"{self.where}.{name}" if self.where else name

    def has(self, name: str) -> bool:
        """Whether it is there, and not null."""
        return self.entries.get(name) is not None

    def below(self, name: str, known: Sequence[str]) -> Section:
        """A mapping inside; empty where it is not there."""
        return Section.of(self.entries[name] if self.has(name) else {}, self.path(name), known)

    def need(self, name: str) -> Any:
        if not self.has(name):
            raise ValueError(f"{self.path(name)} is missing")
        return self.entries[name]

    def text(self, name: str, default: str | None = None) -> str:
        """Not empty; required where there is no default."""
        if default is not None and not self.has(name):
            return default
        found = self.need(name)
        if not isinstance(found, str) or not found.strip():
            raise ValueError(f"{self.path(name)} must be a text, not {kind(found)}")
        return found

    def choice(self, name: str, among: Iterable[str], default: str | None = None) -> str:
        found, allowed = self.text(name, default), tuple(among)
        if found not in allowed:
            raise ValueError(f"{self.path(name)} is {found!r}; it must be one of {', '.join(allowed)}")
        return found

    def whole(self, name: str, default: int | None = None, least: int = 0) -> int:
        """A whole number, `least` or more."""
        found = self.need(name) if default is None else self.entries[name] if self.has(name) else default
        if isinstance(found, bool) or not isinstance(found, int) or found < least:
            raise ValueError(f"{self.path(name)} must be a whole number of {least} or more, not {shown(found)}")
        return found

    def positive(self, name: str, default: float) -> float:
        found = self.entries[name] if self.has(name) else default
        if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found) or found <= 0:
            raise ValueError(f"{self.path(name)} must be a number above 0, not {shown(found)}")
        return float(found)

    def names(self, name: str) -> tuple[str, ...]:
        """A list of different texts; numbers count as their digits. Empty where it is not there."""
        found = self.entries[name] if self.has(name) else []
        if not isinstance(found, list | tuple) or not all(isinstance(one, str | int) for one in found):
            raise ValueError(f"{self.path(name)} must be a list of names, not {kind(found)}")
        texts = tuple(str(one) for one in found)
        if len(set(texts)) != len(texts):
            raise ValueError(f"{self.path(name)} names something twice")
        return texts

    def records(self, name: str, known: Sequence[str]) -> list[Section]:
        """A list of mappings, at least one."""
        found = self.need(name)
        if not isinstance(found, list | tuple) or not found:
            raise ValueError(f"{self.path(name)} must be a list of mappings, at least one; it is {kind(found)}")
        return [Section.of(each, f"{self.path(name)}[{at}]", known) for at, each in enumerate(found)]


def kind(found: Any) -> str:
    """What it is, in words that quote nothing of it: it may be content."""
    if found is None:
        return "empty"
    if isinstance(found, list | tuple):
        return f"a list of {len(found)}"
    names = {bool: "true or false", int: "a number", float: "a number", str: "a text", dict: "a mapping"}
    return names.get(type(found), type(found).__name__)


def shown(found: Any) -> str:
    """A number as it is, everything else by its kind."""
    return str(found) if isinstance(found, bool | int | float) else kind(found)
