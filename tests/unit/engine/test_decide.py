"""decide: what is asked, when it stops, what it says. Pure, whatever happened in between."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spex_proxy.engine import conclude, designs, walsh
from spex_proxy.engine.decide import Ask, Fit, decide
from spex_proxy.facts.errors import BadEvidence
from spex_proxy.facts.evidence import Evidence
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.spectrum import Spectrum

FIXTURES = [HealthCheck.function_scoped_fixture]


def planned(n, recipe, game, rows=slice(None)):
    plan = designs.plan(n, recipe)
    return Evidence(plan.masks[rows], game(plan.masks[rows]), plan.replicates[rows])


def everything(n, values):
    """Evidence of an exactly determined game; no repeats."""
    return Evidence(walsh.all_masks(n), values, np.zeros(1 << n, dtype=np.int64))


# ------------------------------------------------------------------------------- exactly determined games


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 10), st.integers(0, 2**32 - 1))
def test_all_subsets_give_the_exact_spectrum(n, seed):
    values = np.random.default_rng(seed).normal(size=1 << n) - 50
    fit = decide(Recipe(budget=1 << n, replicates=1), everything(n, values))
    assert isinstance(fit, Fit)
    assert fit.how["method"] == "exact"
    assert np.allclose(walsh.predict(fit.spectrum, walsh.all_masks(n)), values, atol=1e-9)
    assert fit.spectrum.constant == pytest.approx(values.mean())
    assert (fit.fidelity.r2, fit.verdict) == (1.0, "reliable")


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(5)), st.integers(0, 2**32 - 1))
def test_permuting_players_permutes_the_spectrum(order, seed):
    values = np.random.default_rng(seed).normal(size=32)
    recipe = Recipe(budget=32, replicates=1)
    one = decide(recipe, everything(5, values))
    masks = walsh.all_masks(5)
    other = decide(recipe, Evidence(masks[:, order], values, np.zeros(32, dtype=np.int64)))
    assert isinstance(one, Fit)
    assert isinstance(other, Fit)
    back = {
        tuple(sorted(order[i] for i in t)): c
        for t, c in zip(other.spectrum.players(), other.spectrum.coefficients, strict=True)
    }
    for term, coefficient in zip(one.spectrum.players(), one.spectrum.coefficients, strict=True):
        assert back[term] == pytest.approx(coefficient, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("terms", [[(i,) for i in range(6)], [(0, 3)]], ids=["six equal", "one dominant"])
def test_equal_and_dominant_coefficients_and_the_constant(terms, answer):
    truth = Spectrum.from_terms(6, [(), *terms], [100.0] + [2.0] * len(terms))
    fit, _, _ = answer(Recipe(budget=66), 6, lambda m: walsh.predict(truth, m))
    found = dict(zip(fit.spectrum.players(), fit.spectrum.coefficients, strict=True))
    if fit.how["method"] == "exact":
        assert {t for t, c in found.items() if abs(c) > 1e-9} == {(), *terms}
    for term in terms:
        assert found[term] == pytest.approx(2.0, rel=0.05)
    assert found[()] == pytest.approx(100.0, rel=0.01)


def test_exact_fit_says_what_a_second_measurement_would_score():
    masks = np.array([[0], [1], [1]], dtype=bool)
    fit = decide(Recipe(budget=3, replicates=2), Evidence(masks, np.array([0.0, 9.9, 10.1]), np.array([0, 0, 1])))
    assert isinstance(fit, Fit)
    assert fit.spectrum.coefficients.tolist() == pytest.approx([5.0, -5.0])
    assert fit.fidelity.r2 == pytest.approx(1 - 2 * 0.02 / 25)
    assert fit.fidelity.noise_sigma == pytest.approx(np.sqrt(0.02))


# ---------------------------------------------------------------------------------------- order and resuming


@pytest.mark.parametrize("seed", range(3))
def test_order_of_evidence_changes_nothing(seed, sparse_game, small_trees):
    recipe = Recipe(budget=80, seed=seed)
    evidence = planned(20, recipe, sparse_game(20, noise=0.1))
    order = np.random.default_rng(seed).permutation(len(evidence))
    shuffled = Evidence(evidence.masks[order], evidence.values[order], evidence.replicates[order])
    one, other = decide(recipe, evidence), decide(recipe, shuffled)
    assert isinstance(one, Fit)
    assert isinstance(other, Fit)
    assert np.array_equal(one.spectrum.supports, other.spectrum.supports)
    assert np.array_equal(one.spectrum.coefficients, other.spectrum.coefficients)
    assert dataclasses.replace(one, spectrum=other.spectrum).how == other.how
    assert one.fidelity == other.fidelity
    json.dumps(one.how, allow_nan=False)


@settings(max_examples=25, deadline=None, suppress_health_check=FIXTURES)
@given(data=st.data())
def test_resuming_asks_exactly_the_rest(data, sparse_game):
    recipe = Recipe(budget=60, seed=4)
    plan = designs.plan(30, recipe)
    first = int((plan.rounds == 0).sum())
    lost = data.draw(st.sets(st.integers(0, len(plan) - 1), min_size=1))
    lost.add(data.draw(st.integers(0, first - 1)))
    have = np.array([i not in lost for i in range(len(plan))])
    step = decide(recipe, planned(30, recipe, sparse_game(30), have))
    assert isinstance(step, Ask)
    missing = ~have & (plan.rounds == 0)
    assert np.array_equal(step.masks, plan.masks[missing])
    assert np.array_equal(step.replicates, plan.replicates[missing])
    assert step.round == 0


def test_a_begun_round_is_finished_first(sparse_game):
    recipe = Recipe(budget=120)
    plan = designs.plan(20, recipe)
    have = (plan.rounds == 0) | (np.arange(len(plan)) == len(plan) - 40)
    step = decide(recipe, planned(20, recipe, sparse_game(20), have))
    assert isinstance(step, Ask)
    assert step.round == 1
    assert len(step.masks) == int((plan.rounds == 1).sum()) - int(have[plan.rounds == 1].sum())


def test_asks_add_up_to_the_plan(sparse_game, answer, small_trees):
    recipe = Recipe(budget=100, target_r2=1.1)
    fit, evidence, asked = answer(recipe, 20, sparse_game(20, noise=0.5))
    plan = designs.plan(20, recipe)
    assert [a.round for a in asked] == [0, 1, 2]
    assert np.array_equal(evidence.masks, plan.masks)
    assert fit.how["stopped"] == "the budget was spent"
    assert fit.fidelity.masks == 98
    assert fit.how["rows"] == 98


def test_rows_that_nobody_planned_are_used(sparse_game, small_trees):
    game = sparse_game(20, noise=0.1)
    recipe = Recipe(budget=60)
    ours, others = planned(20, recipe, game), planned(20, Recipe(budget=60, seed=8), game)
    both = Evidence(
        *(np.concatenate(p) for p in zip(*[(e.masks, e.values, e.replicates) for e in (ours, others)], strict=True))
    )
    fit = decide(recipe, both)
    assert isinstance(fit, Fit)
    assert fit.how["rows"] > 100


# --------------------------------------------------------------------------------- beside what others asked


def additive(masks):
    return masks @ np.arange(1.0, 11.0)


def beside(evidence, recipe, recipe_of_others):
    """What was known, and all that was asked, until there is a fit."""
    plan = designs.plan(10, recipe_of_others)
    evidence, asked = Evidence(plan.masks, additive(plan.masks), plan.replicates) if evidence is None else evidence, []
    while isinstance(step := decide(recipe, evidence), Ask):
        asked.append((evidence, step))
        more = step.masks, additive(step.masks), step.replicates
        parts = zip((evidence.masks, evidence.values, evidence.replicates), more, strict=True)
        evidence = Evidence(*(np.concatenate(pair) for pair in parts))
    return step, evidence, asked


def test_what_others_asked_does_not_switch_off_stopping(small_trees):
    """Of ten players 128 masks of another seed hold a part of every later round."""
    recipe, others = Recipe(budget=600, replicates=1), Recipe(budget=128, seed=1, replicates=1)
    fit, evidence, asked = beside(None, recipe, others)
    assert fit.how["stopped"] == "the target was reached"
    assert len(asked) == 1
    assert len(evidence) < 128 + 44
    assert fit.how["rows"] == len(evidence), "what stopped it was told of less; the fit is of all"


def test_resuming_beside_what_others_asked_asks_the_same(small_trees):
    """However much of a round came before a crash, the rest of it is asked, and then the same as without."""
    recipe = Recipe(budget=300, replicates=1, target_r2=1.1, method="proxyspex")
    others = Recipe(budget=128, seed=1, replicates=1)
    fit, whole, asked = beside(None, recipe, others)
    assert [step.round for _, step in asked] == [0, 1, 2, 3]
    before, step = asked[2]
    stream = np.random.default_rng(0)
    for count in (1, len(step.masks) // 2, len(step.masks) - 1):
        some = np.sort(stream.choice(len(step.masks), count, replace=False))
        more = step.masks[some], additive(step.masks[some]), step.replicates[some]
        parts = zip((before.masks, before.values, before.replicates), more, strict=True)
        again = decide(recipe, Evidence(*(np.concatenate(pair) for pair in parts)))
        assert isinstance(again, Ask)
        assert (again.round, again.r2) == (step.round, step.r2)
        assert np.array_equal(again.masks, np.delete(step.masks, some, axis=0))
    order = np.random.default_rng(1).permutation(len(whole))
    shuffled = Evidence(whole.masks[order], whole.values[order], whole.replicates[order])
    assert np.array_equal(decide(recipe, shuffled).spectrum.coefficients, fit.spectrum.coefficients)


# ------------------------------------------------------------------------------------------------- stopping


@pytest.mark.slow
def test_stops_at_the_target(sparse_game, answer):
    fit, evidence, _ = answer(Recipe(budget=512, target_r2=0.8), 12, sparse_game(12))
    assert fit.how["stopped"] == "the target was reached"
    assert fit.fidelity.r2_low >= 0.8
    assert len(evidence) < 512
    assert fit.verdict == "reliable"


@pytest.mark.slow
def test_stops_at_the_noise_ceiling(sparse_game, answer):
    fit, evidence, _ = answer(Recipe(budget=512, target_r2=0.999), 12, sparse_game(12, noise=0.4), repeat_noise=0.4)
    assert fit.how["stopped"] == "the noise ceiling was reached"
    assert 0.5 < fit.fidelity.noise_ceiling < 1
    assert len(evidence) < 512


def test_stops_when_two_rounds_brought_nothing(answer, sparse_game, small_trees):
    fit, evidence, _ = answer(Recipe(budget=2000), 16, sparse_game(16, noise=1.0, scale=1e-6))
    assert fit.how["stopped"] == "two rounds brought nothing"
    assert fit.verdict == "unreliable"
    assert "at least 50%" in fit.verdict_reason
    assert len(evidence) < 2000


def test_nothing_to_explain_after_the_first_round(answer, sparse_game, small_trees):
    fit, evidence, asked = answer(Recipe(budget=256), 16, sparse_game(16, noise=0.1, scale=1e-6), repeat_noise=0.1)
    assert fit.verdict == "nothing_to_explain"
    assert len(asked) == 1
    assert fit.spectrum.players() == [()]
    assert fit.how["stopped"] == "there is nothing to explain"
    assert len(evidence) == 3 + 1 + 16 + 32


@pytest.mark.parametrize("value", [0.0, -300.0])
@pytest.mark.parametrize("n", [1, 4, 40])
def test_a_constant_game(n, value, answer):
    fit, _, asked = answer(Recipe(budget=100), n, lambda m: np.full(len(m), value))
    assert fit.verdict == "nothing_to_explain"
    assert len(asked) == 1
    assert fit.spectrum.coefficients.tolist() == [value]
    assert (fit.fidelity.r2, fit.fidelity.noise_ceiling) == (0.0, 0.0)


def test_a_real_effect_under_wrong_sigma_is_not_called_nothing(answer, sparse_game, small_trees):
    """Repeats may spread by bad luck; masks that predict the value prove that there is something."""
    fit, _, _ = answer(Recipe(budget=200, target_r2=0.5), 12, sparse_game(12), repeat_noise=3.0)
    assert fit.verdict == "reliable"


def test_too_little_is_called_unreliable(sparse_game, small_trees):
    recipe = Recipe(budget=40)
    fit = decide(recipe, planned(100, recipe, sparse_game(100, noise=1.0)))
    assert isinstance(fit, Fit)
    assert fit.verdict == "unreliable"


@pytest.mark.parametrize(
    ("r2", "low", "ceiling", "says"),
    [(0.4, 0.35, 0.9, "at least 50%"), (0.4, 0.3, 0.45, "repeats of one prompt"), (0.6, 0.1, 0.9, "only 10%")],
)
def test_reasons_are_plain(r2, low, ceiling, says):
    base = conclude.Fidelity(r2, low, 0.9, 0.1, ceiling, 1.0, 0.0, 50)
    verdict, reason = conclude.verdict_of(base, complete=False)
    assert verdict == "unreliable"
    assert says in reason


# -------------------------------------------------------------------------------------------------- bad input


def test_one_player(answer):
    fit, evidence, _ = answer(Recipe(budget=10), 1, lambda m: np.where(m[:, 0], 3.0, 1.0))
    assert len(evidence) == 4
    assert fit.spectrum.coefficients.tolist() == [2.0, -1.0]


def test_bad_recipes_and_evidence():
    with pytest.raises(ValueError, match="'magic' is unknown"):
        decide(Recipe(method="magic"), Evidence.empty(3))
    with pytest.raises(BadEvidence, match="without players"):
        decide(Recipe(), Evidence.empty(0))
    with pytest.raises(BadEvidence, match="bool array"):
        decide(Recipe(), Evidence(np.zeros(3, dtype=bool), np.zeros(3), np.zeros(3, dtype=np.int64)))
    bad = Evidence(walsh.all_masks(2), np.array([0, 1, np.nan, 2]), np.zeros(4, dtype=np.int64))
    with pytest.raises(BadEvidence, match="row 2 "):
        decide(Recipe(), bad)


def test_first_ask_from_nothing():
    step = decide(Recipe(), Evidence.empty(40))
    assert isinstance(step, Ask)
    assert step.round == 0
    assert step.masks[:3].all()
    assert list(itertools.islice(step.replicates, 4)) == [0, 1, 2, 0]


def test_hierarchy_goes_with_every_explanation(answer, sparse_game, small_trees):
    fit, _, _ = answer(Recipe(budget=60, method="stack"), 12, sparse_game(12))
    assert fit.how["method"] == "stack"
    assert set(fit.how["hierarchy"]) == {
        "direct_subset_rate", "strong_chain_rate", "subset_rate", "terms", "interactions", "standing",
    }  # fmt: skip
    assert fit.how["hierarchy"]["terms"] <= conclude.HIERARCHY_TERMS + 1
