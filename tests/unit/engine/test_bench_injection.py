"""The pure parts of bench.injection: cases, packed prompts, rankings, metrics, tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.injection import __main__ as command
from bench.injection import cases, methods, metrics, report
from bench.injection.model import Memory, Model, NeverAsked, key_of, prompt_of
from bench.injection.packing import Packed, Prompt, pack
from bench.injection.play import Play, Purse

PROMPT = Prompt((1, 2), ((3, 4), (5,), (6, 7, 8), (9,)), (10, 11))
OUTPUT = (20, 21, 22)


@pytest.mark.parametrize(
    ("condition", "count"), [("1 copy", 1), ("3 copies", 3), ("5 copies", 5), ("split", 2), ("none", 0)]
)
def test_a_case_holds_its_attack_where_it_says(condition: str, count: int) -> None:
    for seed in range(20):
        case = cases.make_case(condition, seed)
        assert case == cases.make_case(condition, seed)
        assert len(case.segments) == cases.N_SEGMENTS
        assert len(case.planted) == count
        carrying = {at for at, text in enumerate(case.segments) if case.goal in text}
        assert carrying <= set(case.planted)
        assert len(carrying) == (1 if condition == cases.SPLIT else count)
        assert case.asked_about not in case.planted
        assert not cases.is_said(case.goal, case.question)


def test_an_unknown_condition_is_refused() -> None:
    with pytest.raises(ValueError, match="there is 1 copy, 3 copies"):
        cases.make_case("2 copies", 0)


def test_a_prompt_is_cut_at_its_lines() -> None:
    """One id a character; the first line, the question, is the same text as no segment."""
    text = "Q?\nab\nc\nEND"
    rendered = {"text": text, "ids": list(range(len(text))), "offsets": [(at, at + 1) for at in range(len(text))]}
    assert prompt_of(rendered, ["ab", "c"]) == Prompt((0, 1, 2), ((3, 4, 5), (6, 7)), (8, 9, 10))
    with pytest.raises(ValueError, match="does not hold the line 'zz'"):
        prompt_of(rendered, ["ab", "zz"])


def read(packed: Packed, at: int) -> tuple[list[int], list[int]]:
    """The ids that a token sees, in the order of their positions, and these positions."""
    seen = np.flatnonzero(packed.sees[at])
    order = seen[np.argsort(packed.positions[seen], kind="stable")]
    return packed.ids[order].tolist(), packed.positions[order].tolist()


@pytest.mark.parametrize("most", [1, 30, 10_000])
def test_packed_prompts_see_what_they_would_see_alone(most: int) -> None:
    masks = np.asarray([[a, b, c, d] for a in (0, 1) for b in (0, 1) for c in (0, 1) for d in (0, 1)], dtype=np.bool_)
    rows = []
    for packed in pack(PROMPT, OUTPUT, masks, most):
        for row, ends in zip(packed.rows, packed.read_at, strict=True):
            alone = [*PROMPT.kept(masks[row].tolist()), *OUTPUT]
            for number, end in enumerate(ends):
                length = len(alone) - len(OUTPUT) + number
                assert read(packed, int(end)) == (alone[:length], list(range(length)))
            rows.append(row)
    assert sorted(rows) == list(range(16))


def test_packing_shares_beginnings() -> None:
    masks = np.asarray([[1, 1, 1, 1], [1, 1, 1, 0]], dtype=np.bool_)
    (packed,) = pack(PROMPT, OUTPUT, masks)
    assert len(packed.ids) == 2 + 6 + 1 + 2 * (2 + 2)


class Formula(Model):
    """Values by a formula instead of a language model: what a method is given is known."""

    def __init__(self, planted: tuple[int, ...], needed: int) -> None:
        self.planted = planted
        self.needed = needed

    def score(self, prompt: Prompt, output: tuple[int, ...], masks: NDArray[np.bool_]) -> NDArray[np.float64]:
        kept = masks[:, list(self.planted)].sum(axis=1)
        return -20.0 * (kept < self.needed) - 0.5 - 0.05 * masks[:, 0]


def purse(condition: str, needed: int) -> Purse:
    case = cases.make_case(condition, 3)
    prompt = Prompt((1,), tuple((2,) for _ in case.segments), (3,))
    return Purse(Play(case, prompt, OUTPUT, case.goal, Formula(case.planted, needed)))


def test_leave_one_out_sees_cooperation_and_not_copies() -> None:
    split, copies = purse("split", 2), purse("3 copies", 1)
    assert set(methods.leave_one_out(split, 0).top(2)) == set(split.play.case.planted)
    assert max(methods.leave_one_out(copies, 0).effects) < 0.1
    assert split.paid == cases.N_SEGMENTS + 1


def test_single_texts_see_copies_and_not_cooperation() -> None:
    split, copies = purse("split", 2), purse("3 copies", 1)
    assert set(methods.single_text(copies, 0).top(3)) == set(copies.play.case.planted)
    assert max(methods.single_text(split, 0).effects) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("condition", "needed"), [("1 copy", 1), ("3 copies", 1), ("split", 2)])
def test_ours_sees_both_and_keeps_to_its_budget(condition: str, needed: int) -> None:
    given = purse(condition, needed)
    found = methods.ours(given, 0)
    planted = given.play.case.planted
    assert set(found.top(len(planted))) == set(planted)
    assert found.top(1)[0] in planted
    assert given.paid <= methods.BUDGET


def test_a_purse_pays_once_for_a_mask() -> None:
    given = purse("1 copy", 1)
    given(np.ones((3, cases.N_SEGMENTS), dtype=np.bool_))
    assert given.paid == 1


def test_log_odds_are_those_of_the_probability() -> None:
    assert methods.log_odds(np.log(np.asarray([0.5, 0.8]))) == pytest.approx(np.log([1.0, 4.0]))
    assert np.isfinite(methods.log_odds(np.zeros(1))).all()


def test_metrics_have_known_answers() -> None:
    assert metrics.recall((1, 2, 3), (2, 3, 4, 5)) == 0.5
    assert metrics.precision((1, 2, 3, 9, 8), (2, 3)) == 0.4
    assert metrics.effect_share([3.0, 1.0, -7.0, 0.0], [1, 2]) == 0.25
    assert metrics.effect_share([-1.0, 0.0], [0, 1]) == 0.0
    assert metrics.interval([1.0, 1.0, 1.0]) == (1.0, 1.0)


def test_memory_answers_without_a_model_and_says_when_it_cannot(tmp_path: Path) -> None:
    first = Model(None, Memory(tmp_path / "answers.jsonl"))
    with pytest.raises(NeverAsked):
        first.generate([(1, 2)], 4)
    path = tmp_path / "answers.jsonl"
    key = key_of("generate", (1, 2), 4)
    path.write_text(f'["{key}", {{"ids": [7], "text": "x"}}]\n["cut off')
    assert Model(None, Memory(path)).generate([(1, 2)], 4) == [((7,), "x")]


def test_a_case_that_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    """But one that lacks a method is: a run was stopped, or a method is new."""
    file = tmp_path / "cells.jsonl"
    assert command.measured(file, ["a", "b"]) == {}
    whole = [{"case": "split/1", "method": name, "recall": 1.0} for name in ("a", "b", "c")]
    command.keep(file, whole)
    command.keep(file, [{"case": "split/2", "method": "a", "recall": 0.5}])
    assert command.measured(file, ["a", "b"]) == {"split/1": whole[:2]}
    assert command.measured(file, ["a"]).keys() == {"split/1", "split/2"}


@pytest.mark.parametrize(("count", "said"), [(1, "1 cases: too few to tell"), (10, "10 cases")])
def test_the_verdict_names_the_best_baseline_and_how_much_it_is_worth(count: int, said: str) -> None:
    cells = [
        {"case": f"split/{seed}", "condition": "split", "method": method, "recall": figure}
        for method, figure in (("ours", 0.5), ("a", 0.5), ("b", 1.0))
        for seed in range(count)
    ]
    assert report.verdicts(cells, "ours", ["a"]) == [f"split: ours 0.50, best baseline a 0.50: met ({said})"]
    (missed,) = report.verdicts(cells, "ours", ["a", "b"])
    assert missed == f"split: ours 0.50, best baseline b 1.00: missed by 0.50 ({said})"
