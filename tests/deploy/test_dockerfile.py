"""deploy/Dockerfile: locked, in two stages, nobody's root."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from importlib.metadata import requires

from packaging.requirements import Requirement

from spex_proxy.settings import Settings
from tests.deploy.files import DEPLOY, ROOT, health_check, stages

TEXT = (DEPLOY / "Dockerfile").read_text()
LOCK = (ROOT / "requirements" / "dev.lock").read_text()


def test_both_stages_come_from_one_pinned_image() -> None:
    bases = [stage["FROM"][0].split(" AS ")[0] for stage in stages()]
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", bases[0])


def test_packages_come_from_the_locks_with_hashes() -> None:
    build, final = stages()
    installs = [run for run in build["RUN"] if " install " in run]
    assert "PIP_REQUIRE_HASHES=1" in build["ENV"][0]
    assert "-r requirements/runtime.lock" in installs[0]
    assert not any("pip install" in run for run in final["RUN"])
    unhashed = [run for run in build["RUN"] if "PIP_REQUIRE_HASHES=0" in run]
    assert all(part.count("--no-index") == 1 for run in unhashed for part in run.split("&&"))


def test_the_build_backend_is_complete_in_the_developers_lock() -> None:
    (names,) = re.findall(r"keep = /\^\(([\w|-]+)\)==/", TEXT)
    kept = set(names.split("|"))
    needed, todo = set(), {"hatchling"}
    while todo:
        needed |= todo
        wanted = [Requirement(line) for name in todo for line in requires(name) or ()]
        todo = {w.name for w in wanted if w.marker is None or w.marker.evaluate({"extra": ""})} - needed
    assert kept == needed
    assert all(re.search(rf"^{name}==.*\\$", LOCK, re.MULTILINE) for name in kept)


def test_the_last_stage_runs_as_nobody_and_builds_nothing() -> None:
    final = stages()[-1]
    assert final["USER"] == ["10001:10001"]
    assert "pip uninstall --yes" in final["RUN"][0]
    assert final["COPY"] == ["--from=build /opt/spex-proxy /opt/spex-proxy"]
    assert not re.search(r"apt-get|gcc|build-essential|curl|wget", TEXT)
    assert (final["ENTRYPOINT"], final["CMD"]) == (['["spex-proxy"]'], ['["serve"]'])


def test_its_settings_and_ports_are_ours() -> None:
    final = stages()[-1]
    spex = dict(re.findall(r"(SPEX_\w+)=(\S+)", final["ENV"][0]))
    read = Settings(**{name.removeprefix("SPEX_").lower(): value for name, value in spex.items()})
    assert final["EXPOSE"] == [f"{read.port} {read.admin_port}"]
    assert read.store == f"sqlite:///{final['VOLUME'][0]}/spex.db"
    assert "/healthz" in health_check()[-1]


def test_what_it_copies_exists_and_is_let_through() -> None:
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = [line.removeprefix("!") for line in lines if line.startswith("!")]
    assert "*" in lines
    for copy in stages()[0]["COPY"]:
        for source in copy.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any(fnmatch(source, pattern) for pattern in allowed), source
    for secret in ("deploy/.env", "var/spex.db", ".models/x", "tests/x", ".git/config"):
        assert not any(fnmatch(secret, pattern) or secret.startswith(f"{pattern}/") for pattern in allowed), secret
