"""deploy/otel-collector.yaml: every part that a pipeline names exists, and both senders reach it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.deploy.files import DEPLOY, FILLED_IN, compose, example_environment

IN_THE_IMAGE = {
    "receivers": {"otlp"},
    "processors": {"batch", "memory_limiter"},
    "exporters": {"otlp", "debug"},
    "extensions": {"health_check"},
}
"""Those that we may use of the core distribution, otel/opentelemetry-collector."""


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "otel-collector.yaml").read_text())
    return loaded


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = compose(example_environment() | FILLED_IN)["services"]
    return found


def test_parts_are_of_kinds_that_the_image_has(config: dict[str, Any]) -> None:
    for room, kinds in IN_THE_IMAGE.items():
        assert {name.split("/")[0] for name in config[room]} <= kinds, room
    assert set(config) == {*IN_THE_IMAGE, "service"}


def test_what_is_declared_is_used_and_what_is_used_is_declared(config: dict[str, Any]) -> None:
    service = config["service"]
    assert set(service["extensions"]) == set(config["extensions"])
    for room in ("receivers", "processors", "exporters"):
        used = {name for pipeline in service["pipelines"].values() for name in pipeline[room]}
        assert used == set(config[room]), room


def test_memory_is_limited_first_and_below_what_the_container_has(
    config: dict[str, Any], services: dict[str, Any]
) -> None:
    for pipeline in config["service"]["pipelines"].values():
        assert pipeline["processors"][0] == "memory_limiter"
    memory = services["otel-collector"]["deploy"]["resources"]["limits"]["memory"]
    limiter = config["processors"]["memory_limiter"]
    assert limiter["spike_limit_mib"] < limiter["limit_mib"] < int(memory.removesuffix("m"))


def test_both_senders_and_the_backend_are_where_compose_puts_them(
    config: dict[str, Any], services: dict[str, Any]
) -> None:
    protocols = config["receivers"]["otlp"]["protocols"]
    for name in ("proxy", "worker"):
        ours = urlsplit(services[name]["environment"]["SPEX_OTLP_ENDPOINT"])
        assert (ours.hostname, f"0.0.0.0:{ours.port}") == ("otel-collector", protocols["http"]["endpoint"])
    (option,) = [part for part in services["vllm"]["command"] if part.startswith("--otlp-traces-endpoint=")]
    theirs = urlsplit(option.partition("=")[2])
    assert (theirs.hostname, f"0.0.0.0:{theirs.port}") == ("otel-collector", protocols["grpc"]["endpoint"])
    backend, _, port = config["exporters"]["otlp/jaeger"]["endpoint"].partition(":")
    assert backend in services
    assert port == "4317"  # Jaeger's OTLP over gRPC


def test_the_image_is_told_where_its_config_is(services: dict[str, Any]) -> None:
    (mount,) = services["otel-collector"]["volumes"]
    _, inside, _ = mount.split(":")
    assert services["otel-collector"]["command"] == [f"--config={inside}"]
