"""docs/settings.md says what the code does: every setting, its default, its help."""

from __future__ import annotations

import re

from spex_proxy.settings import Settings
from tests.docs.settings_table import PAGE, page


def test_the_table_is_up_to_date() -> None:
    text = PAGE.read_text()
    assert text == page(text), "run `.venv/bin/python -m tests.docs.settings_table`"


def test_every_setting_is_named_and_no_other() -> None:
    named = set(re.findall(r"SPEX_[A-Z0-9_]+", PAGE.read_text()))
    assert named == {f"SPEX_{name.upper()}" for name in Settings.model_fields}


def test_no_secret_default_is_printed() -> None:
    for field in Settings.model_fields.values():
        if hasattr(field.default, "get_secret_value"):
            assert f"`{field.default.get_secret_value()}`" not in PAGE.read_text()
