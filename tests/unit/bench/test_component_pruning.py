"""What the pruning bench says of its figures."""

from __future__ import annotations

import numpy as np
import pytest

from bench import component_games, component_pruning
from spex_proxy.engine import walsh
from spex_proxy.facts.spectrum import Spectrum


def test_training_and_held_out_questions_have_no_list_in_common() -> None:
    training, held_out = component_games.questions(4, 1), component_games.questions(104, 2)
    assert len(held_out) == 208
    assert component_games.questions(2, 1) == training[:4]
    lists = [{each["prompt"].split()[3:8][0] + " ".join(each["prompt"].split()[3:8]) for each in some}
             for some in (training, held_out)]  # fmt: skip
    assert not lists[0] & lists[1]
    for each in held_out:
        words = each["prompt"].split()[3:]
        assert each["answer"].strip() == words[words.index(words[-1]) + 1]
        assert each["contrast"].strip() in words
        assert each["contrast"] != each["answer"]


def test_the_best_set_of_a_spectrum() -> None:
    spectrum = Spectrum.from_terms(4, [(0,), (2,), (3,), (0, 1)], [-1.0, -0.5, 2.0, 3.0])
    assert component_pruning.best_set(spectrum, 2).tolist() == [[True, True, False, False]]
    # alone, players 0 and 2 are good to keep and 3 is not; what 1 is worth only the pair says
    proposed = component_pruning.proposals(spectrum, 2).tolist()
    assert sorted(proposed) == [[True, False, True, False], [True, True, False, False]]


def test_single_effects_are_those_at_the_share_that_is_kept() -> None:
    """Against the definition: what keeping a player changes on average, the others kept with that probability."""
    rng = np.random.default_rng(4)
    spectrum = Spectrum.from_terms(4, [(), (0,), (1, 2), (0, 2, 3), (0, 1, 2, 3)], rng.normal(size=5).tolist())
    every = (np.arange(16)[:, None] >> np.arange(4) & 1).astype(np.bool_)
    for share in (0.3, 0.5, 0.83):
        found = component_pruning.single_effects(spectrum, share)
        for player in range(4):
            others = np.delete(every, player, axis=1)
            weights = np.where(others, share, 1 - share).prod(axis=1)
            with_it = every.copy()
            with_it[:, player] = True
            without = every.copy()
            without[:, player] = False
            changes = walsh.predict(spectrum, with_it) - walsh.predict(spectrum, without)
            wanted = float((weights * changes).sum()) / 2  # each of `others` stands twice in `every`
            alone = np.zeros((2, 4), dtype=np.bool_)
            alone[1, player] = True
            got = walsh.predict(found, alone)
            assert got[1] - got[0] == pytest.approx(wanted, abs=1e-12)


def test_random_sets_have_their_size() -> None:
    some = component_pruning.random_sets(54, 36)
    assert (some.sum(axis=1) == 36).all()
    assert len(np.unique(some, axis=0)) == component_pruning.RANDOM


def test_intervals_are_paired_over_lists() -> None:
    readings = {
        "chosen": np.array([1.0, 3, 4, 6]), "lasso": np.array([0.0, 2, 1, 3]),
        "stack": np.ones(4), "random": np.zeros(4),
    }  # fmt: skip
    cell = component_pruning.cell_of("0-5", 0.5, 27, 9.0, readings)
    assert (cell["chosen"], cell["over lasso"], cell["questions"]) == (3.5, 2.0, 4)
    assert cell["half lasso"] == pytest.approx(1.96 * np.sqrt(2) / np.sqrt(2))  # differences of 1 and 3 over two lists
    assert "ahead in 1" in component_pruning.report([cell])
    assert "27" in component_pruning.report([cell])
    assert "best of" in component_pruning.curve([cell])
