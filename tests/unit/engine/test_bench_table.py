"""What the benchmark says of given fits: ratios, medians and verdicts by hand; the plots are well-formed."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from bench import plots, table
from bench.table import PEER


def fit(game, method, masks, r2, seed=0):
    return {
        "game": game, "method": method, "masks": masks, "seed": seed, "r2": r2, "fit_seconds": 1.0,
        "claimed": r2, "low": r2 - 0.1, "high": r2 + 0.1, "digest": "d",
    }  # fmt: skip


OURS = [
    *(fit("easy_n8", "stack", 64, r2, seed) for seed, r2 in enumerate((0.90, 0.95, 0.20))),
    fit("hard_n8", "stack", 64, 0.60),
]
PEERS = [
    fit("easy_n8", PEER, 64, 0.60), fit("easy_n8", PEER, 128, 0.95),
    fit("hard_n8", PEER, 64, 0.36), fit("hard_n8", PEER, 128, 0.55),
]  # fmt: skip


def test_verdicts_are_those_of_the_medians():
    lines = table.verdicts(OURS, PEERS, ["stack"])
    # medians .90 and .60: .1 / .4 = .25 and .4 / .64 = .625, sqrt(.25 x .625) = .395
    assert "stack, geometric mean: 0.395, at most 0.55 is asked: met (the goal is 0.40)" in lines
    assert "stack, worst cell: 0.625, at most 1.05 is asked: met" in lines
    assert "stack with N masks reaches the peer's R2 with 2N in 1 of 2 cells: met" in lines


def test_a_miss_is_told_with_its_size():
    lines = table.verdicts([fit("hard_n8", "stack", 64, 0.2)], PEERS, ["stack"])
    assert "stack, geometric mean: 1.250, at most 0.55 is asked: missed by 0.700 (the goal is 0.40)" in lines
    assert "stack, worst cell: 1.250, at most 1.05 is asked: missed by 0.200" in lines
    assert "stack with N masks reaches the peer's R2 with 2N in 0 of 1 cells: missed" in lines


def test_a_row_holds_the_peer_the_ratio_and_twice_the_masks():
    row = table.recorded(OURS, PEERS, ["stack"]).splitlines()[2]
    assert [part.strip() for part in row.strip("|").split("|")] == [
        "easy_n8, 64", "0.600", "0.900", "0.25", "0.950", "0.900", "3/3", "1.0",
    ]  # fmt: skip


def test_a_live_method_that_fails_is_named():
    cells = [fit("made", PEER, 64, 0.5), {"game": "made", "method": "spex", "masks": 64, "seed": 0, "failed": "few"}]
    assert "spex failed 1 of 1 times at made, 64: few" in table.live(cells)


def test_live_games_are_compared_on_the_same_seeds():
    cells = [fit("made", PEER, 64, 0.5), fit("made", "stack", 64, 0.75), fit("made", "stack", 64, 0.99, seed=1)]
    lines = [line.replace(" ", "") for line in table.live(cells).splitlines()]
    assert "|made,64|0.500|0.750|" in lines
    assert "|made,64|1.000|0.500|" in lines


@pytest.mark.parametrize("name", ["faithfulness.svg", "unexplained.svg"])
def test_plots_show_each_figure(tmp_path, name):
    assert tmp_path / name in plots.write(tmp_path, OURS, PEERS)
    titles = [title.text for title in ElementTree.parse(tmp_path / name).iter("{http://www.w3.org/2000/svg}title")]
    shown = {"faithfulness.svg": {"0.900", "0.600", "0.360"}, "unexplained.svg": {"easy_n8: 0.25", "hard_n8: 0.62"}}
    assert shown[name] <= set(titles)
