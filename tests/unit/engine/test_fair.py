"""What judges a fit: masks that its own recipe drew at random, each predicted by fits that saw nothing like it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spex_proxy.engine import designs, draws, fidelity, proxyspex, walsh
from spex_proxy.engine.baselines import SURROGATES, shapley_masks
from spex_proxy.engine.conclude import conclude
from spex_proxy.engine.rows import Rows, rows_of
from spex_proxy.engine.surrogates import SURROGATES as METHODS
from spex_proxy.facts.evidence import Evidence
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.spectrum import Spectrum

N = 24


def pairs_and_singles(seed):
    stream = np.random.default_rng(seed)
    pairs = sorted({tuple(sorted(stream.choice(N, 2, replace=False).tolist())) for _ in range(12)})
    singles = [(i,) for i in range(12)]
    truth = Spectrum.from_terms(N, [*singles, *pairs], stream.normal(size=len(singles) + len(pairs)))
    return lambda masks: walsh.predict(truth, masks)


def asked(n, recipe, game=None):
    """The plan of a recipe, answered."""
    plan = designs.plan(n, recipe)
    values = np.zeros(len(plan)) if game is None else game(plan.masks)
    return Evidence(plan.masks, values, plan.replicates)


def joined(*parts):
    """All that was measured, in one game: what was there is not asked again."""
    masks = np.concatenate([part.masks for part in parts])
    replicates = np.concatenate([part.replicates for part in parts])
    _, first = np.unique(np.column_stack([masks, replicates]), axis=0, return_index=True)
    values = np.concatenate([part.values for part in parts])
    return Evidence(masks[first], values[first], replicates[first])


def truly(fit, game, n):
    fresh = draws.uniform_masks(n, 2000, 99)
    return fidelity.r_squared(game(fresh), walsh.predict(fit.spectrum, fresh))


# ---------------------------------------------------------------------------------- pairs of complements


@pytest.mark.parametrize("method", ["stack", "proxyspex"])
def test_pairs_of_complements_do_not_foretell_each_other(method, small_trees):
    """On both masks of a pair each term of two players is the same, so one that was seen told the other's value."""
    game, recipe = pairs_and_singles(1), Recipe(design="paired", method=method, budget=128, replicates=1)
    fit = conclude(recipe, rows_of(asked(N, recipe, game)))
    assert fit.fidelity.r2 < truly(fit, game, N) + 0.1
    assert fit.fidelity.r2_low < truly(fit, game, N) < fit.fidelity.r2_high


@pytest.mark.parametrize("name", ["order2", "lime"])
def test_nor_in_the_baselines(name):
    """Nothing but pairs of players, on too few masks to find them: what is known of a mask is known of its complement,
    and of no fresh one."""
    truth = Spectrum.from_terms(N, [(i, i + 1) for i in range(N - 1)], np.ones(N - 1))
    recipe = Recipe(design="paired", budget=100, replicates=1)
    rows = rows_of(asked(N, recipe, lambda masks: walsh.predict(truth, masks)))
    found = METHODS[name](rows, recipe)
    fresh = draws.uniform_masks(N, 2000, 99)
    real = fidelity.r_squared(walsh.predict(truth, fresh), walsh.predict(found.spectrum, fresh))
    assert fidelity.r_squared(rows.values[rows.uniform], found.predictions) < max(real, 0.0) + 0.1


@settings(max_examples=30, deadline=None)
@given(n=st.integers(5, 30), seed=st.integers(0, 99), budget=st.integers(30, 200))
def test_a_pair_is_of_one_fold(n, seed, budget):
    recipe = Recipe(design="paired", budget=min(budget, 1 << n, 6 * n), replicates=1, seed=seed)
    plan = designs.plan(n, recipe)
    fair = designs.fair(plan.masks, recipe)
    units = designs.units(plan.masks, recipe, fair)
    partner = draws.positions(plan.masks, ~plan.masks)
    if units is None:
        assert designs.all_fit(n, recipe)
        return
    folds = proxyspex.assign_folds(fair, seed, units)
    assert ((folds >= 0) == fair).all()
    assert (folds[fair] == folds[partner[fair]]).all()
    counts = np.bincount(folds[fair])
    assert len(counts) == proxyspex.N_FOLDS
    assert np.ptp(counts) <= 2


