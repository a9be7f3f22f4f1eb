"""Training examples as players: values come of real training, and can be worked out by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.plug.kinds import GameMaker, OpenGame
from spex_proxy.plug.load import Plugins
from spex_proxy_training.estimators import SHORT
from spex_proxy_training.readings import LEAST, of_all_classes, read

POINTS = [(0.0, "a"), (1.0, "a"), (2.0, "a"), (6.0, "b"), (7.0, "b"), (9.0, "b")]
TESTS = [(0.4, "a"), (8.1, "b"), (3.9, "b")]
CENTROID = {"estimator": "tests.training_data.strangers:NearestCentroid"}
Open = Callable[..., OpenGame]


def csv(path: Path, points: list[tuple[float, str]]) -> str:
    path.write_text("x,label\n" + "".join(f"{x},{label}\n" for x, label in points))
    return str(path)


def training() -> GameMaker:
    found = Plugins().get("game", "training").instance
    assert isinstance(found, GameMaker)
    return found


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """A game over POINTS, asked about TESTS; its players are in an order of the seed's."""

    def build(trainer: Mapping[str, Any], points: list[tuple[float, str]] | None = None, **more: Any) -> OpenGame:
        files = {
            "source": csv(tmp_path / "train.csv", points or POINTS),
            "test_file": csv(tmp_path / "test.csv", TESTS),
        }
        data = {**files, **more.pop("data", {})}
        count = len(points or POINTS)
        return training().open({"data": data, "players": count, "test": 3, "trainer": trainer, **more}, None)

    return build


def row_of(game: OpenGame, number: int) -> int:
    """Where the file's example (from 0) stands among the players."""
    return next(at for at, player in enumerate(game.rules.players) if player.text.startswith(f"example {number + 1},"))


def item_of(game: OpenGame, number: int) -> int:
    """Where the test file's example (from 0) stands among the items."""
    return next(at for at, item in enumerate(game.rules.items) if f"example {len(POINTS) + number + 1}," in item)


def keeping(game: OpenGame, *examples: int) -> np.ndarray:
    mask = np.zeros((1, len(game.rules.players)), dtype=np.bool_)
    mask[0, [row_of(game, number) for number in examples]] = True
    return mask


@pytest.mark.parametrize("name", ["training", "in_context", "table"])
def test_installed(name: str) -> None:
    assert isinstance(Plugins().get("game", name).instance, GameMaker)


