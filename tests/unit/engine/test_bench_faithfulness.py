"""The benchmark's one stable form, on a game that is made up here."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from bench import faithfulness
from spex_proxy.engine import draws


@pytest.fixture
def folder(tmp_path, sparse_game, small_trees):
    corner = np.array([[True] * 10, [False] * 10])
    masks = np.concatenate([corner, draws.uniform_masks(10, 300, 0)])
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


def test_a_folder_of_any_games_gives_every_cell(tmp_path, small_trees, capsys):
    """Six players measured with noise, so that masks come again with other values, and seventy without."""
    stream = np.random.default_rng(3)
    for name, n, noise in (("six", 6, 0.1), ("seventy", 70, 0.0)):
        masks = np.concatenate([[[True] * n, [False] * n], stream.random((120, n)) < 0.5])
        values = masks[:, 0] * (1.0 + masks[:, 1]) - masks[:, 2] + noise * stream.normal(size=len(masks))
        np.savez(tmp_path / f"{name}.npz", masks=np.packbits(masks, axis=1), n=n, values=values, n_test=40)
    budgets, methods = (24, 64), ("stack", "proxyspex")
    given = ["--methods", ",".join(methods), "--budgets", "24,64", "--seeds", "1", "--json"]
    faithfulness.main(["--games", str(tmp_path), *given])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["game"], line["masks"], line["seed"], line["method"]) for line in lines] == list(
        itertools.product(("seventy", "six"), budgets, (1,), methods)
    )
    assert all(line["fit_seconds"] > 0 for line in lines)
    assert min(line["r2"] for line in lines if line["game"] == "six") > 0.8
    assert min(line["r2"] for line in lines if line["masks"] == 64) > 0.3


def test_more_masks_than_a_file_has_are_refused_before_the_first_fit(folder, capsys):
    with pytest.raises(SystemExit, match="made_up has 202 training rows, not 512"):
        faithfulness.main(["--games", str(folder), "--budgets", "40,512", "--seeds", "0", "--json"])
    assert capsys.readouterr().out == ""


def test_fewer_masks_than_a_fit_needs_are_refused_by_name(folder):
    with pytest.raises(SystemExit, match=r"made_up, 7 masks, seed 0: .* at least"):
        faithfulness.main(["--games", str(folder), "--budgets", "7", "--seeds", "0", "--json"])


def test_a_file_that_is_no_game_is_named(tmp_path):
    np.savez(tmp_path / "other.npz", n=3)
    with pytest.raises(SystemExit, match=r"other\.npz"):
        faithfulness.main(["--games", str(tmp_path)])
