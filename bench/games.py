"""The games of the benchmarks: recorded ones, and ones that answer any mask.

A recorded game is a file NAME.npz: `masks` (bits packed along axis 1), `n`, `values`,
`n_test`. Row 0 keeps everything, row 1 nothing, the last `n_test` rows are for testing only.

The generated games have a known spectrum, so that Shapley values and interactions can be
compared with the truth. None has noise: a teacher-forced log-probability has next to none either.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine import walsh
from spex_proxy.facts.evidence import Evidence, Masks, Values
from spex_proxy.facts.spectrum import Spectrum

TEST_MASKS = 2000
"""Fresh uniform masks on which a live game is tested."""


@dataclass(frozen=True, slots=True, eq=False)
class Game:
    """A recorded game."""

    name: str
    masks: NDArray[np.bool_]
    """Shape (rows, n)."""
    values: NDArray[np.float64]
    """Shape (rows,)."""
    n_test: int
    digest: str = ""
    """SHA-256 of the file: a peer's figures are compared only where it saw the same game."""

    def check(self, budget: int) -> None:
        """Raises SystemExit if it has fewer training rows than that."""
        rows = len(self.values) - self.n_test
        if budget > rows:
            raise SystemExit(f"{self.name} has {rows} training rows, not {budget}")

    def training(self, budget: int, seed: int) -> Evidence:
        """Full, empty, and the first of the seed's order of training rows: `budget` in all.

        A mask that is there again is a further measurement of it.
        """
        self.check(budget)
        between = np.random.default_rng(seed).permutation(np.arange(2, len(self.values) - self.n_test))
        rows = np.concatenate([[0, 1], between])[:budget]
        seen: Counter[bytes] = Counter()
        replicates = np.zeros(budget, dtype=np.int64)
        for at, mask in enumerate(self.masks[rows]):
            replicates[at] = seen[mask.tobytes()]
            seen[mask.tobytes()] += 1
        return Evidence(self.masks[rows], self.values[rows], replicates)

    def test(self) -> tuple[Masks, Values]:
        return self.masks[-self.n_test :], self.values[-self.n_test :]


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """A game that can be asked anything."""

    name: str
    n: int
    value: Callable[[Masks], Values]
    """Masks (m, n) bool -> (m,). The same masks have the same values."""
    truth: Spectrum | None = None
    """Known for generated games."""
    has_noise: bool = False
    """Then it is tested against its truth."""

    def test(self) -> tuple[Masks, Values]:
        masks = np.random.default_rng(10_000).random((TEST_MASKS, self.n)) < 0.5
        return masks, walsh.predict(self.truth, masks) if self.has_noise and self.truth else self.value(masks)


def load(path: Path) -> Game:
    """Raises SystemExit, naming the file, for what is no recorded game."""
    try:
        with np.load(path) as stored:
            n, values = int(stored["n"]), np.asarray(stored["values"], dtype=np.float64)
            masks = np.unpackbits(stored["masks"], axis=1)[:, :n].astype(np.bool_)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            game = Game(path.stem, masks, values, int(stored["n_test"]), digest)
    except (KeyError, ValueError) as error:
        raise SystemExit(f"{path} is not a recorded game: {error}") from error
    if len(masks) != len(values) or not 0 < game.n_test < len(values) - 2:
        raise SystemExit(f"{path}: {len(masks)} masks, {len(values)} values, {game.n_test} of them for testing")
    return game


def of_terms(name: str, n: int, terms: dict[tuple[int, ...], float]) -> Live:
    """v(m) = sum_T F(T) chi_T(m)."""
    truth = Spectrum.from_terms(n, list(terms), list(terms.values()))
    return Live(name, n, lambda masks: walsh.predict(truth, masks), truth)


def of_products(dividends: Iterable[tuple[tuple[int, ...], float]]) -> dict[tuple[int, ...], float]:
    """Moebius M(T) -> Fourier: with m = (1 - z) / 2, F(S) = (-1)^|S| sum over T >= S of M(T) / 2^|T|."""
    terms: dict[tuple[int, ...], float] = {(): 0.0}
    for players, dividend in dividends:
        for size in range(len(players) + 1):
            for part in combinations(sorted(players), size):
                terms[part] = terms.get(part, 0.0) + (-1.0) ** size * dividend / 2.0 ** len(players)
    return terms


def normal(stream: np.random.Generator, scale: float) -> float:
    """A coefficient that is not near 0: its size is between scale / 2 and 3 scale / 2."""
    return float(scale * (0.5 + stream.random()) * stream.choice([-1.0, 1.0]))


def hierarchical(n: int, seed: int) -> Live:
    """Fourier terms each of which grew from one that is there: 12 singles, then pairs, triples and fours on them."""
    stream = np.random.default_rng([seed, n, 1])
    terms = {(): 1.0, **{(int(i),): normal(stream, 1.0) for i in stream.choice(n, 12, replace=False)}}
    active = [term[0] for term in terms if term]
    for size, count, scale in ((2, 14, 0.6), (3, 10, 0.4), (4, 4, 0.3)):
        below = [term for term in terms if len(term) == size - 1]
        for _ in range(count):
            base = below[stream.integers(len(below))]
            other = int(stream.choice([i for i in active if i not in base]))
            terms.setdefault(tuple(sorted((*base, other))), normal(stream, scale))
    return of_terms(f"hierarchical_n{n}", n, terms)