def test_modules_load_without_the_libraries() -> None:
    code = (
        "import sys; sys.modules.update(sklearn=None, torch=None, pyarrow=None)\n"
        "import spex_proxy_training.maker, spex_proxy_training.in_context, spex_proxy_training.table\n"
        "import spex_proxy_training.maker as maker\n"
        "try:\n"
        "    maker.Training().open({'data': {'source': 'digits'}, 'players': 4, 'trainer': {'torch': 1}}, None)\n"
        "except ModuleNotFoundError as error:\n"
        "    print(error)\n"
        "data = {'source': 'reviews'}\n"
        "for trainer in ({'estimator': 'svm'}, {'torch': 'linear'}):\n"
        "    try:\n"
        "        maker.Training().open({'data': data, 'players': 9, 'trainer': trainer}, None)\n"
        "    except ModuleNotFoundError as error:\n"
        "        print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(said) == 3
    assert all('pip install "spex-proxy[training]"' in line for line in said)


def test_nearest_centroid_by_hand(opened: Open) -> None:
    game = opened(CENTROID)
    kept = keeping(game, 0, 2, 4, 5)  # centroids 1 and 8
    found = game.measure(kept).readings[0]
    wanted = {
        0: (0.4 - 8.0) ** 2 - (0.4 - 1.0) ** 2,
        1: (8.1 - 1.0) ** 2 - 0.1**2,
        2: (3.9 - 1.0) ** 2 - (3.9 - 8.0) ** 2,
    }
    for number, margin in wanted.items():
        assert found[item_of(game, number)] == pytest.approx(margin, rel=1e-5)


def test_ridge_by_its_closed_form(opened: Open) -> None:
    """RidgeClassifier: sides -1 and 1, (x - mean) w, w = sum x y / (sum x^2 + alpha), centred."""
    game = opened({"estimator": "ridge", "parameters": {"alpha": 2.5}})
    chosen = [0, 1, 3, 5]
    x = np.asarray([POINTS[i][0] for i in chosen])
    y = np.asarray([1.0 if POINTS[i][1] == "b" else -1.0 for i in chosen])
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (((x - x.mean()) ** 2).sum() + 2.5)
    found = game.measure(keeping(game, *chosen)).readings[0]
    for number, (point, label) in enumerate(TESTS):
        decision = y.mean() + slope * (point - x.mean())
        assert found[item_of(game, number)] == pytest.approx(decision if label == "b" else -decision, rel=1e-5)


def test_one_nearest_neighbour_is_sure(opened: Open) -> None:
    """Of probabilities 1 and 0 the margin is what the floor says; 3.9 is nearer to 2 than to 6."""
    game = opened({"estimator": "neighbours"})
    everything = np.ones((1, 6), dtype=np.bool_)
    found = game.measure(everything).readings[0]
    assert found[item_of(game, 0)] == pytest.approx(-log(LEAST), rel=1e-6)
    assert found[item_of(game, 2)] == pytest.approx(log(LEAST), rel=1e-6)
    without = game.measure(keeping(game, 0, 1, 3, 4, 5)).readings[0]  # 3.9 - 1 = 2.9 > 6 - 3.9 = 2.1
    assert without[item_of(game, 2)] == pytest.approx(-log(LEAST), rel=1e-6)


@pytest.mark.parametrize("estimator", ["neighbours", "sklearn.neighbors:KNeighborsClassifier"])
def test_where_fewer_examples_are_kept_than_neighbours_asked_all_of_them_vote(opened: Open, estimator: str) -> None:
    """Shares of the vote: 2 of 3 for a, of all six 1/2 each (6 neighbours), whatever is asked."""
    game = opened({"estimator": estimator, "parameters": {"n_neighbors": 6}})
    found = game.measure(np.concatenate([keeping(game, 0, 1, 3), keeping(game, 1, 4), np.ones((1, 6), dtype=np.bool_)]))
    assert not found.failures
    for number, (_, label) in enumerate(TESTS):
        margin = log(2.0) if label == "a" else -log(2.0)
        assert found.readings[:, item_of(game, number)] == pytest.approx([margin, 0.0, 0.0], abs=1e-6)


def test_the_neighbours_of_a_class_that_has_them_by_default_are_clamped_too(opened: Open) -> None:
    game = opened({"estimator": "sklearn.neighbors:KNeighborsClassifier"})  # 5
    assert not game.measure(keeping(game, 0, 3)).failures


def test_a_torch_layer_that_took_one_step_by_hand(opened: Open) -> None:
    """Adam's first step goes by the learning rate against each gradient's sign, whatever its size."""
    game = opened(
        {
            "torch": "tests.training_data.strangers:zeros",
            "parameters": {"epochs": 1, "learning_rate": 0.1, "weight_decay": 1e-9},
        }
    )
    found = game.measure(keeping(game, 0, 1, 4)).readings[0]
    # class b (7) pulls its weight up, class a's three x 0 + 1 against 7 down; two of class a: biases go to a
    logits = {number: (0.1 - 0.1 * point, 0.1 * point - 0.1) for number, (point, _) in enumerate(TESTS)}
    for number, (of_a, of_b) in logits.items():
        margin = of_b - of_a if TESTS[number][1] == "b" else of_a - of_b
        assert found[item_of(game, number)] == pytest.approx(margin, rel=1e-4)


def test_no_examples_and_one_class(opened: Open) -> None:
    """Class frequencies with one example of each class added; decision values lie one apart."""
    probable = opened({"estimator": "neighbours"}, reading="log_probability")
    of_a, of_b = item_of(probable, 0), item_of(probable, 1)
    none = probable.measure(keeping(probable)).readings[0]
    assert none.tolist() == pytest.approx([log(1 / 2)] * 3, rel=1e-6)
    only_a = probable.measure(keeping(probable, 0, 1, 2)).readings[0]
    assert (only_a[of_a], only_a[of_b]) == pytest.approx((log(4 / 5), log(1 / 5)), rel=1e-6)
    decided = opened(CENTROID)
    assert decided.measure(keeping(decided)).readings.tolist() == [[0.0, 0.0, 0.0]]
    alone = decided.measure(keeping(decided, 3)).readings[0]
    assert (alone[item_of(decided, 0)], alone[item_of(decided, 1)]) == (-1.0, 1.0)


def test_a_class_that_is_gone_has_its_share() -> None:
    """Three classes, six examples kept, none of the second: it has 1/9, the others share 8/9 as the trainer says."""
    scores = np.log(np.asarray([[0.25, 0.75]]))
    whole = of_all_classes(scores, np.asarray([0, 2]), 6, 3, "log_probability")
    np.testing.assert_allclose(np.exp(whole), [[0.25 * 8 / 9, 1 / 9, 0.75 * 8 / 9]], rtol=1e-12)
    assert read(whole, np.asarray([2]), "margin")[0] == pytest.approx(log(3.0))
    assert of_all_classes(np.asarray([[2.0, -1.0]]), np.asarray([1, 2]), 6, 3, "decision").tolist() == [
        [-2.0, 2.0, -1.0]
    ]


TRAINERS: list[dict[str, Any]] = [
    {"estimator": "logistic"},
    {"estimator": "forest", "parameters": {"n_estimators": 5}},
    {"torch": "embedding_bag", "parameters": {"epochs": 5, "width": 4}},
]


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda trainer: "-".join(map(str, trainer.values()))[:20])
def test_equal_masks_have_equal_readings(trainer: dict[str, Any]) -> None:
    config = {"data": {"source": "reviews", "buckets": 64}, "players": 20, "test": 3, "trainer": trainer}
    masks = np.random.default_rng(0).random((5, 20)) < 0.5
    first, again = training().open(config, None), training().open(config, None)
    together = first.measure(masks).readings
    assert np.isfinite(together).all()
    assert len(np.unique(together)) > 1
    np.testing.assert_array_equal(first.measure(masks[::-1]).readings[::-1], together)
    np.testing.assert_array_equal(np.concatenate([again.measure(masks[[row]]).readings for row in range(5)]), together)
    assert first.rules.digest == again.rules.digest


