"""Coarse to fine on functions of many players of which few matter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spex_proxy
from spex_proxy.library import zoom


def documents(n_documents, n_sentences):
    return [(f"D{d}", [f"s{s}" for s in range(n_sentences)]) for d in range(n_documents)]


def test_two_sentences_among_three_hundred_are_found_together():
    asked = []

    def value(masks):  # sentence 4 of document 2 and sentence 7 of document 9 are needed together
        asked.append(len(masks))
        return 5.0 * masks[:, 2 * 10 + 4] * masks[:, 9 * 10 + 7] + 0.3 * masks[:, 300]

    study = spex_proxy.explain_tree(value, [*documents(30, 10), "question"], budget=160)
    assert study.levels[0].n_players == 31
    assert {term.label for term in study.levels[0].top(3)} == {"D2", "D9", "D2 × D9"}
    assert {term.label for term in study.top(3)} == {"D2 > s4", "D9 > s7", "D2 > s4 × D9 > s7"}
    assert study.verdict == "reliable"
    assert sum(asked) <= 2 * 160


def test_a_tree_of_three_levels_is_walked_to_its_leaves():
    tree = [("A", [("a", ["1", "2"]), ("b", ["3", "4"])]), ("B", ["5", "6"])]
    study = spex_proxy.explain_tree(lambda masks: 2.0 * masks[:, 3] + 1.0 * masks[:, 4], tree)
    assert [level.names for level in study.levels] == [
        ("A", "B"), ("A > a", "A > b", "B > 5", "B > 6"), ("A > b > 3", "A > b > 4", "B > 5")
    ]  # fmt: skip
    assert study.shapley_values() == pytest.approx([0.0, 2.0, 1.0])


def test_where_nothing_matters_nothing_is_split():
    study = spex_proxy.explain_tree(lambda masks: np.ones(len(masks)), documents(5, 3))
    assert study.levels == (study,)
    assert study.verdict == "nothing_to_explain"


@settings(max_examples=30, deadline=None)
@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=6), data=st.data())
def test_players_masks_reach_exactly_their_leaves(shape, data):
    players = zoom.parts_of([(f"p{at}", [str(i) for i in range(size)]) for at, size in enumerate(shape)])
    assert [leaf for part in players for leaf in part.leaves] == list(range(sum(shape)))
    some = data.draw(st.lists(st.sampled_from(range(len(players))), min_size=1, unique=True))
    mask = np.array([data.draw(st.lists(st.booleans(), min_size=len(some), max_size=len(some)))])
    seen = []
    chosen = [players[at] for at in some]
    zoom.spread(lambda masks: seen.append(masks) or np.zeros(len(masks)), chosen, sum(shape))(mask)
    for number, part in enumerate(players):
        expected = mask[0, some.index(number)] if number in some else True
        assert (seen[0][0, list(part.leaves)] == expected).all()


@pytest.mark.parametrize("tree", ["text", [], [("a", [])], [1], [("a", ["b"], "c")]])
def test_what_is_no_tree_is_said(tree):
    with pytest.raises(ValueError, match=r"part"):
        spex_proxy.explain_tree(lambda masks: np.zeros(len(masks)), tree)


def test_at_most_so_many_players_are_asked_at_once():
    players = zoom.parts_of(documents(10, 30))
    chosen = zoom.to_split(players, np.arange(10.0), 1.0, 64)
    assert chosen == [8, 9]
    with pytest.raises(ValueError, match="share"):
        spex_proxy.explain_tree(lambda masks: np.zeros(len(masks)), ["a"], share=0)
