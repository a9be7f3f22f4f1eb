"""Entry points -> checked plugins. The one place where a plugin's failure is contained.

A bad plugin is refused at load, by name, with what to mend; it never takes the
process down later. `call` turns whatever a plugin raises into a
PluginError that names it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar, cast

from spex_proxy.facts.errors import CannotExplain, PluginError
from spex_proxy.plug.kinds import ABOUT, KINDS, Flagger, GameMaker, Masker, Segmenter, Value

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Plugin:
    """One loaded plugin and where it came from."""

    kind: str
    name: str
    provenance: str
    """`distribution version`, stored with every result that it made."""
    instance: object


class Plugins:
    """The plugins of this process, by kind and name. Loaded on first use, then kept."""

    def __init__(self, points: Iterable[EntryPoint] | None = None) -> None:
        """`points`: for tests; None looks at what is installed."""
        self._points = None if points is None else tuple(points)
        self._loaded: dict[tuple[str, str], Plugin] = {}

    def names(self, kind: str) -> list[str]:
        """What is installed for a kind, sorted."""
        return sorted(point.name for point in self._of(kind))

    def get(self, kind: str, name: str) -> Plugin:
        """Load, check and keep one plugin. Raises PluginError: unknown, broken or refused."""
        if (kind, name) not in self._loaded:
            self._loaded[kind, name] = _load(kind, self._point(kind, name))
        return self._loaded[kind, name]

    def segmenter(self, name: str) -> Segmenter:
        return cast(Segmenter, self.get("segmenter", name).instance)

    def masker(self, name: str) -> Masker:
        return cast(Masker, self.get("masker", name).instance)

    def value(self, name: str) -> Value:
        return cast(Value, self.get("value", name).instance)

    def flagger(self, name: str) -> Flagger:
        return cast(Flagger, self.get("flagger", name).instance)

    def game(self, name: str) -> GameMaker:
        return cast(GameMaker, self.get("game", name).instance)

    def provenance(self, **names: str) -> Mapping[str, str]:
        """`kind:name` -> `distribution version` of the named plugins, for the recipe."""
        return {f"{kind}:{name}": self.get(kind, name).provenance for kind, name in sorted(names.items())}

    def _of(self, kind: str) -> tuple[EntryPoint, ...]:
        group, _ = KINDS[kind]
        if self._points is None:
            return tuple(entry_points(group=group))
        return tuple(point for point in self._points if point.group == group)

    def _point(self, kind: str, name: str) -> EntryPoint:
        found = [point for point in self._of(kind) if point.name == name]
        if not found:
            known = ", ".join(self.names(kind)) or "none"
            raise PluginError(f"no {kind} is called {name!r}. Installed: {known}.")
        if len(found) > 1:
            owners = " and ".join(sorted(_provenance(point) for point in found))
            raise PluginError(f"two plugins offer the {kind} {name!r}: {owners}. Uninstall one.")
        return found[0]


def call(kind: str, name: str, function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a plugin; whatever it raises becomes a PluginError with its name.

    CannotExplain passes: it is how a plugin says no to one exchange.
    """
    try:
        return function(*arguments)
    except CannotExplain:
        raise
    except Exception as error:
        # the error's own words may quote content, which a job's reason outlives: they stay with the cause
        raise PluginError(f"the {kind} {name!r} failed with a {type(error).__name__}") from error


def _load(kind: str, point: EntryPoint) -> Plugin:
    who = f"the {kind} {point.name!r} ({_provenance(point)}, {point.value})"
    try:
        instance = point.load()()
        _check(who, kind, point.name, instance)
    except PluginError:
        raise
    except (Exception, SystemExit) as error:  # a module may call sys.exit() when it is imported
        raise PluginError(f"{who} can't be loaded: {type(error).__name__}: {error}") from error
    return Plugin(kind, point.name, _provenance(point), instance)


def _check(who: str, kind: str, name: str, instance: object) -> None:
    """Refuse what lacks a member of the kind's protocol or takes other arguments."""
    _, protocol = KINDS[kind]
    if getattr(instance, "name", None) != name:
        raise PluginError(f"{who} is refused: its `name` is {getattr(instance, 'name', None)!r}, not {name!r}.")
    for attribute, wanted in inspect.get_annotations(protocol).items():
        if type(getattr(instance, attribute, None)).__name__ != wanted:
            raise PluginError(f"{who} is refused: it has no attribute `{attribute}` that is a `{wanted}`.")
    if kind == "flagger" and getattr(instance, "about", None) not in ABOUT:
        raise PluginError(f"{who} is refused: its `about` must be {' or '.join(ABOUT)}.")
    for method, wanted in inspect.getmembers(protocol, inspect.isfunction):
        if not method.startswith("_"):
            _check_method(who, method, wanted, getattr(instance, method, None))


def _check_method(who: str, method: str, wanted: Callable[..., Any], offered: object) -> None:
    if not callable(offered):
        raise PluginError(f"{who} is refused: it has no method `{method}`.")
    if inspect.iscoroutinefunction(offered):
        raise PluginError(f"{who} is refused: `{method}` must be a plain function, not an async one.")
    needed = list(inspect.signature(wanted).parameters.values())[1:]
    try:
        inspect.signature(offered).bind(*needed)
    except TypeError as error:
        arguments = ", ".join(parameter.name for parameter in needed)
        raise PluginError(f"{who} is refused: `{method}` must take ({arguments}): {error}.") from error


def _provenance(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "unknown distribution"
