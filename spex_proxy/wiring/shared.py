"""What several commands are wired from."""

from __future__ import annotations

from spex_proxy import __version__
from spex_proxy.engine.decide import METHODS
from spex_proxy.facts.errors import SettingsError
from spex_proxy.facts.recipe import Recipe
from spex_proxy.ports.telemetry import Telemetry, make_provider
from spex_proxy.settings import Settings


def make_recipe(settings: Settings) -> Recipe:
    if settings.method not in METHODS:
        raise SettingsError(f"method {settings.method!r} (SPEX_METHOD) is unknown; there is {', '.join(METHODS)}")
    return Recipe(
        segmenter=settings.segmenter,
        masker=settings.masker,
        value=settings.value,
        method=settings.method,
        budget=settings.budget,
        seed=settings.seed,
        target_r2=settings.target_r2,
    )


def make_telemetry(settings: Settings) -> Telemetry:
    return Telemetry(make_provider(__version__, settings.otlp_endpoint), __version__)


def url_here(host: str, port: int) -> str:
    """Where this machine reaches one of our own ports, or sockets."""
    if host.startswith("unix:"):
        return host
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - read, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def labels(settings: Settings) -> tuple[str, ...]:
    """What a reviewer's verdict may be, each once. Raises SettingsError if nothing may."""
    found = tuple(dict.fromkeys(name.strip() for name in settings.review_labels.split(",") if name.strip()))
    if not found:
        raise SettingsError("a verdict needs a label: name some (SPEX_REVIEW_LABELS), with commas between")
    return found
