"""A stranger's distribution, really installed: found through its entry points, used, and refused where it is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "plugin_package"

SCRIPT = """
import json
from spex_proxy.facts.errors import PluginError
from spex_proxy.plug.load import Plugins, call
from tests.unit.examples import chat

plugins, exchange = Plugins(), chat("One.\\n\\nTwo\\nthree.")

def refusal(kind, name):
    try:
        plugins.get(kind, name)
    except PluginError as error:
        return str(error)

ranges = call("segmenter", "paragraph", plugins.segmenter("paragraph").split, exchange)
print(json.dumps({
    "names": plugins.names("segmenter"),
    "texts": [exchange.messages[r.message].text[r.start:r.end] for r in ranges],
    "provenance": dict(plugins.provenance(segmenter="paragraph", masker="delete")),
    "message": refusal("segmenter", "message"),
    "old": refusal("segmenter", "old"),
    "broken": refusal("masker", "broken"),
}))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What a process sees that has the package on its path."""
    folder = tmp_path_factory.mktemp("site")
    install = [
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index",
        "--no-deps", "--no-build-isolation", "--target", str(folder), str(PACKAGE),
    ]  # fmt: skip
    subprocess.run(install, check=True, timeout=120)
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    root = PACKAGE.parents[1]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, cwd=root, check=True, capture_output=True, timeout=60
    )
    out: dict[str, object] = json.loads(done.stdout)
    return out


def test_it_is_found_and_used(seen: dict[str, object]) -> None:
    names = seen["names"]
    assert isinstance(names, list)
    assert [name for name in names if name in ("message", "old", "paragraph", "word")] == [
        "message", "message", "old", "paragraph", "word",
    ]  # fmt: skip
    assert seen["texts"] == ["One.", "Two\nthree."]


def test_results_say_where_it_came_from(seen: dict[str, object]) -> None:
    provenance = seen["provenance"]
    assert isinstance(provenance, dict)
    assert provenance["segmenter:paragraph"] == "spex-proxy-paragraphs 2.1"
    assert provenance["masker:delete"].startswith("spex-proxy ")


def test_a_name_that_is_taken_names_both_owners(seen: dict[str, object]) -> None:
    said = str(seen["message"])
    assert said.startswith("two plugins offer the segmenter 'message': spex-proxy ")
    assert "and spex-proxy-paragraphs 2.1. Uninstall one." in said


def test_a_plugin_for_another_version_and_a_broken_one_are_refused_by_name(seen: dict[str, object]) -> None:
    assert seen["old"] == (
        "the segmenter 'old' (spex-proxy-paragraphs 2.1, spex_proxy_paragraphs:WrittenForAnotherVersion) is refused: "
        "it has no method `split`."
    )
    assert "the masker 'broken' (spex-proxy-paragraphs 2.1" in str(seen["broken"])
    assert "No module named 'a_package_that_nobody_has'" in str(seen["broken"])
