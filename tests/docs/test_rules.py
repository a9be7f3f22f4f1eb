"""The example in docs/rules.md works and says what the page says; every field stands on the page."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from typer.testing import CliRunner

from spex_proxy.cli import app
from spex_proxy.facts.rules import Action, Rule, When
from spex_proxy.settings import Settings
from spex_proxy.wiring.sampling import load_book

PAGE = (Path(__file__).parents[2] / "docs" / "rules.md").read_text()
EXAMPLE = PAGE.partition("```yaml\n")[2].partition("```")[0]


def test_the_example_works(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(EXAMPLE)
    book = load_book(Settings(), file)
    assert [rule.name for rule in book.rules] == ["contracts", "unsure", "bookings", "look-at-it", "rest", "default"]
    contracts, unsure, bookings, look, rest, default = book.rules
    assert contracts.when.header == (("x-team", ("legal", "legal-*")),)
    assert (contracts.recipe.budget, contracts.recipe.segmenter, contracts.priority) == (512, "document", 2)
    assert (unsure.per_day, unsure.per_minute, unsure.recipe) == (50, None, default.recipe)
    assert look.action == Action(explain=True, queue="review", keep_days=365)
    assert [watch.name for watch in book.watches] == ["refusal", "secret", "untrusted"]
    assert (bookings.explain, rest.capture) == (0.0, 0.1)


def test_every_field_stands_on_the_page() -> None:
    for field in (*dataclasses.fields(Rule), *dataclasses.fields(When)):
        assert f"`{field.name}`" in PAGE, field.name


def test_check_says_what_rules_would_do(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(EXAMPLE)
    result = CliRunner().invoke(app, ["rules", "check", str(file)])
    assert result.exit_code == 0
    for line in (
        "1. contracts",
        "fits header x-team: legal or legal-* and input has /(?i)contract|clause/",
        "explains 0.2 of the captured, at most 2 a minute and 200 a day",
        "recipe: segmenter document, budget 512, target_r2 0.9",
        "captures 0.5 of them (every request that may turn out to be one is read first)",
        "6. default",
        "these rules work: sha256:",
    ):
        assert line in result.output
    assert "never reached" not in result.output


def test_check_names_rules_that_are_never_reached(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("rules:\n  - {name: all}\n  - {name: late, when: {model: m}}\n")
    result = CliRunner().invoke(app, ["rules", "check", str(file)])
    assert "never reached: late" in result.output


def test_check_says_what_is_wrong_and_where(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("rules:\n  - name: a\n    capture: 3\n")
    result = CliRunner().invoke(app, ["rules", "check", str(file)])
    assert result.exit_code != 0
    assert f"{file}:3:14: must be a share from 0 to 1, not 3" in str(result.exception)
