"""deploy/compose.yaml: who runs what, with which settings, and who waits for whom."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from spex_proxy import __version__
from spex_proxy.cli import app
from spex_proxy.settings import Settings
from tests.deploy.files import DEPLOY, FILLED_IN, ROOT, Missing, compose, example_environment, seconds, stages

OURS = ("migrate", "proxy", "worker")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = compose(example_environment() | FILLED_IN)["services"]
    return found


def test_it_does_not_start_without_secrets_and_names_the_missing_one() -> None:
    for name in FILLED_IN:
        with pytest.raises(Missing, match=rf"{name}: set it in deploy/\.env"):
            compose(example_environment() | FILLED_IN | {name: ""})


def test_every_variable_stands_in_the_example_and_no_secret_has_a_value_there() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    assert set(re.findall(r"\$\{(\w+)", text)) == set(example_environment())
    assert {name: example_environment()[name] for name in FILLED_IN} == dict.fromkeys(FILLED_IN, "")


def test_a_variable_with_the_name_of_a_setting_is_that_setting() -> None:
    """SPEX_WORKERS, say, are relay processes: whoever writes it into deploy/.env must not start containers."""
    for key, name in re.findall(r"([\w-]+): \$\{(SPEX_\w+)", (DEPLOY / "compose.yaml").read_text()):
        assert key == name
    settings = {f"SPEX_{name.upper()}" for name in Settings.model_fields}
    assert {name for name in example_environment() if name.startswith("SPEX_")} <= settings


def test_images_are_pinned_to_a_release(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert re.search(r":v?\d+\.\d+(\.\d+)?(-[a-z]+)?$", service["image"]), name
    assert {services[name]["image"] for name in OURS} == {f"spex-proxy:{__version__}"}


def test_our_services_are_built_from_this_checkout(services: dict[str, Any]) -> None:
    for name in OURS:
        build = services[name]["build"]
        assert (DEPLOY / build["context"]).resolve() == ROOT
        assert (ROOT / build["dockerfile"]).is_file()


@pytest.mark.parametrize("name", OURS)
def test_our_services_run_commands_and_settings_that_exist(name: str, services: dict[str, Any]) -> None:
    service = services[name]
    commands = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert service["command"] == ["db", "upgrade"] or service["command"][0] in commands
    settings = {key: value for key, value in service["environment"].items() if key.startswith("SPEX_")}
    assert set(settings) == set(service["environment"])
    read = Settings(**{key.removeprefix("SPEX_").lower(): value for key, value in settings.items()})
    assert (read.upstream, read.scheduling_policy) == ("http://vllm:8000", "priority")
    url = make_url(read.store)
    assert (url.host, url.password, url.database) == ("postgres", "secret1", "spex")


def test_the_key_and_the_names_are_the_same_on_both_sides(services: dict[str, Any]) -> None:
    assert services["vllm"]["environment"]["VLLM_API_KEY"] == services["worker"]["environment"]["SPEX_UPSTREAM_API_KEY"]
    postgres = services["postgres"]["environment"]
    assert (postgres["POSTGRES_USER"], postgres["POSTGRES_PASSWORD"], postgres["POSTGRES_DB"]) == (
        "spex", "secret1", "spex"
    )  # fmt: skip


def test_production_waits_for_nobody_and_the_worker_for_the_migration(services: dict[str, Any]) -> None:
    waits = {name: service.get("depends_on", {}) for name, service in services.items()}
    assert {name: wait for name, wait in waits.items() if wait} == {
        "migrate": {"postgres": {"condition": "service_healthy"}},
        "worker": {"migrate": {"condition": "service_completed_successfully"}},
    }
    assert services["migrate"]["restart"].startswith("on-failure")
    assert {services[name]["restart"] for name in services if name != "migrate"} == {"unless-stopped"}


def test_what_has_no_password_is_published_on_loopback_only(services: dict[str, Any]) -> None:
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert ports == {
        "proxy": ["127.0.0.1:8080:8080", "127.0.0.1:8081:8081"],
        "jaeger": ["127.0.0.1:16686:16686"],
    }


def test_our_containers_can_do_little(services: dict[str, Any]) -> None:
    for name in OURS:
        service = services[name]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service
    # the load board alone: the relay writes in it, the worker reads
    volumes = {name: services[name].get("volumes", []) for name in OURS}
    assert volumes == {"migrate": [], "proxy": ["state:/var/lib/spex-proxy"], "worker": ["state:/var/lib/spex-proxy"]}


def test_health_checks_stand_where_there_is_somebody_to_ask(services: dict[str, Any]) -> None:
    switched_off = {name for name, service in services.items() if service.get("healthcheck", {}).get("disable")}
    asked = {name for name, service in services.items() if "test" in service.get("healthcheck", {})}
    assert (switched_off, asked) == ({"migrate", "worker"}, {"vllm", "postgres"})
    assert "HEALTHCHECK" in stages()[-1]  # the relay's


def test_stopping_takes_as_long_as_we_say_that_it_may(services: dict[str, Any]) -> None:
    assert seconds(services["proxy"]["stop_grace_period"]) >= 30 + 10  # relay/server.py, wiring/relay.py
    assert seconds(services["worker"]["stop_grace_period"]) >= 30


def test_volumes_are_declared_and_used(services: dict[str, Any]) -> None:
    mounts = [mount for service in services.values() for mount in service.get("volumes", [])]
    named = {mount.split(":")[0] for mount in mounts if not mount.startswith(".")}
    assert named == set(compose(example_environment() | FILLED_IN)["volumes"])
    for mount in mounts:
        if mount.startswith("."):
            assert (DEPLOY / mount.split(":")[0]).is_file()
            assert mount.endswith(":ro")


def test_vllm_is_told_what_doctor_recommends(services: dict[str, Any]) -> None:
    command = services["vllm"]["command"]
    assert command[0] == "Qwen/Qwen2.5-1.5B-Instruct"
    assert {"--scheduling-policy=priority", "--enable-scale-out"} <= set(command)
    assert json.dumps(services["vllm"]["deploy"]["resources"]["reservations"]["devices"]).count("gpu") == 1