def test_complements_that_chance_draws_are_no_units():
    masks = walsh.all_masks(6)
    judge = ~draws.is_corner(masks)
    assert designs.units(masks, Recipe(budget=40), judge) is None
    assert designs.units(masks, Recipe(design="keep=0.5", budget=40), judge) is None
    assert designs.units(masks, Recipe(design="paired", budget=80), judge) is None, "all masks fit, in a uniform order"
    assert len(np.unique(designs.units(masks, Recipe(design="paired", budget=40), judge))) == 32


@pytest.mark.usefixtures("small_trees")
def test_what_others_paired_with_the_masks_that_judge_is_left_out_with_them():
    """Pairs of one seed begin with its uniform masks: a uniform recipe after a paired one finds the complement of each
    of its own among what others asked."""
    game, ours = pairs_and_singles(1), Recipe(method="proxyspex", budget=64, replicates=1)
    pairs = asked(N, Recipe(design="paired", budget=126, replicates=1), game)
    rows = rows_of(joined(pairs, asked(N, ours, game)))
    fair = designs.fair(rows.masks, ours)
    folds = proxyspex.assign_folds(fair, 0, designs.units(rows.masks, ours, fair))
    partner = draws.positions(rows.masks, ~rows.masks)
    told = fair & (partner >= 0)
    assert told.sum() > 50
    assert (folds[told] == folds[partner[told]]).all()
    assert (folds[fair] >= 0).all()
    fit = conclude(ours, rows)
    assert fit.fidelity.r2 < truly(fit, game, N) + 0.05
    assert fit.fidelity.r2_low < truly(fit, game, N) < fit.fidelity.r2_high


def test_the_pairs_of_kernelshap_are_judged_right_by_a_recipe_that_calls_them_pairs():
    """Its masks are no plan's. Those whose complement is of the corner have it left out too, where they judge."""
    masks = shapley_masks(12, 100, 0)
    recipe = Recipe(design="paired", budget=100, replicates=1)
    fair, partner = designs.fair(masks, recipe), draws.positions(masks, ~masks)
    folds = proxyspex.assign_folds(fair, 0, designs.units(masks, recipe, fair))
    assert fair.sum() > 50
    assert (draws.is_corner(masks)[partner[fair]]).any()
    assert (folds[fair] == folds[partner[fair]]).all()
    assert (folds[~masks.any(axis=1)] == -1).all()


def test_resampling_pairs_is_resampling_their_means():
    """Every row there twice: by pairs the interval is that of the rows once, by rows it is too narrow."""
    stream = np.random.default_rng(0)
    values = stream.normal(size=40)
    predictions = values + 0.5 * stream.normal(size=40)
    once = fidelity.interval(values, predictions, 3)
    twice = tuple(np.concatenate([each, each]) for each in (values, predictions))
    units = np.tile(np.arange(40), 2)
    assert fidelity.interval(*twice, 3, units) == pytest.approx(once, abs=1e-12)
    torn = fidelity.interval(*twice, 3)
    assert torn[1] - torn[0] < 0.85 * (once[1] - once[0])
    alone = fidelity.interval(values, predictions, 3, np.arange(40)[::-1] + 7)
    assert alone == once, "units of one row are rows"


# ----------------------------------------------------------------------------- what others asked of the game


OTHERS = asked(10, Recipe(design="keep=0.9", budget=256, seed=5, replicates=1))