def peaks(n: int, seed: int) -> Live:
    """12 Fourier terms of 2 to 4 players with nothing under them: what greedy trees can't see."""
    stream = np.random.default_rng([seed, n, 2])
    terms: dict[tuple[int, ...], float] = {(): 1.0}
    for size in (2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4):
        terms[tuple(sorted(int(i) for i in stream.choice(n, size, replace=False)))] = normal(stream, 1.0)
    return of_terms(f"peaks_n{n}", n, terms)


def redundancy(n: int, seed: int) -> Live:
    """8 groups of 2 to 4 players, any of which is enough: v = sum w OR(group), and 4 singles."""
    stream = np.random.default_rng([seed, n, 3])
    order = iter(int(i) for i in stream.permutation(n))
    dividends: list[tuple[tuple[int, ...], float]] = []
    for size in (2, 2, 2, 3, 3, 3, 4, 4):
        group, weight = tuple(next(order) for _ in range(size)), normal(stream, 2.0)
        parts = [part for s in range(1, size + 1) for part in combinations(group, s)]
        dividends += [(part, -weight * (-1.0) ** len(part)) for part in parts]
    dividends += [((next(order),), normal(stream, 1.0)) for _ in range(4)]
    return of_terms(f"redundancy_n{n}", n, of_products(dividends))


def high_order(n: int, seed: int) -> Live:
    """3 conjunctions of 5 players, all of which must be kept, over 8 singles."""
    stream = np.random.default_rng([seed, n, 4])
    order = [int(i) for i in stream.permutation(n)]
    dividends = [(tuple(order[5 * k : 5 * k + 5]), normal(stream, 8.0)) for k in range(3)]
    dividends += [((i,), normal(stream, 0.5)) for i in order[10:18]]
    return of_terms(f"high_order_n{n}", n, of_products(dividends))


def planted(n: int, seed: int) -> Live:
    """50 Fourier terms of 1 to 4 players, wherever they fall: what SPEX promises to recover exactly."""
    stream = np.random.default_rng([seed, n, 6])
    terms: dict[tuple[int, ...], float] = {(): 1.0}
    while len(terms) <= 50:
        size = int(stream.integers(1, 5))
        terms.setdefault(tuple(sorted(int(i) for i in stream.choice(n, size, replace=False))), normal(stream, 1.0))
    return of_terms(f"planted_n{n}", n, terms)


def planted_in_noise(n: int, seed: int) -> Live:
    """The same at 10 dB: noise with a tenth of the variance, always the same for the same mask."""
    quiet = planted(n, seed)
    assert quiet.truth is not None
    truth = quiet.truth
    sigma = float(np.sqrt((truth.coefficients[1:] ** 2).sum() / 10))
    frequencies = np.random.default_rng([seed, n, 7]).normal(size=(3, n)) * 1e3

    def value(masks: Masks) -> Values:
        # of sines of large arguments: each nearly uncorrelated with every term, their sum nearly normal
        noise = np.sin(masks @ frequencies.T + 1.0).sum(axis=1) * np.sqrt(2 / 3)
        return walsh.predict(truth, masks) + sigma * noise

    return Live(f"planted_10db_n{n}", n, value, truth, has_noise=True)


def digits(_n: int, seed: int) -> Live:
    """40 training images of the digits 3 and 8 as players; the value is a support vector machine's decision
    for one other image after training on the kept ones (the class's sign if one class is left, 0 if none is).

    Raises SystemExit without scikit-learn, which brings the images.
    """
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415 - the one game that needs it
        from sklearn.svm import SVC  # noqa: PLC0415
    except ImportError as error:
        raise SystemExit("the live digits game needs scikit-learn: pip install scikit-learn") from error
    images, labels = load_digits(return_X_y=True)
    stream = np.random.default_rng([seed, 5])
    chosen = np.concatenate([stream.permutation(np.flatnonzero(labels == digit))[:21] for digit in (3, 8)])
    points, sides = images[chosen] / 16.0, np.where(labels[chosen] == 8, 1.0, -1.0)
    asked, players = points[20:21], np.delete(np.arange(42), [20, 41])

    def value(masks: Masks) -> Values:
        out = np.zeros(len(masks))
        for row, mask in enumerate(masks):
            kept = players[mask]
            if len(np.unique(sides[kept])) < 2:
                out[row] = sides[kept[0]] if len(kept) else 0.0
            else:
                out[row] = SVC(C=10.0, gamma=0.05).fit(points[kept], sides[kept]).decision_function(asked)[0]
        return out

    return Live("digits_live_n40", 40, value)


LIVE: dict[str, tuple[Callable[[int, int], Live], int]] = {
    "hierarchical_n30": (hierarchical, 30),
    "peaks_n30": (peaks, 30),
    "redundancy_n30": (redundancy, 30),
    "high_order_n30": (high_order, 30),
    "hierarchical_n100": (hierarchical, 100),
    "peaks_n100": (peaks, 100),
    "digits_live_n40": (digits, 40),
}
"""Name -> how it is made, players. A seed makes another game of the kind, and other masks."""


def can_be_made() -> list[str]:
    """All of them where scikit-learn is installed, else those that need nothing."""
    return [name for name in LIVE if LIVE[name][0] is not digits or find_spec("sklearn")]


PLANTED: dict[str, tuple[Callable[[int, int], Live], int]] = {
    "planted_n100": (planted, 100),
    "planted_10db_n100": (planted_in_noise, 100),
}
"""Those of bench.spex."""


@lru_cache(maxsize=8)
def live(name: str, seed: int) -> Live:
    """Raises SystemExit for a name that nobody knows."""
    known = LIVE | PLANTED
    if name not in known:
        raise SystemExit(f"live game {name!r} is unknown; there is {', '.join(known)}")
    make, n = known[name]
    return make(n, seed)
