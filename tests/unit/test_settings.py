"""Settings: from environment and options, refused with the name of the setting, never leaking a secret."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
from pydantic import ValidationError

from spex_proxy.cli import shell
from spex_proxy.facts.errors import SettingsError
from spex_proxy.facts.recipe import Recipe
from spex_proxy.settings import Settings
from spex_proxy.wiring.shared import make_recipe
from spex_proxy.wiring.together import environment_of


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("SPEX_"):
            monkeypatch.delenv(name)


def refusal(**options: Any) -> str:
    with pytest.raises(SettingsError) as refused:
        shell.settings_from(**options)
    return str(refused.value)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_a_help_and_a_default(name: str) -> None:
    field = Settings.model_fields[name]
    assert field.description is not None
    assert re.fullmatch(r"[A-Zv].{10,}\.", field.description), "one sentence, for a table"
    assert not field.is_required()


OTHER = {
    "upstream": "http://gpu:1", "upstream_ca": "ca.pem", "workers": "4",
    "upstream_api_key": "sk-1", "store": "sqlite:///x.db", "project": "p",
    "host": "10.0.0.1", "port": "1", "admin_host": "::1", "admin_names": "spex", "admin_port": "2",
    "capture_rate": "0.5", "explain_rate": "1.0", "draw_secret": "s3", "max_body_bytes": "1", "queue_items": "2",
    "queue_bytes": "3", "handoff": "durable", "spool": "spool", "spool_bytes": "4",
    "handoff_wait_s": "1.5",
    "segmenter": "word", "masker": "m", "value": "v", "method": "other", "budget": "8", "target_r2": "0.5",
    "seed": "9", "background_priority": "7", "scheduling_policy": "priority", "worker_concurrency": "3",
    "review_labels": "fine,bad", "review_hold_s": "60.0",
    "worker_ttl_s": "2.5", "job_tries": "4", "job_pause_s": "0.5", "otlp_endpoint": "http://c:4318",
    "log_level": "DEBUG",
    "scorer": "completions", "webhook_secret": "w4", "gate": "off", "board": "board", "gate_hours": "22:00-06:00",
    "tokens_per_minute": "5", "tokens_per_hour": "6", "tokens_per_day": "7",
    "rules": "rules.yaml", "explain_callers": "nobody", "explain_key": "k", "handover_key": "k", "worker_port": "8082",
}  # fmt: skip
"""For each setting a value that is not its default, as the environment holds it."""


def plain(value: Any) -> str:
    return str(value.get_secret_value() if hasattr(value, "get_secret_value") else value)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_each_is_read_from_its_environment_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plain(getattr(Settings(), name)) != OTHER[name]
    monkeypatch.setenv(f"SPEX_{name.upper()}", OTHER[name])
    assert plain(getattr(Settings(), name)) == OTHER[name]


def test_an_option_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEX_PORT", "1111")
    assert shell.settings_from(port=None).port == 1111
    assert shell.settings_from(port=2222).port == 2222


def test_children_get_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """`up` hands its own settings, options among them, to the relay and the worker."""
    settings = Settings(**{name: value for name, value in OTHER.items()})  # noqa: C416 - as keyword arguments
    for name, value in environment_of(settings).items():
        if name.startswith("SPEX_"):
            monkeypatch.setenv(name, value)
    assert Settings() == settings


def test_a_setting_that_is_none_stays_none_in_children(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = environment_of(Settings())
    assert "SPEX_OTLP_ENDPOINT" not in environment
    assert environment["SPEX_DRAW_SECRET"] == "spex"
    assert set(os.environ) <= set(environment)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("upstream", "gpu-box:8000", "must begin with http:// or https://"),
        ("upstream", "", "must begin with http:// or https://"),
        ("upstream", "ftp://gpu-box", "must begin with http:// or https://"),
        ("upstream", "http://gpu-box:8000/v1/", "must not end with /v1"),
        ("upstream", "http://a:1,,b:2", "must begin with http:// or https://"),
        ("upstream", "unix:/", "unix:/PATH"),
        ("workers", "0", "greater than or equal to 1"),
        ("project", "", "at least 1 character"),
        ("port", "http", "valid integer"),
        ("port", "65536", "less than or equal to 65535"),
        ("port", "-1", "greater than or equal to 0"),
        ("capture_rate", "1.5", "less than or equal to 1"),
        ("explain_rate", "-0.1", "greater than or equal to 0"),
        ("explain_rate", "nan", "equal to 1"),
        ("explain_rate", "5%", "valid number"),
        ("budget", "7", "greater than or equal to 8"),
        ("seed", "-1", "greater than or equal to 0"),
        ("background_priority", "0", "greater than 0"),  # 0 is production's
        ("queue_items", "0", "greater than 0"),
        ("log_level", "loud", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
    ],
)
def test_what_cannot_work_is_refused_by_name(name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"SPEX_{name.upper()}", value)
    message = refusal()
    assert message.startswith(f"these settings can't work:\n  {name} (SPEX_{name.upper()}): ")
    assert said in message
    assert "pydantic" not in message


def test_all_troubles_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEX_BUDGET", "x")
    message = refusal(port=-1)
    assert [line.split(" ")[2] for line in message.splitlines()[1:]] == ["port", "budget"]


def test_a_wrong_secret_is_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEX_STORE", "sqlite:///ok.db")
    assert "hunter2" not in refusal(upstream="hunter2", port="hunter2")


def test_an_unknown_option_is_a_mistake_of_ours() -> None:
    assert refusal(colour="red").endswith("colour (SPEX_COLOUR): Extra inputs are not permitted")


def test_secrets_are_not_shown() -> None:
    settings = Settings(upstream_api_key="hunter2", draw_secret="hunter3")
    assert "hunter" not in repr(settings) + str(settings)


def test_they_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1


@pytest.mark.parametrize("level", ["debug", "Info", "WARNING"])
def test_log_levels_in_any_case(level: str) -> None:
    assert Settings(log_level=level).log_level == level.upper()


def test_a_slash_at_the_upstreams_end_is_no_part_of_it() -> None:
    assert Settings(upstream="https://gpu-box/llm/").upstream == "https://gpu-box/llm"


def test_several_upstreams_have_commas_between_or_options_of_their_own() -> None:
    several = Settings(upstream="http://a:1/, https://b/llm/,unix:/run/v.sock,http://a:1")
    assert several.upstreams == ("http://a:1", "https://b/llm", "unix:/run/v.sock")
    assert shell.settings_from(upstream=["http://a:1", "http://b:2,http://c:3"]).upstreams == (
        "http://a:1", "http://b:2", "http://c:3"
    )  # fmt: skip
    assert shell.settings_from(upstream=[]).upstreams == ("http://127.0.0.1:8000",)


def test_the_recipe_is_what_the_settings_say() -> None:
    chosen = {"segmenter": "word", "masker": "m", "value": "v", "budget": 9, "seed": 3, "target_r2": 0.5}
    assert make_recipe(Settings(**chosen)) == Recipe(**chosen)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=r"method 'magic' \(SPEX_METHOD\) is unknown; there is .*stack"):
        make_recipe(Settings(method="magic"))
