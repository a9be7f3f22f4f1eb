"""docs/components.md and its example say what the plugin reads."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from spex_proxy_components.questions import KNOWN
from spex_proxy_components.settings import Wanted

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "components.md").read_text()


def test_the_page_has_every_name_and_its_default() -> None:
    table = PAGE.partition("## The configuration")[2].partition("A question has")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", table, re.MULTILINE))
    assert list(rows) == [field.name for field in dataclasses.fields(Wanted)]
    for field in dataclasses.fields(Wanted):
        default: Any = field.default
        if isinstance(default, bool):
            default = str(default).lower()
        if isinstance(default, str | int):
            assert rows[field.name] == f"`{default}`", field.name


def test_the_page_has_all_of_a_question() -> None:
    assert [name for name in KNOWN if f"`{name}`" not in PAGE] == []


def test_the_example_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = Wanted.of(yaml.safe_load((ROOT / "docs" / "examples" / "heads.yaml").read_text()))
    assert (found.layers, found.value, len(found.questions)) == ((24, 30), "logit_difference", 8)