@pytest.mark.parametrize(
    "trainer", [*TRAINERS, CENTROID], ids=lambda trainer: "-".join(map(str, trainer.values()))[:20]
)
def test_one_label_changes_values_and_digest(opened: Open, trainer: dict[str, Any]) -> None:
    game = opened(trainer)
    other = opened(trainer, points=[*POINTS[:2], (2.0, "b"), *POINTS[3:]])
    everything = np.ones((1, 6), dtype=np.bool_)
    assert not np.allclose(game.measure(everything).readings, other.measure(everything).readings)
    assert game.rules.digest != other.rules.digest
    kept = keeping(game, 0, 1, 3, 4, 5)
    np.testing.assert_array_equal(game.measure(kept).readings, other.measure(keeping(other, 0, 1, 3, 4, 5)).readings)


@given(st.permutations(range(6)), st.integers(1, 62))
def test_who_stands_where_does_not_matter(order: list[int], kept: int) -> None:
    """Renaming players renames the masks: a symmetric trainer gives the same values."""
    from tempfile import TemporaryDirectory  # noqa: PLC0415 - a folder of its own for each example

    chosen = [number for number in range(6) if kept >> number & 1]
    with TemporaryDirectory() as folder:
        config = {"players": 6, "test": 3, "trainer": CENTROID}
        files = [csv(Path(folder) / f"{at}.csv", points) for at, points in enumerate((POINTS, TESTS))]
        moved = csv(Path(folder) / "moved.csv", [POINTS[at] for at in order])
        games = [
            training().open({**config, "data": {"source": source, "test_file": files[1]}}, None)
            for source in (files[0], moved)
        ]
    plain = games[0].measure(keeping(games[0], *chosen)).readings
    renamed = games[1].measure(keeping(games[1], *(order.index(at) for at in chosen))).readings
    np.testing.assert_allclose(plain, renamed, rtol=1e-5, atol=1e-6)


def test_groups_are_their_members_together() -> None:
    config = {
        "data": {"source": "digits", "classes": ["3", "8"]},
        "players": 24,
        "test": 4,
        "trainer": {"estimator": "ridge"},
    }
    single, grouped = training().open(config, None), training().open({**config, "groups": 5}, None)
    assert len(grouped.rules.players) == 5
    assert {player.group for player in grouped.rules.players} == {f"group {number}" for number in range(1, 6)}
    # which example belongs to which group, found from outside: the readings of one group and of each example's removal
    owners = grouped._owner  # type: ignore[attr-defined]
    assert sorted(np.bincount(owners).tolist()) == [4, 5, 5, 5, 5]
    mask = np.asarray([[True, False, True, True, False]])
    np.testing.assert_array_equal(grouped.measure(mask).readings, single.measure(mask[:, owners]).readings)
    by_class = training().open({**config, "groups": "group"}, None)
    assert [player.group for player in by_class.rules.players] == ["3", "8"]
    assert by_class.rules.digest != grouped.rules.digest


