"""What `doctor` found, for a terminal and for a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from spex_proxy.facts.finding import Finding, Level
from spex_proxy.study.text import plain

MARKS: dict[Level, tuple[str, str]] = {
    "ok": ("✓", "green"),
    "warning": ("!", "bold yellow"),
    "broken": ("✗", "bold red"),
    "unknown": ("?", "cyan"),
}
ONE_LINE = 60
"""Found and advice together up to so many characters stand on one line."""
NAME_WIDTH = 16
"""The longest name; fixed, because lines are printed as they become known."""


def is_broken(findings: Sequence[Finding]) -> bool:
    return any(finding.level == "broken" for finding in findings)


def finding_line(finding: Finding) -> RenderableType:
    """Mark, name, what was found and, under it, what to do."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1))
    table.add_column(width=1)
    table.add_column(width=NAME_WIDTH, no_wrap=True)
    table.add_column(overflow="fold")
    found, advice = plain(finding.found), plain(finding.advice)
    said = Text(found)
    if advice:
        said.append(f"{'  ' if len(found) + len(advice) <= ONE_LINE else chr(10)}→ {advice}", "dim")
    table.add_row(Text(*MARKS[finding.level]), Text(finding.name, "bold"), said)
    return table


def summary(findings: Sequence[Finding]) -> RenderableType:
    """One line at the end: how many of each level."""
    counts = {level: sum(finding.level == level for finding in findings) for level in MARKS}
    words = {"unknown": "cannot be known"}
    parts = [f"{MARKS[level][0]} {number} {words.get(level, level)}" for level, number in counts.items() if number]
    return Text("   ".join(parts), style="bold red" if is_broken(findings) else "dim")


def as_json(findings: Sequence[Finding], version: str) -> dict[str, Any]:
    """For programs: stable names and levels, text that may change."""
    return {
        "version": version,
        "is_broken": is_broken(findings),
        "findings": [{"name": f.name, "level": f.level, "found": f.found, "advice": f.advice} for f in findings],
    }