@pytest.mark.parametrize("design", ["uniform", "keep=0.6", "paired"])
@pytest.mark.parametrize(("n", "budget"), [(10, 300), (10, 1100), (20, 200)])
def test_what_others_asked_judges_nothing(design, n, budget):
    """Of ten players many of the others' masks are ones that the plan would ask later."""
    recipe = Recipe(design=design, budget=budget, replicates=1)
    plan = designs.plan(n, recipe)
    others = OTHERS.masks if n == 10 else asked(20, Recipe(design="keep=0.9", budget=256)).masks
    for number in range(3):
        own = plan.masks[plan.rounds < number + 1]
        masks = np.unique(np.concatenate([own, others]), axis=0)
        fair = designs.fair(masks, recipe)
        drawn = own[~draws.is_corner(own)]
        assert (draws.positions(masks[fair], drawn) >= 0).all(), "all that were drawn judge"
        assert fair.sum() <= len(drawn) + 8, "but for the few that follow the last one asked, nothing else does"


def test_a_fit_beside_masks_near_the_full_one_claims_what_it_does(small_trees):
    """Easy where nearly all is kept, noise elsewhere: others' masks, nearly all kept, made the fit look good."""

    def game(masks):
        jitter = np.sin(1e4 * (masks @ np.sqrt(np.arange(2.0, 22.0)) + 1.0))
        return masks @ np.linspace(0.5, 1.5, 20) + 5.0 * jitter * (masks.mean(axis=1) < 0.7)

    ours = Recipe(method="proxyspex", budget=256, replicates=1)
    near = asked(20, Recipe(design="keep=0.9", budget=256, replicates=1), game)
    fit = conclude(ours, rows_of(joined(near, asked(20, ours, game))))
    assert len(near) + 200 < fit.how["rows"], "all train"
    assert truly(fit, game, 20) < 0.5
    assert fit.fidelity.r2 < truly(fit, game, 20) + 0.15
    assert fit.fidelity.r2_low < truly(fit, game, 20) < fit.fidelity.r2_high
    assert fit.verdict == "unreliable"


@pytest.mark.parametrize("design", ["uniform", "keep=0.6", "paired"])
def test_a_recorded_table_is_judged_by_all_of_it(design):
    """Nobody drew its masks by this recipe; a few that both hold are chance."""
    for n, count in ((12, 600), (30, 200)):
        masks = draws.uniform_masks(n, count, 9)
        assert designs.fair(masks, Recipe(design=design)).all()


def test_what_a_larger_budget_asked_judges_for_a_smaller_one():
    plan = designs.plan(30, Recipe(budget=400))
    assert np.array_equal(designs.fair(plan.masks, Recipe(budget=100)), ~draws.is_corner(plan.masks))


def test_a_person_s_table_trains_and_the_plan_judges(small_trees):
    """Evidence that is given beforehand: the plan's first round is asked beside it."""
    truth = Spectrum.from_terms(30, [(), (0,), (1,), (0, 1)], [1.0, 2.0, -1.0, 0.5])
    masks, recipe = draws.kept_masks(30, 0.7, 200, 3), Recipe(budget=64, replicates=1)
    table = Evidence(masks, walsh.predict(truth, masks), np.zeros(200, dtype=np.int64))
    rows = rows_of(joined(table, asked(30, recipe, lambda masks: walsh.predict(truth, masks))))
    fit = conclude(recipe, rows)
    assert fit.how["rows"] == 264
    assert designs.fair(rows.masks, recipe).sum() == 62
    assert fit.fidelity.r2 > 0.9


def test_rows_of_one_unit_stay_together_whatever_else_is_there():
    """The folds over units, by hand: three rows of one unit, the others alone, one that judges nothing."""
    units = np.array([7, 1, 7, 2, 3, 7, 4, 5])
    uniform = np.array([True, True, True, True, True, True, True, False])
    folds = proxyspex.assign_folds(uniform, 0, units)
    assert folds[7] == -1
    assert len(set(folds[[0, 2, 5]])) == 1
    assert len(set(folds[uniform])) == 5
    masks = draws.uniform_masks(12, 20, 0)
    plain = Rows(masks, np.arange(20.0), np.ones(20, dtype=np.bool_), np.zeros(0))
    pairs = Rows(masks, np.arange(20.0), np.ones(20, dtype=np.bool_), np.zeros(0), np.arange(20) // 2)
    for name in ("lime", "order1"):
        assert not np.array_equal(SURROGATES[name](plain, 0).predictions, SURROGATES[name](pairs, 0).predictions)
