"""Games made up from a spectrum, so that the truth is known. Seeded; used by the benches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine import walsh
from spex_proxy.facts.spectrum import Spectrum


@dataclass(frozen=True, slots=True, eq=False)
class Generated:
    """A sparse spectrum, measured with noise."""

    truth: Spectrum
    noise: float
    """Standard deviation of one measurement."""

    def measure(self, masks: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float64]:
        """Values (m,), each with noise of its own."""
        return walsh.predict(self.truth, masks) + self.noise * rng.normal(size=len(masks))


def hierarchical(rng: np.random.Generator, n: int, noise_share: float) -> Generated:
    """A third of the players act; interactions grow from terms that are there, each weaker than its parts.

    noise_share: the noise's share of the variance of values, below 1.
    """
    active = rng.choice(n, size=max(3, n // 3), replace=False)
    terms: dict[tuple[int, ...], float] = {(int(p),): rng.normal() for p in active}
    for _ in range(int(rng.integers(n // 2, 2 * n))):
        parents = list(terms)
        parent = parents[int(rng.integers(len(parents)))]
        child = tuple(sorted({*parent, int(rng.choice(active))}))
        if child not in terms and len(child) <= 4:
            terms[child] = rng.choice([-1.0, 1.0]) * abs(terms[parent]) * rng.uniform(0.2, 0.9)
    numbers = np.asarray([*terms.values()])
    truth = Spectrum.from_terms(n, [(), *terms], [rng.normal(), *numbers])
    return Generated(truth, float(np.sqrt(noise_share / (1 - noise_share) * (numbers**2).sum())))
