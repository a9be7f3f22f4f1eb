"""The benchmark's one stable form, on a game that is made up here."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench import faithfulness
from spex_proxy.engine import designs


@pytest.fixture
def folder(tmp_path, sparse_game, small_trees):
    corner = np.array([[True] * 10, [False] * 10])
    masks = np.concatenate([corner, designs.uniform_masks(10, 300, 0)])
    values = sparse_game(10, noise=0.1)(masks)
    np.savez(tmp_path / "made_up.npz", masks=np.packbits(masks, axis=1), n=10, values=values, n_test=100)
    return tmp_path


def test_json_is_one_object_a_line(folder, capsys):
    faithfulness.main(
        ["--games", str(folder), "--methods", "proxyspex", "--budgets", "40,6n", "--seeds", "0,1", "--json"]
    )
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for line in lines:
        assert list(line) == ["game", "method", "masks", "seed", "r2", "fit_seconds"]
        assert line["game"] == "made_up"
        assert 0.5 < line["r2"] <= 1
    assert [(line["method"], line["masks"], line["seed"]) for line in lines] == [
        ("proxyspex", masks, seed) for masks in (40, 60) for seed in (0, 1)
    ]


def test_the_table_names_every_cell(folder, capsys):
    given = ["--games", str(folder), "--methods", "stack,proxyspex", "--budgets", "40", "--seeds", "0", "--live", ""]
    faithfulness.main(given)
    printed = capsys.readouterr().out
    assert "| made_up, 40 |" in printed
    assert "stack: geometric mean of 1 - R2 over all 1 fits" in printed
    assert "proxyspex: geometric mean of 1 - R2 over all 1 fits" in printed
    assert "no peer is recorded for these games" in printed


@pytest.mark.parametrize(
    "given", [["--methods", "magic"], ["--budgets", "203"], ["--games", "nowhere"]], ids=["method", "budget", "folder"]
)
def test_what_cannot_be_done_is_refused(given, folder):
    with pytest.raises(SystemExit):
        faithfulness.main(["--games", str(folder), "--seeds", "0", *given])


def test_a_file_that_is_no_game_is_named(tmp_path):
    np.savez(tmp_path / "other.npz", n=3)
    with pytest.raises(SystemExit, match=r"other\.npz"):
        faithfulness.main(["--games", str(tmp_path)])
