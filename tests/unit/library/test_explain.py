"""`spex_proxy.explain` on functions whose answer is known, and on what people do wrong."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spex_proxy
from spex_proxy.engine import walsh
from spex_proxy.facts.errors import BadEvidence
from spex_proxy.facts.evidence import Evidence
from spex_proxy.facts.spectrum import Spectrum

NAMES = ("bell", "rain", "tower", "question")


def value(masks):
    kept = masks.astype(float)
    return -9.0 + 4.0 * kept[:, 0] * kept[:, 3] + kept[:, 0] - 0.5 * kept[:, 1]


class Counting:
    """A function that remembers what it was asked."""

    def __init__(self, function):
        self.function = function
        self.batches = []

    def __call__(self, masks):
        self.batches.append(masks.copy())
        return self.function(masks)


def test_a_small_function_is_measured_whole_and_known_exactly():
    study = spex_proxy.explain(value, NAMES)
    assert study.verdict == "reliable"
    assert study.names == NAMES
    assert study.fit.how["method"] == "exact"
    assert study.predict(walsh.all_masks(4)) == pytest.approx(value(walsh.all_masks(4)))
    assert study.shapley_values() == pytest.approx([3.0, -0.5, 0.0, 2.0])
    found = study.indices("FSII", order=2)
    assert found["bell", "question"] == pytest.approx(4.0)
    assert found[0] == pytest.approx(1.0)
    assert found["tower"] == pytest.approx(0.0)
    assert study.top(1)[0].names == ("bell",)
    assert study.top(3)[2].label == "bell × question"
    assert study.extremes(keep=1).highest.kept == (0,)
    assert study.extremes(remove=1).lowest.removed == (0,)
    assert study.necessary(-6).players == (0,)
    assert study.sufficient(-6).players == (0, 3)


@settings(max_examples=15)
@given(n=st.integers(1, 7), seed=st.integers(0, 100), replicates=st.integers(1, 3))
def test_every_small_function_is_reproduced(n, seed, replicates):
    truth = np.random.default_rng(seed).normal(size=1 << n)

    def look_up(masks):
        return truth[masks @ (1 << np.arange(n))]

    study = spex_proxy.explain(look_up, n, replicates=replicates)
    assert study.predict(walsh.all_masks(n)) == pytest.approx(truth)
    assert study.shapley_values().sum() == pytest.approx(truth[-1] - truth[0])
    assert len(study.evidence) == (1 << n) + replicates - 1


def test_a_large_function_is_sampled_within_budget_and_in_batches():
    spectrum = Spectrum.from_terms(
        40, [(), (0,), (7,), (3, 9), (20,), (21,), (0, 7)], [1.0, -2.0, 1.5, 1.0, 0.5, 0.5, 0.8]
    )
    function = Counting(lambda masks: walsh.predict(spectrum, masks))
    study = spex_proxy.explain(function, 40, budget=300, batch_size=50, target_r2=0.9)
    assert max(len(batch) for batch in function.batches) <= 50
    assert sum(len(batch) for batch in function.batches) == len(study.evidence) <= 300
    assert study.verdict == "reliable"
    assert {term.players for term in study.top(5)} >= {(0,), (7,), (3, 9)}


def test_what_was_measured_is_not_asked_again():
    first = spex_proxy.explain(value, NAMES)
    function = Counting(value)
    again = spex_proxy.explain(function, NAMES, evidence=first.evidence)
    assert not function.batches
    assert np.array_equal(again.spectrum.coefficients, first.spectrum.coefficients)


def test_equal_calls_give_equal_studies():
    def rough(masks):
        return np.sin(3.0 * masks @ np.arange(12)) + masks[:, 0]

    first, second = (spex_proxy.explain(rough, 12, budget=64, method="proxyspex") for _ in range(2))
    assert np.array_equal(first.spectrum.supports, second.spectrum.supports)
    assert np.array_equal(first.spectrum.coefficients, second.spectrum.coefficients)


def test_a_constant_has_nothing_to_explain():
    study = spex_proxy.explain(lambda masks: np.full(len(masks), 2.5), 20)
    assert study.verdict == "nothing_to_explain"
    assert study.spectrum.constant == 2.5
    assert "nothing to explain" in repr(study)
    assert study.shapley_values() == pytest.approx(np.zeros(20))


def test_one_player_is_enough():
    study = spex_proxy.explain(lambda masks: 3.0 * masks[:, 0], 1)
    assert study.shapley_values() == pytest.approx([3.0])
    assert study.extremes(keep=1).highest.value == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda masks: np.full(len(masks), np.nan), "nan for the mask that removes nothing"),
        (lambda masks: np.where(masks[:, 1], 1.0, np.inf), "inf for the mask that removes bell, rain"),
        (lambda masks: np.zeros((len(masks), 1)), r"shape \(\d+, 1\) for \d+ masks"),
        (lambda masks: 1.0, r"shape \(\) for"),
        (lambda masks: ["high"] * len(masks), "not numbers"),
        (lambda masks: None, "shape"),
    ],
)
def test_values_that_are_none_are_refused_by_name(wrong, says):
    with pytest.raises(BadEvidence, match=says):
        spex_proxy.explain(wrong, NAMES)


@pytest.mark.parametrize(
    ("players", "more", "error", "says"),
    [
        (0, {}, BadEvidence, "without players"),
        ([], {}, BadEvidence, "without players"),
        (-3, {}, BadEvidence, "without players"),
        ("bell", {}, ValueError, "list of names"),
        (NAMES, {"method": "magic"}, ValueError, "magic"),
        (NAMES, {"design": "magic"}, ValueError, "magic"),
        (NAMES, {"batch_size": 0}, ValueError, "batch_size"),
        (NAMES, {"replicates": 0}, ValueError, "replicates"),
        (NAMES, {"seed": -1, "budget": 16}, ValueError, "seed"),
        (30, {"budget": 9}, BadEvidence, "budget of at least"),
        (5, {"evidence": Evidence.empty(4)}, BadEvidence, "5 players"),
    ],
)
def test_bad_arguments_are_refused(players, more, error, says):
    with pytest.raises(error, match=says):
        spex_proxy.explain(value, players, **more)


def test_duplicates_with_different_values_are_refused():
    masks = np.concatenate([walsh.all_masks(4), walsh.all_masks(4)[:1]])
    values = np.concatenate([value(walsh.all_masks(4)), [99.0]])
    twice = Evidence(masks, values, np.zeros(17, dtype=np.int64))
    with pytest.raises(BadEvidence, match="same mask"):
        spex_proxy.explain(value, NAMES, evidence=twice)


def test_what_the_function_raises_passes_through():
    def broken(masks):
        raise ConnectionError("the model is gone")

    with pytest.raises(ConnectionError, match="the model is gone"):
        spex_proxy.explain(broken, NAMES)


def test_the_function_may_do_with_its_masks_as_it_likes():
    def greedy(masks):
        out = value(masks)
        masks[:] = False
        return out

    assert spex_proxy.explain(greedy, NAMES).shapley_values() == pytest.approx([3.0, -0.5, 0.0, 2.0])


def test_importing_the_package_loads_no_mathematics():
    code = "import sys, spex_proxy; sys.exit(any(m in sys.modules for m in ('numpy', 'scipy', 'xgboost', 'rich')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert {"explain", "Study"} <= set(dir(spex_proxy))
    with pytest.raises(AttributeError, match="no attribute 'xplain'"):
        _ = spex_proxy.xplain
