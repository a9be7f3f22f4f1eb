"""The relay's benchmark: medians, ratios and verdicts by hand; refused arguments; and one short run of it."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from bench.overhead import __main__ as bench
from bench.overhead import plot
from bench.overhead.load import Seen, request
from bench.overhead.measure import numbers
from bench.overhead.table import added, against, in_words, plain, spread, tables, times_direct
from bench.overhead.targets import DIRECT, peer
from bench.overhead.verdicts import told_of, verdicts


def cell(p50=1.0, noise=0.0, **more):
    base = {"latency_p50": p50, "latency_p99": 2 * p50, "cpu_s_per_1000": 0.1, "per_core_second": 1000.0}
    return base | {"noise": noise, "errors": 0, "error": ""} | more


ROUNDS = [
    {DIRECT: cell(1.0), "1%": cell(1.4), "nginx": cell(1.2)},
    {DIRECT: cell(1.0), "1%": cell(1.8), "nginx": cell(1.2)},
    {DIRECT: cell(5.0), "1%": cell(5.9), "nginx": cell(5.3)},
]


def record(rounds=ROUNDS, **more):
    return {"scenarios": {"small": rounds}, "aborts": {}, "most_noise": 0.35} | more


def test_differences_and_ratios_are_of_one_round():
    found = spread(ROUNDS, "1%", added("latency_p50"), 0.35)
    assert (found.median, found.low, found.high, found.rounds) == pytest.approx((0.8, 0.4, 0.9, 3))
    ratio = spread(ROUNDS, "1%", against("nginx", added("latency_p50")), 0.35, "nginx")
    assert (ratio.median, ratio.low, ratio.high) == pytest.approx((3.0, 2.0, 4.0))
    assert spread(ROUNDS, "1%", times_direct("latency_p50"), 0.35).median == pytest.approx(1.4)


def test_a_round_in_which_others_were_busy_does_not_count():
    noisy = [*ROUNDS, {DIRECT: cell(1.0), "1%": cell(99.0, noise=0.5), "nginx": cell(1.2)}]
    assert spread(noisy, "1%", added("latency_p50"), 0.35).high == pytest.approx(0.9)
    # nor does one in which only what it is compared with was disturbed
    beside = [*ROUNDS, {DIRECT: cell(1.0, noise=0.5), "1%": cell(99.0), "nginx": cell(1.2)}]
    assert spread(beside, "1%", added("latency_p50"), 0.35).high == pytest.approx(0.9)


def test_without_a_quiet_round_all_count_and_it_is_said():
    noisy = [{DIRECT: cell(1.0), "1%": cell(3.0, noise=2.0)}]
    found = spread(noisy, "1%", plain("latency_p50"), 0.35)
    assert not found.is_quiet
    assert str(found) == "3.000 (3.000..3.000) noisy"


def test_what_was_not_measured_is_a_dash():
    assert str(spread(ROUNDS, "1%", plain("stored"), 0.35)) == "-"
    assert str(spread(ROUNDS, "haproxy", plain("latency_p50"), 0.35)) == "-"


def test_verdicts_say_by_how_much():
    lines = verdicts(record()).splitlines()
    assert (
        "| sequential 1 KB: added p50 over nginx's, capture 1% | at most 2 | 3.000 (2.000..4.000) | missed by 1.000 |"
        in lines
    )
    assert told_of(0.29, 0.3, at_most=False) == "missed by 0.010"
    assert told_of(0.3, 0.3, at_most=False) == told_of(2.0, 2.0, at_most=True) == "met"


def test_without_a_quiet_round_there_is_no_verdict():
    loud = [{name: {**each, "noise": 2.0} for name, each in cells.items()} for cells in ROUNDS]
    assert all(line.endswith("| not known: no quiet round |") for line in verdicts(record(loud)).splitlines()[2:])


def test_an_abort_that_was_never_seen_is_missed():
    told = {"1%": {"seconds": {name: [0.001, None] for name in ("before headers",)}, "same_bytes": False}}
    said = verdicts(record(aborts=told))
    assert "| at most 50 | inf | missed by inf |" in said
    assert "a body arrives with the same bytes, capture 1% | yes | | missed |" in said
    assert in_words([0.001, 0.003, None]) == "2.0 (..3.0), 1 never"
    assert in_words([None]) == "never"


def test_the_tables_and_the_plot_show_every_target():
    shown = tables(record())
    assert "### Sequential, prompts of 1 KB" in shown
    assert "| 1% | 1.800 (1.400..5.900) | 0.800 (0.400..0.900) |" in shown
    drawn = plot.draw(record())
    ElementTree.fromstring(drawn)
    assert "ours, 1%" in drawn
    assert "nginx" in drawn


def test_numbers_of_a_round():
    seen = Seen(latency=[1_000_000, 3_000_000], delay=[500_000] * 4, first_event=[2_000_000], seconds=2.0)
    found = numbers(seen, cpu_s=0.5)
    assert (found["per_second"], found["per_core_second"], found["cpu_s_per_1000"]) == (1.0, 4.0, 250.0)
    assert (found["latency_p50"], found["first_event_p50"], found["delay_p99"]) == (2.0, 2.0, 0.5)
    assert (found["cpu_us_per_event"], found["events_per_second"]) == (125_000.0, 2.0)


def test_a_request_is_as_long_as_asked_and_carries_its_script():
    sent = request(80, prompt_bytes=1024, stream=True, script="first=1,tag=x")
    head, _, body = sent.partition(b"\r\n\r\n")
    assert b"content-length: %d" % len(body) in head
    asked = json.loads(body)
    assert len(asked["messages"][0]["content"]) == 1024
    assert asked["messages"][0]["content"].startswith("script:first=1,tag=x; word")
    assert asked["stream"] is True


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--targets", "ngnix"], "unknown targets ngnix: choose from off, 1%, 100%, nginx, haproxy"),
        (["--only", "fast"], "invalid choice: 'fast'"),
        (["--rounds", "0"], "must be at least 1"),
        (["--peer", "litellm=litellm --port 1"], "is not NAME=COMMAND with {upstream} and {port}"),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_possible(given, said, capsys):
    with pytest.raises(SystemExit):
        bench.arguments(given)
    assert said in capsys.readouterr().err


def test_a_peer_is_a_name_a_model_and_a_command():
    assert peer("x:m=serve {upstream} {port}").model == "m"
    assert bench.arguments(["--peer", "x=s {upstream} {port}"]).targets[-1] == "x"


@pytest.mark.slow
def test_the_bench_runs_against_our_relay(tmp_path, monkeypatch):
    """A few requests: so that it does not rot. What it measures here means nothing."""
    path = tmp_path / "record.json"
    scenarios = {"only": ["small", "paced", "streams", "aborts"], "targets": ["100%"]}
    words = [word for name, values in scenarios.items() for word in (f"--{name}", *values)]
    monkeypatch.setattr("bench.overhead.measure.ROUND_TRIES", 1)
    bench.main([*words, "--rounds", "1", "--seconds", "0.2", "--tries", "1", "--json", str(path)])
    told = json.loads(path.read_text())
    assert set(told["scenarios"]) == {"small", "paced", "streams"}
    for rounds in told["scenarios"].values():
        assert [set(cells) for cells in rounds] == [{DIRECT, "100%"}]
        assert all(each["errors"] == 0 and each["answered"] > 0 for each in rounds[0].values())
        ours = rounds[0]["100%"]
        assert ours["watched"] == ours["stored"] == ours["answered"]
        assert ours["dropped"] == 0
    streams = told["scenarios"]["streams"][0]
    assert streams["100%"]["answered"] == streams[DIRECT]["answered"] == 96
    assert told["aborts"]["100%"]["same_bytes"]
    assert all(None not in tries for tries in told["aborts"]["100%"]["seconds"].values())
