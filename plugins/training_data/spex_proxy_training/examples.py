"""Labelled examples: where they come from, and which of them play. Drawing is seeded by PCG64's raw words only.

digits      the 1,797 images of handwritten digits that scikit-learn brings
reviews     short product reviews written here by a seed, with a sentiment
FILE        CSV or JSON lines of the person, with a text column or columns of numbers
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine.draws import raw_words
from spex_proxy_training import reviews, rows
from spex_proxy_training.section import Section
from spex_proxy_training.words import bag_of_words

KNOWN = ("source", "test_file", "label", "text", "features", "group", "classes", "buckets")
BUCKETS = 512
"""Columns that words are hashed into."""
PLAYERS, TEST, GROUPS = range(100, 103)
"""Streams of the seed, apart from those of the engine's designs."""


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """r examples of f features."""

    features: NDArray[np.float64]
    """Shape (r, f), finite."""
    labels: NDArray[np.int64]
    """Shape (r,). Positions in `classes`."""
    classes: tuple[str, ...]
    texts: tuple[str, ...]
    """What each is, for people. Content."""
    groups: tuple[str, ...]
    """What each belongs to: its class, or what stands in the file's group column."""

    def __len__(self) -> int:
        return len(self.labels)

    def some(self, chosen: NDArray[np.int64]) -> Examples:
        return replace(
            self,
            features=self.features[chosen],
            labels=self.labels[chosen],
            texts=tuple(self.texts[i] for i in chosen),
            groups=tuple(self.groups[i] for i in chosen),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Who may be left out, and who is asked about."""

    subject: str
    train: Examples
    test: Examples


def load(section: Section, n_train: int, n_test: int, seed: int) -> Drawn:
    """Load a source, leave out classes that are not wanted, draw. Raises ValueError for data that no game can come of.

    Training and test examples are drawn without replacement; a `test_file` gives all test examples there are
    or a draw of `n_test` of them.
    """
    source = section.text("source")
    if source == "digits":
        every, subject, tests = digits(), "digits", None
    elif source == "reviews":
        every, subject, tests = written_reviews(section, n_train + n_test, seed), "reviews", None
    else:
        every, tests = from_files(section, source)
        subject = rows.title(source)
    wanted = section.names("classes")
    every = of_classes(every, wanted, section)
    order = drawn(len(every), seed, PLAYERS)
    needed = n_train + (0 if tests is not None else n_test)
    if len(every) < needed:
        raise ValueError(f"the data has {len(every)} examples; {n_train} players and {n_test} tests need {needed}")
    train, rest = every.some(order[:n_train]), every.some(order[n_train:needed])
    if tests is not None:
        tests = of_classes(tests, wanted, section)
        if len(tests) < n_test:
            raise ValueError(f"{section.path('test_file')} has {len(tests)} examples; test asks for {n_test}")
        rest = tests.some(drawn(len(tests), seed, TEST)[:n_test])
    if len(np.unique(train.labels)) < 2:
        raise ValueError("all training examples drawn are of one class: there is nothing to learn; draw more of them")
    return Drawn(subject, train, rest)


def drawn(count: int, seed: int, stream: int) -> NDArray[np.int64]:
    """A seeded order of 0..count-1."""
    return np.argsort(raw_words(seed, stream, count), kind="stable").astype(np.int64)


def digits() -> Examples:
    """8 x 8 pixels between 0 and 1. Raises ModuleNotFoundError without scikit-learn."""
    try:
        found = importlib.import_module("sklearn.datasets").load_digits()
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'the digits come with scikit-learn: pip install "spex-proxy[training]"', name=error.name
        ) from error
    labels = np.asarray(found.target, dtype=np.int64)
    classes = tuple(str(digit) for digit in range(10))
    texts = tuple(f"image {at}, a {label}" for at, label in enumerate(labels))
    return Examples(np.asarray(found.data, dtype=np.float64) / 16.0, labels, classes, texts, of_class(labels, classes))


def written_reviews(section: Section, count: int, seed: int) -> Examples:
    """As many reviews as are needed, written by the seed."""
    written = reviews.write(count, seed)
    texts, labels = tuple(text for text, _ in written), [label for _, label in written]
    classes, numbers = numbered(labels)
    buckets = section.whole("buckets", BUCKETS, 2)
    return Examples(bag_of_words(texts, buckets), numbers, classes, texts, of_class(numbers, classes))


def from_files(section: Section, source: str) -> tuple[Examples, Examples | None]:
    """The person's own, and those of `test_file` if there is one, with the same classes and columns."""
    first = rows.read(source, section.path("source"))
    second = rows.read(section.text("test_file"), section.path("test_file")) if section.has("test_file") else []
    both = from_rows(section, [*first, *second])
    if not second:
        return both, None
    cut = len(first)
    return both.some(np.arange(cut)), both.some(np.arange(cut, len(both)))


def from_rows(section: Section, found: list[dict[str, Any]]) -> Examples:
    """Texts become hashed words, columns of numbers stay what they are."""
    label = section.text("label", "label")
    classes, numbers = numbered([rows.text(row, label, at) for at, row in enumerate(found)])
    if section.has("text"):
        if section.has("features"):
            raise ValueError(f"{section.where} has text and features; give one of them")
        texts = tuple(rows.text(row, section.text("text"), at) for at, row in enumerate(found))
        features = bag_of_words(texts, section.whole("buckets", BUCKETS, 2))
    else:
        group = section.text("group", "") if section.has("group") else None
        columns = section.names("features") or tuple(name for name in found[0] if name not in (label, group))
        if not columns:
            raise ValueError(f"{section.where} has no column of numbers; name a text column or features")
        features = np.asarray([[rows.number(row, name, at) for name in columns] for at, row in enumerate(found)])
        texts = tuple(f"example {at + 1}, {classes[numbers[at]]}" for at in range(len(found)))
    if section.has("group"):
        groups = tuple(rows.text(row, section.text("group"), at)[:60] for at, row in enumerate(found))
    else:
        groups = of_class(numbers, classes)
    return Examples(features, numbers, classes, texts, groups)


def numbered(labels: list[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Class names, sorted, and each label's position. Raises ValueError for a single class."""
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2:
        raise ValueError(f"the data has {len(classes)} class; a classifier needs two at least")
    place = {name: at for at, name in enumerate(classes)}
    return classes, np.asarray([place[label] for label in labels], dtype=np.int64)


def of_class(labels: NDArray[np.int64], classes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(classes[label][:60] for label in labels)


def of_classes(every: Examples, wanted: tuple[str, ...], section: Section) -> Examples:
    """Only examples of the wanted classes; all where none is named."""
    if not wanted:
        return every
    unknown = [name for name in wanted if name not in every.classes]
    if unknown or len(wanted) < 2:
        raise ValueError(
            f"{section.path('classes')} must name two classes at least of: {', '.join(every.classes)}"
            + (f"; there is no {unknown[0]!r}" if unknown else "")
        )
    numbers = [every.classes.index(name) for name in wanted]
    found = every.some(np.flatnonzero(np.isin(every.labels, numbers)))
    place = np.zeros(len(every.classes), dtype=np.int64)
    place[numbers] = np.arange(len(wanted))
    return replace(found, labels=place[found.labels], classes=wanted)