def test_a_group_column_of_the_file(tmp_path: Path) -> None:
    lines = [
        ("good film", "yes", "web"),
        ("bad film", "no", "web"),
        ("fine play", "yes", "mail"),
        ("dull play", "no", "shop"),
    ]
    source = tmp_path / "said.jsonl"
    source.write_text("".join(f'{{"t": "{t}", "y": "{y}", "from": "{s}"}}\n' for t, y, s in lines * 2))
    data = {"source": str(source), "text": "t", "label": "y", "group": "from"}
    game = training().open(
        {"data": data, "players": 6, "test": 2, "groups": "group", "trainer": {"estimator": "ridge"}}, None
    )
    assert {player.group for player in game.rules.players} <= {"web", "mail", "shop"}
    assert game.rules.subject == "said.jsonl"


def test_failures_are_recorded_and_quote_nothing(opened: Open) -> None:
    leaky = opened({"estimator": "tests.training_data.strangers:Leaky"})
    found = leaky.measure(np.ones((2, 6), dtype=np.bool_))
    assert np.isnan(found.readings).all()
    assert set(found.failures) == {0, 1}
    assert found.failures[0] == "training tests.training_data.strangers:Leaky raised RuntimeError"
    picky = opened({"estimator": "sklearn.discriminant_analysis:LinearDiscriminantAnalysis"})
    found = picky.measure(np.concatenate([keeping(picky, 0, 3), np.ones((1, 6), dtype=np.bool_)]))
    assert found.failures == {0: "training sklearn.discriminant_analysis:LinearDiscriminantAnalysis raised ValueError"}
    assert np.isnan(found.readings[0]).all()
    assert np.isfinite(found.readings[1]).all()


def test_what_diverges_is_a_failure(opened: Open) -> None:
    wild = opened({"estimator": "tests.training_data.strangers:NotANumber"})
    found = wild.measure(np.concatenate([keeping(wild, 0, 3), np.ones((1, 6), dtype=np.bool_)]))
    assert set(found.failures) == {0}
    assert "not finite" in found.failures[0]
    torn = opened({"torch": "linear", "parameters": {"learning_rate": 3e37, "epochs": 20}})
    assert "diverged at step" in torn.measure(np.ones((1, 6), dtype=np.bool_)).failures[0]


def test_what_has_not_converged_is_a_failure_unless_accepted(opened: Open) -> None:
    short: dict[str, Any] = {"estimator": "logistic", "parameters": {"max_iter": 1}}
    everything = np.ones((1, 6), dtype=np.bool_)
    assert "raise its number of iterations" in opened(short).measure(everything).failures[0]
    accepted = opened({**short, "unconverged": "accept"}).measure(everything)
    assert not accepted.failures
    assert np.isfinite(accepted.readings).all()


def test_masks_of_another_game_are_refused(opened: Open) -> None:
    game = opened(CENTROID)
    with pytest.raises(ValueError, match=r"masks must be bool \(m, 6\)"):
        game.measure(np.ones((2, 5), dtype=np.bool_))


