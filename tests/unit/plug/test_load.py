"""Plugins are refused at load, by name, with what to mend; at work, their failures are contained."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from spex_proxy.facts.errors import CannotExplain, PluginError
from spex_proxy.plug.kinds import KINDS
from spex_proxy.plug.load import Plugins, call
from tests.unit.examples import an_exchange


def point(kind: str, name: str, value: str) -> EntryPoint:
    group, _ = KINDS[kind]
    return EntryPoint(name, value, group)


def offering(kind: str, name: str, value: str) -> Plugins:
    return Plugins([point(kind, name, f"tests.unit.plug.strangers:{value}")])


def test_a_good_plugin_is_loaded_once_and_kept() -> None:
    plugins = offering("segmenter", "good", "Good")
    assert [(r.start, r.end) for r in plugins.segmenter("good").split(an_exchange())] == [(0, 1)]
    assert plugins.segmenter("good") is plugins.segmenter("good")
    assert plugins.names("segmenter") == ["good"]
    assert plugins.names("masker") == []


def test_more_arguments_are_no_harm_if_they_have_defaults() -> None:
    assert offering("value", "mean", "GoodValue").value("mean").read([[1.0, 3.0]]).tolist() == [2.0]


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("segmenter", "OtherName", "its `name` is 'better', not 'bad'"),
        ("segmenter", "NoName", "its `name` is None, not 'bad'"),
        ("segmenter", "NoMethod", "it has no method `split`"),
        ("segmenter", "MethodIsText", "it has no method `split`"),
        ("segmenter", "TooFewArguments", r"`split` must take \(exchange\)"),
        ("segmenter", "TooManyArguments", r"`split` must take \(exchange\): .*language"),
        ("segmenter", "KeywordNeeded", r"`split` must take \(exchange\): .*language"),
        ("segmenter", "Async", "`split` must be a plain function"),
        ("masker", "NoMethod", "it has no method `apply`"),
        ("value", "NoUnit", "it has no attribute `unit` that is a `str`"),
        ("value", "UnitIsNumber", "it has no attribute `unit` that is a `str`"),
        ("segmenter", "NeedsArguments", "can't be loaded: TypeError: .*path"),
        ("segmenter", "FailsAtStart", "can't be loaded: OSError: no such dictionary: words.txt"),
        ("segmenter", "FailsWhenLookedAt", "can't be loaded: RuntimeError: not ready"),
        ("segmenter", "Exits", "can't be loaded: SystemExit: 3"),
        ("segmenter", "not_callable", "can't be loaded: TypeError: .*not callable"),
        ("segmenter", "Missing", "can't be loaded: AttributeError: .*Missing"),
    ],
)
def test_refused_by_name_with_what_to_mend(kind: str, value: str, said: str) -> None:
    with pytest.raises(PluginError, match=said) as refused:
        offering(kind, "bad", value).get(kind, "bad")
    # who it is: kind, name, where it comes from
    assert f"the {kind} 'bad'" in str(refused.value)
    assert f"tests.unit.plug.strangers:{value}" in str(refused.value)


@pytest.mark.parametrize("module", ["no_such_package.plugin", "tests.unit.plug.no_such_module"])
def test_what_cannot_be_imported(module: str) -> None:
    plugins = Plugins([point("masker", "lost", f"{module}:Masker")])
    with pytest.raises(PluginError, match=r"the masker 'lost' \(.*\) can't be loaded: ModuleNotFoundError"):
        plugins.masker("lost")


def test_a_refused_plugin_is_refused_again() -> None:
    plugins = offering("segmenter", "bad", "NoMethod")
    for _ in range(2):
        with pytest.raises(PluginError, match="no method"):
            plugins.segmenter("bad")


def test_two_plugins_of_one_name() -> None:
    twice = [point("segmenter", "good", f"tests.unit.plug.strangers:{value}") for value in ("Good", "OtherName")]
    with pytest.raises(PluginError, match=r"two plugins offer the segmenter 'good': .* and .*Uninstall one"):
        Plugins(twice).segmenter("good")


def test_one_name_in_two_kinds_is_no_clash() -> None:
    plugins = Plugins([*offering("segmenter", "good", "Good")._of("segmenter"), point("masker", "good", "x:y")])
    assert plugins.segmenter("good").name == "good"


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(PluginError, match=r"no segmenter is called 'word'\. Installed: good"):
        offering("segmenter", "good", "Good").segmenter("word")
    with pytest.raises(PluginError, match=r"no value is called 'word'\. Installed: none"):
        offering("segmenter", "good", "Good").value("word")


def test_a_failure_at_work_names_the_plugin_and_keeps_the_cause() -> None:
    segmenter = offering("segmenter", "fails", "FailsAtWork").segmenter("fails")
    with pytest.raises(PluginError, match="the segmenter 'fails' failed with a ZeroDivisionError") as failed:
        call("segmenter", "fails", segmenter.split, an_exchange(output_text=""))
    assert isinstance(failed.value.__cause__, ZeroDivisionError)
    assert call("segmenter", "fails", segmenter.split, an_exchange(output_text="x"))[0].end == 1


def test_a_plugin_may_say_no_to_one_exchange() -> None:
    segmenter = offering("segmenter", "no", "SaysNo").segmenter("no")
    with pytest.raises(CannotExplain, match="only chats in Latin script"):
        call("segmenter", "no", segmenter.split, an_exchange())


def test_the_built_in_plugins_come_through_the_same_door() -> None:
    plugins = Plugins()
    assert {"auto", "message", "sentence", "word"} <= set(plugins.names("segmenter"))
    for kind in KINDS:
        for name in plugins.names(kind):
            plugin = plugins.get(kind, name)
            assert plugin.provenance.startswith("spex-proxy ")
    assert set(plugins.provenance(value="sum_logprob", masker="delete")) == {"masker:delete", "value:sum_logprob"}
