"""axe-core in the page: what a screen reader or a keyboard would trip over.

The package comes from the npm registry into a folder of its own under var/, once; nothing of it is committed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

VERSION = "4.14.1"
CACHE = Path(__file__).parents[2] / "var" / "axe-core"
MISSING = (
    f"no axe-core {VERSION}: the accessibility of the pages can't be tested. It comes with `npm pack axe-core`, "
    "which needs npm (Debian, Ubuntu: apt-get install npm) and an npm registry"
)
SERIOUS = ("serious", "critical")
_RUN = "async () => (await axe.run(document, { resultTypes: ['violations'] })).violations"


@pytest.fixture(scope="session")
def axe() -> str:
    """The script, to be evaluated in a page. CI fails without it; a laptop skips."""
    script = CACHE / f"axe-{VERSION}.min.js"
    if not script.exists():
        trouble = _fetch(script)
        if trouble:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{MISSING}\n{trouble}")
    return script.read_text(encoding="utf-8")


def _fetch(script: Path) -> str:
    """What went wrong; empty if the file is there now."""
    npm = shutil.which("npm")
    if npm is None:
        return "npm is not installed"
    CACHE.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [npm, "pack", f"axe-core@{VERSION}", "--silent"],
        cwd=CACHE, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    archive = CACHE / f"axe-core-{VERSION}.tgz"
    if done.returncode or not archive.exists():
        return done.stderr[-500:] or f"npm pack gave no {archive.name}"
    with tarfile.open(archive) as packed:
        source = packed.extractfile("package/axe.min.js")
        assert source is not None, "axe-core's package has changed its shape"
        script.write_bytes(source.read())
    archive.unlink()
    return ""


def violations(page: Page, axe: str) -> list[dict[str, Any]]:
    """What axe finds that is serious, each with the elements that it is about."""
    page.evaluate(axe)  # not a script element: the pages' policy allows none but their own
    found = page.evaluate(_RUN)
    return [
        {"rule": one["id"], "what": one["help"], "where": [node["html"][:160] for node in one["nodes"][:5]],
         "why": one["nodes"][0]["failureSummary"][:300]}
        for one in found if one["impact"] in SERIOUS
    ]  # fmt: skip


def told(found: list[dict[str, Any]]) -> str:
    return json.dumps(found, indent=1, ensure_ascii=False)
