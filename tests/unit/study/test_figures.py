"""Geometry: what a figure says is what the numbers say."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.study.figures import (
    STEPS,
    THICKEST,
    THINNEST,
    arc_height,
    arc_path,
    arc_width,
    make_bars,
    make_gauge,
    make_strip,
    step_of,
)

strengths = st.floats(-1, 1)


def test_steps_of_colour_grow_with_the_effect_and_keep_its_sign() -> None:
    assert [step_of(s) for s in (-1, -0.5, -0.05, 0, 0.05, 0.1, 0.5, 1)] == [-6, -3, 0, 0, 0, 1, 3, 6]
    assert step_of(math.nan) == 0
    assert step_of(7.0) == STEPS


@given(strengths, strengths)
def test_a_stronger_effect_has_no_fainter_colour_and_no_thinner_arc(a: float, b: float) -> None:
    small, large = sorted((a, b), key=abs)
    assert abs(step_of(small)) <= abs(step_of(large))
    assert THINNEST <= arc_width(small) <= arc_width(large) <= THICKEST


def test_an_arc_runs_from_node_to_node_and_bulges_to_its_height() -> None:
    path = arc_path(10, 110, 80, 30)
    x0, y0, _, y1, _, y2, x3, y3 = map(float, re.findall(r"-?[\d.]+", path))
    assert (x0, y0, x3, y3) == (10, 80, 110, 80)
    middle = y0 / 8 + 3 * y1 / 8 + 3 * y2 / 8 + y3 / 8  # the cubic at half of its way
    assert middle == pytest.approx(80 - 30)


@given(st.integers(2, 300))
def test_arcs_further_apart_are_higher(n: int) -> None:
    heights = [arc_height(distance, n) for distance in range(1, n)]
    assert heights == sorted(heights)


def test_a_strip_has_a_node_for_each_player_and_an_arc_for_each_step_of_a_group() -> None:
    strip = make_strip([1, -0.5, 0, 0.2], [(0, (0, 3), -1.0), (2, (3, 0, 1), 0.5)], [("user", 0, 2), ("tool:x", 3, 3)])
    assert [node.number for node in strip.nodes] == [1, 2, 3, 4]
    assert [node.step for node in strip.nodes] == [6, -3, 0, 2]
    assert [(arc.rank, arc.is_positive) for arc in strip.arcs] == [(0, False), (2, True), (2, True)]
    assert strip.arcs[0].width > strip.arcs[1].width
    assert strip.brackets[0].start < strip.nodes[0].x
    assert strip.brackets[0].end > strip.nodes[2].x
    assert strip.brackets[0].end < strip.brackets[1].start


def test_arcs_between_the_same_two_do_not_hide_each_other() -> None:
    strip = make_strip([1, 1, 1], [(0, (0, 2), 1.0), (1, (0, 2), -1.0)], [("user", 0, 2)])
    assert strip.arcs[0].path != strip.arcs[1].path


@given(st.integers(0, 400), st.data())
def test_everything_stays_inside_of_the_strip(n: int, data: st.DataObject) -> None:
    players = st.lists(st.integers(0, max(0, n - 1)), min_size=2, max_size=4, unique=True)
    groups = data.draw(st.lists(st.tuples(st.integers(0, 9), players, strengths), max_size=6)) if n >= 4 else []
    strip = make_strip([0.5] * n, groups, [("user", 0, n - 1)] if n else [])
    for node in strip.nodes:
        assert node.x - node.radius >= 0
        assert node.x + node.radius <= strip.width
        assert strip.baseline + node.radius <= strip.height
    for arc in strip.arcs:
        _, y0, _, y1, *_ = map(float, re.findall(r"-?[\d.]+", arc.path))
        assert y0 - (y0 - y1) * 3 / 4 >= arc.width / 2 - 0.01, "the top of an arc is not cut off"
    assert not n or next(node.is_numbered for node in strip.nodes) == (n <= 71)


def test_bars_share_one_scale_and_start_at_zero() -> None:
    high, low = make_bars([8.0, -2.0])
    assert high.zero == low.zero == 20.0
    assert (high.start, high.length) == (20.0, 80.0)
    assert (low.start, low.length) == (0.0, 20.0)
    assert high.whisker is None


def test_whiskers_reach_as_far_as_the_error() -> None:
    (bar,) = make_bars([10.0], 1.0)
    assert bar.whisker is not None
    assert bar.whisker[1] > bar.start + bar.length > bar.whisker[0]


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=8), st.floats(0, 1e9) | st.none())
def test_bars_stay_within_the_width_whatever_the_numbers(effects: list[float], error: float | None) -> None:
    for bar in make_bars(effects, error):
        assert 0 <= bar.start <= 100
        assert -0.01 <= bar.start + bar.length <= 100.01
        assert all(0 <= end <= 100 for end in bar.whisker or ())


def test_a_gauge_leaves_out_what_is_not_a_number() -> None:
    gauge = make_gauge(1.2, -0.4, math.nan, 0.5, -math.inf)
    assert (gauge.point, gauge.low, gauge.high, gauge.threshold, gauge.ceiling) == (100.0, 0.0, None, 50.0, None)
