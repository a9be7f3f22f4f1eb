"""The table in docs/settings.md, from the settings themselves.

.venv/bin/python -m tests.docs.settings_table     writes it anew
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import SecretStr

from spex_proxy.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
BEGIN = "<!-- table: written by `python -m tests.docs.settings_table` -->\n"
END = "<!-- end of table -->\n"


def table() -> str:
    """One line a setting: environment name, default, help."""
    lines = ["| Environment | Default | What it does |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        lines.append(f"| `SPEX_{name.upper()}` | {_shown(field.default)} | {field.description} |")
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """The page with the table in its place."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


def _shown(default: Any) -> str:
    if default is None:
        return "none"
    if isinstance(default, SecretStr):
        return "a word that everybody knows"
    return f"`{default}`" if default != "" else "empty"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
