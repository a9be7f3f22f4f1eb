"""What the pruning bench says of its figures."""

from __future__ import annotations

import numpy as np
import pytest

from bench import component_games, component_pruning
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
    assert component_pruning.chosen(spectrum, 2).tolist() == [[True, True, False, False]]


def test_random_sets_have_their_size() -> None:
    some = component_pruning.random_sets(54, 36)
    assert (some.sum(axis=1) == 36).all()
    assert len(np.unique(some, axis=0)) == component_pruning.RANDOM


def test_intervals_are_paired_over_lists() -> None:
    readings = {"stack": np.array([1.0, 3, 4, 6]), "lasso": np.array([0.0, 2, 1, 3]), "random": np.zeros(4)}
    cell = component_pruning.cell_of("0-5", 0.5, 27, 9.0, readings)
    assert (cell["stack"], cell["over lasso"], cell["questions"]) == (3.5, 2.0, 4)
    assert cell["half lasso"] == pytest.approx(1.96 * np.sqrt(2) / np.sqrt(2))  # differences of 1 and 3 over two lists
    assert "ahead in 1" in component_pruning.report([cell])
    assert "27" in component_pruning.report([cell])
    assert "best of" in component_pruning.curve([cell])
