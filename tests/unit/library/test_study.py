"""What a study says, shows, keeps and hands over."""

from __future__ import annotations

import re
import sys
import types
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest

import spex_proxy
from spex_proxy.facts.errors import BadEvidence

HOSTILE = ("<script>alert(1)</script>", "a & b", 'said "no"', "\u202egnp.exe", "wörter", "x" * 300)


def value(masks):
    kept = masks.astype(float)
    return 2.0 * kept[:, 0] * kept[:, 1] - kept[:, 2] + 0.25 * kept[:, 3]


@pytest.fixture(scope="module")
def study():
    return spex_proxy.explain(value, HOSTILE, unit="points")


@pytest.fixture(scope="module")
def sampled():
    def noisy(masks):
        return value(masks) + 0.1 * np.sin(1e4 * (masks @ np.sqrt(np.arange(2.0, 12.0))))

    return spex_proxy.explain(noisy, 10, budget=200, method="proxyspex", target_r2=0.8)


def test_the_table_reads_well(study, sampled):
    lines = repr(study).splitlines()
    assert lines[0].startswith("Study of 6 players: reliable, every combination was measured")
    assert "64 masks, exact" in repr(study)
    assert "near the" not in repr(study)
    assert re.search(r"near the full mask, with little removed, it is off by \d", repr(sampled))
    assert repr(sampled).index("near the full mask") < repr(sampled).index("R² 0.9")
    assert re.search(r"95% interval 0\.\d+ to 0\.\d+, noise ceiling [01]\.\d{4}", repr(sampled))
    assert re.search(r"DSR \d\.\d\d, SCR \d\.\d\d, SHR \d\.\d\d", repr(sampled))
    assert re.search(r"\n  −(1\.0|0\.9)\d (±\d\.\d\d)? *█+ +x2\n", repr(sampled))
    assert "What keeping it adds on average, in points; most" in repr(study)
    assert "\u202e" not in repr(study) + repr(study.top()) + repr(study.curves()) + repr(study.extremes(keep=5))
    assert max(len(line) for line in repr(study).splitlines()[1:]) < 100
    assert re.fullmatch(
        r"<x2: -(1\.0|0\.9)\d*( ±[\d.e-]+)?>", repr(next(t for t in sampled.top() if t.players == (2,)))
    )


def test_answers_about_sets_are_told_by_name(study):
    proven = "(no fewer do, proven)"
    assert repr(study.necessary(1.0)) == f"1 of 6 players: removing {HOSTILE[0]}: −0.750, threshold 1 {proven}"
    assert repr(study.sufficient(2.2)) == f"0 of 6 players: keeping no player: 0.000, threshold 2.2 {proven}"
    assert repr(study.necessary(2.5)) == "no set does: whatever is kept, the value stays on its side of 2.5 (proven)"
    assert study.necessary(1.0).is_proven
    assert study.necessary(1.0).gap == 0
    best, worst = repr(study.extremes(keep=2)).splitlines()
    assert best == f"highest  +2.000  keep {HOSTILE[0]}, a & b  (proven)"
    assert worst.startswith("lowest   −1.000  keep ")


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text, self.outside = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        links = [value or "" for name, value in attrs if name in ("src", "href")]
        self.outside += [link for link in links if not link.startswith("#")]

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_needs_nothing_else_and_says_what_it_must(study, sampled, tmp_path):
    page = study.to_html(tmp_path / "study.html", title="Why <this>?").read_text()
    seen = Tags()
    seen.feed(page)
    assert not seen.outside
    assert seen.tags.count("script") == 1
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert "Why <this>?" in "".join(seen.text)
    assert "points" in page
    page = sampled.to_html(tmp_path / "sampled.html").read_text()
    assert page.index("Near the full mask") < page.index("95% interval")
    assert "What acts together" in page


def test_a_page_of_nothing_colours_nothing(tmp_path):
    page = spex_proxy.explain(lambda masks: np.ones(len(masks)), 3).to_html(tmp_path / "page.html").read_text()
    assert "Nothing to explain" in page
    assert "What acts together" not in page