@pytest.mark.parametrize("estimator", SHORT)
def test_every_short_name_trains(estimator: str) -> None:
    data = {"source": "digits", "classes": [0, 1, 7]}
    game = training().open({"data": data, "players": 30, "test": 6, "trainer": {"estimator": estimator}}, None)
    found = game.measure(np.ones((1, 30), dtype=np.bool_))
    assert not found.failures
    assert float((found.readings > 0).mean()) >= 0.5


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"data": None}, "data is missing"),
    ({"data": "digits"}, "data must be a mapping"),
    ({"data": {"source": "nowhere.csv"}}, "no file 'nowhere.csv'"),
    ({"data": {"source": "digits", "colour": 1}}, "data knows no 'colour'"),
    ({"data": {"source": "digits", "classes": [3]}}, "two classes at least"),
    ({"data": {"source": "digits", "classes": [3, 11]}}, "there is no '11'"),
    ({"players": 1}, "players must be a whole number of 2 or more, not 1"),
    ({"players": 5000}, "5000 players and 4 tests need 5004"),
    ({"players": True}, "players must be a whole number"),
    ({"test": 0}, "test must be a whole number of 1 or more"),
    ({"groups": 1}, "groups must be a number between 2 and 12"),
    ({"groups": "shop"}, "groups must be a number between 2 and 12"),
    ({"seed": -1}, "seed must be a whole number of 0 or more"),
    ({"batch": 0}, "batch must be a whole number of 1 or more"),
    ({"colour": 1}, "the configuration knows no 'colour'"),
    ({"trainer": {}}, "must name an estimator, or torch"),
    ({"trainer": {"estimator": "svm", "torch": "linear"}}, "and not both"),
    ({"trainer": {"estimator": "nothing"}}, "must be one of logistic, svm"),
    ({"trainer": {"estimator": "sklearn.svm:Nothing"}}, "sklearn.svm has no class 'Nothing'"),
    ({"trainer": {"estimator": "os:system"}}, "os has no class 'system'"),
    ({"trainer": {"estimator": "pathlib:Path"}}, "lacks scikit-learn's fit"),
    ({"trainer": {"estimator": "tests.training_data.strangers:Bare"}}, "neither predict_proba nor decision_function"),
    ({"trainer": {"estimator": "svm", "parameters": {"sea": 1}}}, "does not take them"),
    ({"trainer": {"estimator": "svm", "parameters": [1]}}, "must be a mapping of names"),
    ({"trainer": {"estimator": "svm", "unconverged": "maybe"}}, "must be one of fail, accept"),
    ({"trainer": {"torch": "transformer"}}, "must be one of linear, embedding_bag, perceptron"),
    ({"trainer": {"torch": "pathlib:nothing"}}, "pathlib has no function 'nothing'"),
    ({"trainer": {"torch": "math:hypot"}}, "the source of math:hypot can't be read"),
    ({"trainer": {"torch": "linear", "parameters": {"epochs": 0}}}, "epochs must be a whole number of 1 or more"),
    ({"trainer": {"torch": "linear", "parameters": {"learning_rate": -1}}}, "must be a number above 0, not -1"),
    ({"reading": "loss"}, "must be one of margin, log_probability"),
    ({"trainer": {"estimator": "ridge"}, "reading": "log_probability"}, "gives decision values only"),
]


@pytest.mark.parametrize(("change", "said"), WRONG, ids=[said[:30] for _, said in WRONG])
def test_a_wrong_configuration_says_where_and_what(change: dict[str, Any], said: str) -> None:
    good = {"data": {"source": "digits"}, "players": 12, "test": 4, "trainer": {"estimator": "svm"}}
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        training().open({**good, **change}, None)


FILES: list[tuple[str, str, str]] = [
    ("a.txt", "x,label\n", "must end in .csv or .jsonl"),
    ("a.csv", "x,label\n", "holds no rows"),
    ("a.csv", "x,label\n1,a\n2\n", "more or fewer columns"),
    ("a.csv", "x,label\n1,a\n2,a\n3,a\n4,a\n", "has 1 class"),
    ("a.csv", "x,kind\n1,a\n2,b\n", "no column 'label'"),
    ("a.csv", "x,label\n1,a\nsecret,b\n3,a\n", "row 2 has no finite number in column 'x'"),
    ("a.csv", "x,label\n1,a\ninf,b\n3,a\n", "row 2 has no finite number"),
    ("a.csv", "x,label\n1,a\n2,\n3,a\n", "row 2 has no text in column 'label'"),
    ("a.jsonl", '{"x": 1, "label": "a"}\n{secret\n', "line 2 is no JSON"),
    ("a.jsonl", "[1, 2]\n", "line 1 is no JSON object"),
]


@pytest.mark.parametrize(("name", "written", "said"), FILES, ids=[said[:30] for *_, said in FILES])
def test_a_wrong_file_says_where(tmp_path: Path, name: str, written: str, said: str) -> None:
    (tmp_path / name).write_text(written)
    config = {"data": {"source": str(tmp_path / name)}, "players": 2, "test": 1, "trainer": {"estimator": "svm"}}
    with pytest.raises(ValueError, match=said) as refused:
        training().open(config, None)
    assert "secret" not in str(refused.value)


def test_players_of_one_class_are_refused(tmp_path: Path) -> None:
    source = csv(tmp_path / "a.csv", [(1.0, "a")] * 40 + [(2.0, "b")])
    config = {"data": {"source": source}, "players": 3, "test": 1, "trainer": {"estimator": "svm"}}
    with pytest.raises(ValueError, match="of one class"):
        training().open(config, None)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"x,label\n\xff\xfe,a\n")
    config = {"data": {"source": str(tmp_path / "a.csv")}, "players": 2, "trainer": {"estimator": "svm"}}
    with pytest.raises(ValueError, match="not UTF-8 text"):
        training().open(config, None)
