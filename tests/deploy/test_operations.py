"""docs/operations.md speaks of metrics, settings, files and commands that exist."""

from __future__ import annotations

import re

from spex_proxy.cli import app
from spex_proxy.ports.counters import COUNTERS, GAUGES
from spex_proxy.ports.store_gauges import JobNumbers, StoreGauges
from spex_proxy.settings import Settings
from tests.deploy.files import ROOT, compose, example_environment

TEXT = (ROOT / "docs" / "operations.md").read_text()


def test_every_metric_that_it_names_is_counted() -> None:
    named = set(re.findall(r"`(spex_\w+)", TEXT))
    assert named
    of_jobs = {family.name for family in StoreGauges(lambda: JobNumbers({}, None, 0)).describe()}
    assert named <= {f"{m.exported}_total" for m in COUNTERS} | {m.exported for m in GAUGES} | of_jobs


def test_every_setting_that_it_names_exists() -> None:
    named = {name.removeprefix("SPEX_").lower() for name in re.findall(r"SPEX_[A-Z_]+", TEXT)}
    assert named <= set(Settings.model_fields)


def test_every_command_that_it_gives_exists() -> None:
    commands = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    groups = {group.name for group in app.registered_groups}
    assert set(re.findall(r"\bspex-proxy ([a-z]+)\b(?! --)", TEXT)) <= commands | groups | {"spex"}


def test_every_file_that_it_names_exists() -> None:
    for name in re.findall(r"(?:deploy|requirements)/[\w./-]*\w", TEXT):
        assert (ROOT / name).exists() or name == "deploy/.env", name
    for link in re.findall(r"\]\(([\w.]+\.md)\)", TEXT):
        assert (ROOT / "docs" / link).is_file(), link


def test_ports_and_services_are_those_of_the_compose_file() -> None:
    ports = {"8080", "8081", "16686"}
    filled = example_environment() | {"POSTGRES_PASSWORD": "x", "VLLM_API_KEY": "x", "SPEX_DRAW_SECRET": "x"}
    services = compose(filled)["services"]
    assert {port.split(":")[1] for service in services.values() for port in service.get("ports", [])} == ports
    assert all(port in TEXT for port in ports)