def test_the_picture_is_one_svg_that_tells_the_strongest_first(study, tmp_path):
    drawing = study.plot(3)
    root = ET.fromstring(drawing.svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [text.text or "" for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.index("+1.00") < texts.index("What acts together")
    assert "and 3 weaker" in texts
    assert drawing._repr_svg_() == study._repr_html_() or study.plot()._repr_html_() == study._repr_html_()
    assert drawing.save(tmp_path / "a.svg").read_text() == drawing.svg
    with pytest.raises(ValueError, match="0 players"):
        study.plot(0)


def test_a_saved_study_comes_back_the_same(sampled, tmp_path):
    again = spex_proxy.Study.load(sampled.save(tmp_path / "study.npz"))
    assert repr(again) == repr(sampled)
    assert np.array_equal(again.spectrum.supports, sampled.spectrum.supports)
    assert np.array_equal(again.spectrum.coefficients, sampled.spectrum.coefficients)
    assert np.array_equal(again.evidence.masks, sampled.evidence.masks)
    assert (again.recipe, again.fidelity, again.fit.how) == (sampled.recipe, sampled.fidelity, sampled.fit.how)


@pytest.mark.parametrize("content", [b"", b"not a study", b"PK\x03\x04 broken"])
def test_other_files_are_refused_by_name(content, tmp_path):
    path = tmp_path / "other.npz"
    path.write_bytes(content)
    with pytest.raises(BadEvidence, match=r"other\.npz"):
        spex_proxy.Study.load(path)


def test_a_file_of_another_kind_is_refused(tmp_path):
    np.savez(tmp_path / "game.npz", masks=np.zeros(3))
    with pytest.raises(BadEvidence, match=r"game\.npz"):
        spex_proxy.Study.load(tmp_path / "game.npz")


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda s: s.indices("magic"), "index 'magic' is unknown"),
        (lambda s: s.indices("sii", order=7), r"order 7 is outside 1\.\.6"),
        (lambda s: s.indices("sii", order=0), "order 0"),
        (lambda s: s.predict(np.ones((2, 5))), "don't fit 6 players"),
        (lambda s: s.predict(np.full((1, 6), 0.5)), "True and False"),
        (lambda s: s.extremes(), "how many players to keep"),
        (lambda s: s.extremes(1, remove=1), "how many players to keep"),
        (lambda s: s.extremes(keep=7), "of 6 players"),
        (lambda s: s.to_shapiq("fourier"), "shapiq has no index"),
    ],
)
def test_questions_without_an_answer(study, ask, says):
    with pytest.raises(ValueError, match=says):
        ask(study)


def test_an_index_is_read_by_name_and_by_column(study):
    found = study.indices("moebius", order=3)
    assert found[0, 1] == pytest.approx(2.0)
    assert found["a & b", 0] == pytest.approx(2.0)
    assert found["a & b", "wörter"] == pytest.approx(0.0)
    assert found.values() == pytest.approx([0, 0, -1, 0.25, 0, 0])
    assert found.top(1) == [((HOSTILE[0], HOSTILE[1]), pytest.approx(2.0))]
    assert dict(found)[2,] == pytest.approx(-1.0)
    for wrong in ("nobody", 6, (0, 1, 2, 3)):
        with pytest.raises(KeyError):
            found[wrong]


def test_every_index_that_is_documented_is_there(study):
    names = ["fourier", "moebius", "bv", "bii", "sv", "sii", "k-sii", "stii", "fbii", "fsii", "or"]
    assert all(name in (study.indices.__doc__ or "") for name in names)
    assert [study.indices(name).name for name in names] == names
    terms = dict(zip(study.spectrum.players(), study.spectrum.coefficients, strict=True))
    assert dict(study.indices("fourier")) == {t: pytest.approx(c) for t, c in terms.items() if len(t) <= 2}


def test_one_player_has_indices_of_order_1(monkeypatch):
    single = spex_proxy.explain(lambda masks: 3.0 * masks[:, 0], ["only"])
    assert single.indices()["only"] == pytest.approx(3.0)
    assert single.indices("sv", 2).order == single.indices("sv").order == 1
    with pytest.raises(ValueError, match=r"order 2 is outside 1\.\.1"):
        single.indices("sii", 2)
    stand_in = types.SimpleNamespace(InteractionValues=types.SimpleNamespace)
    monkeypatch.setitem(sys.modules, "shapiq", stand_in)
    assert single.to_shapiq("SV").max_order == single.to_shapiq().max_order == 1


def test_without_shapiq_it_says_what_to_install(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "shapiq", None)
    with pytest.raises(ImportError, match=r"spex-proxy\[shapiq\]"):
        study.to_shapiq()


def test_shapiq_gets_the_same_numbers(study, monkeypatch):
    """Against shapiq itself where it is installed, else against the arguments that its class takes."""
    try:
        import shapiq  # noqa: F401, PLC0415 - an extra
    except ImportError:
        stand_in = types.SimpleNamespace(InteractionValues=types.SimpleNamespace)
        monkeypatch.setitem(sys.modules, "shapiq", stand_in)
    found = study.to_shapiq("SII", order=2)
    ours = study.indices("sii", 2)
    assert found.index == "SII"
    assert (found.n_players, found.max_order, found.min_order) == (6, 2, 0)
    assert not found.estimated
    assert found.baseline_value == pytest.approx(value(np.zeros((1, 6)))[0])
    for players, number in found.interaction_lookup.items():
        assert found.values[number] == pytest.approx(ours[players] if players else found.values[number])


def test_curves_follow_the_order_of_importance(study):
    measured, predicted = study.curves(value), study.curves()
    assert measured.names[:2] == tuple(HOSTILE[:2])
    assert measured.deletion.values == pytest.approx(predicted.deletion.values)
    assert measured.deletion.values[:3] == pytest.approx([1.25, -0.75, -0.75])
    assert measured.insertion.values[-1] == pytest.approx(1.25)
    assert repr(measured).startswith("measured: area under deletion")
    assert repr(predicted).startswith("as predicted")


def test_removal_is_measured_and_predicted_alike(study):
    assert study.removal(1) == pytest.approx(study.removal(1, value)) == pytest.approx(2.0 / 1.25)
    assert study.removal(0) == 0
