"""Tables that somebody else measured: what they hold is answered, nothing else is."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from spex_proxy.engine import designs, walsh
from spex_proxy.engine.decide import settle
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.spectrum import Spectrum
from spex_proxy.plug.kinds import OpenGame, Recorded
from spex_proxy_training import table_files
from spex_proxy_training.section import Section
from spex_proxy_training.table import KNOWN, Lookup, Table, evidence, load

MASKS = np.asarray([[1, 1, 1], [0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=np.bool_)
VALUES = np.asarray([[3.0, 1.0], [1.0, 0.0], [2.0, -1.0], [2.0, 0.5]])


def saved(folder: Path, **arrays: Any) -> str:
    path = folder / "table.npz"
    np.savez(path, **{"masks": MASKS, "values": VALUES, **arrays})
    return str(path)


def opened(file: str, **config: Any) -> OpenGame:
    return Table().open({"file": file, **config}, None)


def test_what_it_holds_is_answered(tmp_path: Path) -> None:
    game = opened(saved(tmp_path))
    asked = np.asarray([[0, 1, 0], [0, 0, 0], [1, 1, 1]], dtype=np.bool_)
    found = game.measure(asked)
    assert found.readings[[0, 2]].tolist() == [[1.5, 0.25], [3.0, 1.0]]  # the repeated mask: its mean
    assert np.isnan(found.readings[1]).all()
    assert found.failures == {1: "the table does not hold this coalition"}
    assert isinstance(game, Recorded)
    assert game.recorded().tolist() == MASKS[:3].tolist()
    assert not game.measure(game.recorded()).failures


def test_rules_come_from_file_or_configuration(tmp_path: Path) -> None:
    plain = opened(saved(tmp_path)).rules
    assert [player.text for player in plain.players] == ["player 1", "player 2", "player 3"]
    assert plain.items == ("value 1", "value 2")
    assert (plain.kind, plain.subject, plain.value) == ("training", "table.npz", "mean")
    assert "has 3 coalitions; no other one can be asked. They were measured 4 times in all" in plain.notes[0]
    file = saved(tmp_path, players=np.asarray(["ape", "bee", "cat"]), items=np.asarray(["x", "y"]))
    named = opened(file, players=["one", "two", "three"], subject="runs", unit="margin", kind="components").rules
    assert [player.text for player in named.players] == ["one", "two", "three"]
    assert (named.items, named.subject, named.unit, named.kind) == (("x", "y"), "runs", "margin", "components")


@given(
    arrays.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 20))),
    st.integers(0, 3),
    st.booleans(),
)
def test_round_trip(masks: np.ndarray, more: int, is_packed: bool) -> None:
    """Packed or not, one value a row or several: the same contents come back."""
    from tempfile import TemporaryDirectory  # noqa: PLC0415 - a folder of its own for each example

    m, n = masks.shape
    values = np.arange(m * (more + 1), dtype=np.float64).reshape(m, more + 1) / 8
    with TemporaryDirectory() as folder:
        stored = {"masks": np.packbits(masks, axis=1), "n": n} if is_packed else {"masks": masks}
        file = saved(Path(folder), **stored, values=values[:, 0] if more == 0 else values)
        found = table_files.read(Section.of({"file": file}, "", KNOWN))
    np.testing.assert_array_equal(found.masks, masks)
    np.testing.assert_array_equal(found.values, values)


def test_arrays_may_have_other_names(tmp_path: Path) -> None:
    file = saved(tmp_path, train=MASKS, margins=VALUES[:, 1])
    assert opened(file, masks="train", values="margins").measure(MASKS[:1]).readings.tolist() == [[1.0]]


def test_the_digest_is_of_what_is_in_it(tmp_path: Path) -> None:
    first = opened(saved(tmp_path)).rules.digest
    assert opened(saved(tmp_path, masks=np.packbits(MASKS, axis=1), n=3)).rules.digest == first
    assert opened(saved(tmp_path, values=VALUES + 1e-9)).rules.digest != first
    assert opened(saved(tmp_path), players=["a", "b", "c"]).rules.digest != first


def test_a_table_is_fitted_without_asking(tmp_path: Path) -> None:
    """Half of all coalitions of a sparse game, in a file: the spectrum is found, and repeats count as noise."""
    truth = Spectrum.from_terms(10, [(), (0,), (3,), (0, 3)], [1.0, -2.0, 0.5, 0.75])
    masks = walsh.all_masks(10)[1:-1][np.random.default_rng(0).random(1022) < 0.5]
    masks = np.concatenate([masks, np.ones((1, 10), dtype=np.bool_), np.zeros((2, 10), dtype=np.bool_)])
    file = saved(tmp_path, masks=masks, values=walsh.predict(truth, masks))
    known = evidence(load({"file": file}))
    assert known.replicates.tolist() == [0] * (len(masks) - 1) + [1]  # the empty coalition stands there twice
    found = settle(Recipe(budget=64, replicates=1, seed=0), known, "the table holds no more")
    assert found.how["stopped"] == "the table holds no more"
    assert found.fidelity.r2 > 0.99
    every = walsh.all_masks(10)
    assert np.abs(walsh.predict(found.spectrum, every) - walsh.predict(truth, every)).max() < 0.2
    game = opened(file)
    assert isinstance(game, Lookup)
    assert len(game.recorded()) == len(masks) - 1


BAD: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"masks": MASKS[:, 0]}, {}, r"masks must be \(m, n\)"),
    ({"masks": MASKS * 2}, {}, "True and False or 1 and 0"),
    ({"masks": MASKS[:2]}, {}, "2 masks come with 4 values"),
    ({"values": np.full((4, 1), np.nan)}, {}, "row 0 and 3 more have a value that is not finite"),
    ({"values": np.asarray([1e300, 1, 1, 1])}, {}, "row 0 and 0 more have a value that is not finite"),
    ({"values": np.asarray(["a", "b", "c", "d"])}, {}, "values must be numbers"),
    ({"values": VALUES[None]}, {}, "values must be numbers"),
    ({"masks": np.packbits(MASKS, axis=1), "n": 12}, {}, "do not fit n = 12"),
    ({}, {"masks": "nothing"}, "there is no array 'nothing'; masks names one of masks, values"),
    ({}, {"players": ["a", "b"]}, "players gives 2 names for 3"),
    ({}, {"items": ["a"]}, "items gives 1 names for 2"),
    ({}, {"players": ["a", "a", "b"]}, "names something twice"),
    ({}, {"kind": "heads"}, "must be one of training, features, components"),
    ({}, {"colour": 1}, "knows no 'colour'"),
]


@pytest.mark.parametrize(("stored", "config", "said"), BAD, ids=[said[:30] for *_, said in BAD])
def test_bad_tables_are_refused(tmp_path: Path, stored: dict[str, Any], config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        opened(saved(tmp_path, **stored), **config)


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK nonsense")
    (tmp_path / "a.csv").write_text("1,2")
    np.savez(tmp_path / "pickled.npz", masks=np.asarray([{"a": 1}], dtype=object), values=np.zeros(1))
    for name, said in (
        ("a.npz", "npz"),
        ("a.csv", "must end in"),
        ("b.npz", "there is no"),
        ("pickled.npz", "pickled"),
    ):
        with pytest.raises(ValueError, match=said):
            opened(str(tmp_path / name))


def test_parquet(tmp_path: Path) -> None:
    """Round trips where pyarrow is; where it is not, a word about how to get it."""
    lists, columns = tmp_path / "lists.parquet", tmp_path / "columns.parquet"
    if importlib.util.find_spec("pyarrow") is None:
        lists.write_bytes(b"PAR1")
        with pytest.raises(ModuleNotFoundError, match=r'pip install "spex-proxy\[parquet\]"'):
            opened(str(lists))
        return
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    values = {"x": VALUES[:, 0], "y": VALUES[:, 1]}
    parquet.write_table(arrow.table({"masks": MASKS.tolist(), **values}), lists)
    parquet.write_table(arrow.table({**{f"p{i}": MASKS[:, i] for i in range(3)}, **values}), columns)
    first, second = opened(str(lists)), opened(str(columns), players=["p0", "p1", "p2"])
    for game in (first, second):
        assert game.rules.items == ("x", "y")
        assert game.measure(MASKS[:1]).readings.tolist() == [[3.0, 1.0]]
    assert opened(str(lists), values="y").measure(MASKS[:1]).readings.tolist() == [[1.0]]
    with pytest.raises(ValueError, match="neither a column"):
        opened(str(columns))
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 nonsense PAR1")
    with pytest.raises(ValueError, match="can't be read as Parquet"):
        opened(str(tmp_path / "torn.parquet"))


def test_a_whole_table_answers_any_plan(tmp_path: Path) -> None:
    """All 2^n coalitions: what a run asks, repeats of the full one too, is there."""
    masks = walsh.all_masks(6)
    game = opened(saved(tmp_path, masks=masks, values=masks @ np.arange(6.0)))
    plan = designs.plan(6, Recipe(budget=128))
    found = game.measure(plan.masks)
    assert not found.failures
    assert found.readings[:, 0].tolist() == (plan.masks @ np.arange(6.0)).tolist()
