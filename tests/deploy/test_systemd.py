"""deploy/systemd: the units, by our own reading and by systemd's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spex_proxy.settings import Settings
from tests.deploy.files import DEPLOY, UNITS, seconds, unit

ANALYZE = shutil.which("systemd-analyze")
HARDENED = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "CapabilityBoundingSet": "",
    "RestrictNamespaces": "yes",
    "StateDirectory": "spex-proxy",
    "StateDirectoryMode": "0700",
    "Restart": "always",
}
WORST_EXPOSURE = 20
"""Of 100, as `systemd-analyze security` counts it; it was 14 and 15 when this was written."""


@pytest.mark.parametrize("name", UNITS)
def test_they_are_hardened_alike_and_never_given_up(name: str) -> None:
    read = unit(name)
    service = read["Service"]
    assert {key: service[key] for key in HARDENED} == {key: [value] for key, value in HARDENED.items()}
    assert service["User"] == service["Group"] == ["spex-proxy"]
    assert read["Unit"]["StartLimitIntervalSec"] == ["0"]
    assert read["Install"]["WantedBy"] == ["multi-user.target"]


@pytest.mark.parametrize("name", UNITS)
def test_their_store_lies_where_they_may_write(name: str) -> None:
    service = unit(name)["Service"]
    (assigned,) = service["Environment"]
    variable, _, value = assigned.partition("=")
    settings = Settings(**{variable.removeprefix("SPEX_").lower(): value})
    assert settings.store == f"sqlite:///{service['WorkingDirectory'][0]}/spex.db"
    assert service["WorkingDirectory"] == [f"/var/lib/{service['StateDirectory'][0]}"]


def test_the_relay_is_migrated_by_nobody_and_the_worker_by_itself() -> None:
    serve, work = (unit(name)["Service"] for name in UNITS)
    assert "ExecStartPre" not in serve  # a store that can't be migrated must not keep production away
    assert work["ExecStartPre"] == ["/opt/spex-proxy/bin/spex-proxy db upgrade"]
    assert seconds(serve["TimeoutStopSec"][0]) >= 30 + 10
    assert int(work["OOMScoreAdjust"][0]) > 0 > int(serve["OOMScoreAdjust"][0])


@pytest.fixture
def units(tmp_path: Path) -> dict[str, Path]:
    """Copies that name a program which is there: systemd checks that too."""
    program = Path(sys.executable).with_name("spex-proxy")
    assert os.access(program, os.X_OK)
    copies = {}
    for name in UNITS:
        text = (DEPLOY / "systemd" / name).read_text()
        copies[name] = tmp_path / name
        copies[name].write_text(re.sub(r"/opt/spex-proxy/bin/spex-proxy", str(program), text))
    return copies


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if ANALYZE is None:
        pytest.skip("systemd-analyze is not installed (Debian: apt-get install systemd)")
    return subprocess.run([ANALYZE, *arguments], check=False, capture_output=True, text=True, timeout=60)


def verify(path: Path) -> tuple[int, str]:
    """Exit code, and what is said about our units; a template is looked at as its instance 1."""
    result = analyze("verify", "--man=no", path.with_name(path.name.replace("@.", "@1.")))
    return result.returncode, "\n".join(line for line in result.stderr.splitlines() if "spex-proxy" in line)


@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_nothing_to_say_about_them(name: str, units: dict[str, Path]) -> None:
    assert verify(units[name]) == (0, "")


@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_them_little_exposed(name: str, units: dict[str, Path]) -> None:
    result = analyze("security", "--offline=true", f"--threshold={WORST_EXPOSURE}", units[name])
    assert result.returncode == 0, result.stdout[-300:]


@pytest.mark.parametrize("name", UNITS)
def test_systemd_would_see_a_slip(name: str, units: dict[str, Path]) -> None:
    """So that the tests above mean something."""
    units[name].write_text(units[name].read_text().replace("ProtectHome=yes", "ProtectHome=yess"))
    assert "yess" in verify(units[name])[1]
    units[name].write_text(units[name].read_text().replace("NoNewPrivileges=yes\nCapabilityBoundingSet=\n", ""))
    assert analyze("security", "--offline=true", f"--threshold={WORST_EXPOSURE}", units[name]).returncode != 0
