"""What deploy/ starts, started by hand: the commands and settings of the compose file and the units, on loopback.

No container engine and no systemd are needed or used: their part is to run these very commands.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from spex_proxy.store.connect import open_store
from tests.deploy.files import FILLED_IN, UNITS, compose, example_environment, health_check, seconds, stages, unit
from tests.story.explaining import count, question, sentences
from tests.story.processes import Settings, get, running, spex, wait_until
from tests.story.scripted_model import ScriptedModel, planted

pytestmark = pytest.mark.timeout(180)

OF_THE_PLACE = ("SPEX_UPSTREAM", "SPEX_STORE", "SPEX_OTLP_ENDPOINT", "SPEX_HOST", "SPEX_ADMIN_HOST")
"""Settings that name hosts of the deployment; here they name what the test has."""


@dataclass(frozen=True)
class Deployment:
    """What one of the files runs."""

    migrate: list[str]
    serve: list[str]
    work: list[str]
    environment: dict[str, str]
    stop_s: tuple[int, int]
    """How long the relay and the worker may take to stop."""


def by_compose() -> Deployment:
    services = compose(example_environment() | FILLED_IN)["services"]
    image = dict(pair.split("=", 1) for pair in stages()[-1]["ENV"][0].split())
    migrate, proxy, worker = (services[name] for name in ("migrate", "proxy", "worker"))
    environment = image | proxy["environment"] | worker["environment"]
    stop_s = (seconds(proxy["stop_grace_period"]), seconds(worker["stop_grace_period"]))
    return Deployment(migrate["command"], proxy["command"], worker["command"], environment, stop_s)


def by_systemd() -> Deployment:
    serve, work = (unit(name)["Service"] for name in UNITS)
    commands = [service[0].split()[1:] for service in (work["ExecStartPre"], serve["ExecStart"], work["ExecStart"])]
    environment = dict([serve["Environment"][0].split("=", 1)])
    return Deployment(*commands, environment, (seconds(serve["TimeoutStopSec"][0]), seconds(work["TimeoutStopSec"][0])))


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel(planted(-12, {("Bravo",): 1.5, ("Alpha", "Delta"): 4})) as server:
        yield server


def test_both_files_run_the_same_commands() -> None:
    """So that the story below is about both."""
    units, services = by_systemd(), by_compose()
    assert (units.migrate, units.serve, units.work) == (services.migrate, services.serve, services.work)


def test_what_is_deployed_starts_answers_explains_and_stops(model: ScriptedModel, tmp_path: Path) -> None:
    deployment = by_compose()
    more = {
        name.removeprefix("SPEX_").lower(): value
        for name, value in deployment.environment.items()
        if name.startswith("SPEX_") and name not in OF_THE_PLACE
    }
    settings = Settings(model.url, f"sqlite:///{tmp_path / 'spex.db'}", more=more)
    migrated = spex(*deployment.migrate, settings=settings)
    assert migrated.returncode == 0, migrated.stderr
    (serve,), (work,) = deployment.serve, deployment.work
    with running(serve, settings, tmp_path) as proxy, running(work, settings, tmp_path) as worker:
        assert get(f"{settings.admin_url}/healthz").json()["status"] == "ok"
        ready = proxy.ready()
        assert (ready["status"], ready["store"]) == ("ready", "ok")
        assert_healthy(settings, True)
        asked = httpx.post(
            f"{settings.relay_url}/v1/chat/completions", json=question(sentences(4)),
            headers={"x-spex-explain": "yes"}, trust_env=False, timeout=30,
        )  # fmt: skip
        assert asked.status_code == 200
        wait_until(lambda: count_done(settings) == 1, 60)
        assert proxy.metric("relayed_requests_total") >= 1
        assert proxy.metric("stored_exchanges_total") == 1
        report = spex("doctor", settings=settings)
        assert "relays /version byte for byte" in report.stdout, report.stdout + report.stderr
        assert "1 worker alive" in report.stdout
        relay_s, worker_s = deployment.stop_s
        assert worker.stop(worker_s) == 0
        assert proxy.stop(relay_s) == 0
    assert_healthy(settings, False)


def assert_healthy(settings: Settings, is_healthy: bool) -> None:
    """Ask as the image's HEALTHCHECK does."""
    program, *arguments = health_check()
    assert program == "python"
    environment = os.environ | {"SPEX_ADMIN_PORT": str(settings.admin_port)}
    command = [sys.executable, *arguments]
    result = subprocess.run(command, check=False, capture_output=True, env=environment, timeout=30)
    assert (result.returncode == 0) == is_healthy, result.stderr.decode()


def count_done(settings: Settings) -> int:
    engine = open_store(settings.store)
    try:
        return count(engine, "outbox", "state='done'")
    finally:
        engine.dispose()
