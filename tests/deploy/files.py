"""The files of `deploy/` read as their programs read them, as far as we use their languages.

compose(env)["services"]["proxy"]["command"]      values interpolated, anchors merged
stages()[-1]["ENTRYPOINT"]                        a Dockerfile's instructions, stage by stage
unit("spex-proxy-serve.service")["Service"]       a systemd unit: key -> its values, in order
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = ("spex-proxy-serve.service", "spex-proxy-work@.service")
FILLED_IN = {"POSTGRES_PASSWORD": "secret1", "VLLM_API_KEY": "secret2", "SPEX_DRAW_SECRET": "secret3"}
"""What .env.example leaves open."""

_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?::([-?])([^}]*))?\})")

Stage = dict[str, list[str]]


class Missing(KeyError):
    """A variable that must be set is not."""


def compose(environment: Mapping[str, str]) -> dict[str, Any]:
    """deploy/compose.yaml with these variables, and no others."""
    loaded: dict[str, Any] = _filled(yaml.safe_load((DEPLOY / "compose.yaml").read_text()), environment)
    return loaded


def example_environment() -> dict[str, str]:
    """deploy/.env.example as compose reads it."""
    lines = (line.strip() for line in (DEPLOY / ".env.example").read_text().splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def stages() -> list[Stage]:
    """Instructions of deploy/Dockerfile: name -> arguments, in order, one for each stage."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    found: list[Stage] = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            found.append({})
        if name:
            found[-1].setdefault(name, []).append(rest.strip())
    return found


def health_check() -> list[str]:
    """The command of the image's HEALTHCHECK."""
    (instruction,) = stages()[-1]["HEALTHCHECK"]
    command: list[str] = json.loads(instruction.partition(" CMD ")[2].strip())
    return command


def unit(name: str) -> dict[str, dict[str, list[str]]]:
    """A systemd unit: section -> key -> values."""
    sections: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    for line in (DEPLOY / "systemd" / name).read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        else:
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return sections


def seconds(duration: str) -> int:
    """`45`, `45s` or `1m`."""
    number, unit_name = re.fullmatch(r"(\d+)([sm]?)", duration).groups()  # type: ignore[union-attr]
    return int(number) * (60 if unit_name == "m" else 1)


def _filled(value: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, environment) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, environment) for item in value]
    return _VARIABLE.sub(lambda found: _variable(found, environment), value) if isinstance(value, str) else value


def _variable(found: re.Match[str], environment: Mapping[str, str]) -> str:
    dollar, name, kind, rest = found.groups()
    if dollar:
        return "$"
    if environment.get(name):
        return environment[name]
    if kind != "-":
        raise Missing(f"{name}: {rest}")
    return rest or ""
