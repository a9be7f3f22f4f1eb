"""Peers' methods, run by an interpreter that has them (shapiq needs Python 3.12).

    PYTHON -m bench.peers            JSON requests on standard input, one answer a line on standard output

started by `bench.faithfulness --peers PYTHON` and `bench.fit_speed`. A request names a method,
a number of masks, a seed, and a recorded game's file or a live game's name. No algorithm is changed:

- on recorded games a peer's sampler is replaced by one that hands out the given masks;
- ProxySPEX and SPEX are stopped where their Fourier spectrum is complete, before it is converted to an
  index; their time ends there.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import games, scores
from spex_proxy.engine import interactions, walsh
from spex_proxy.facts.evidence import Masks, Values
from spex_proxy.facts.spectrum import Spectrum

Terms = dict[tuple[int, ...], float]
Found = tuple[Spectrum | None, NDArray[np.float64] | None]
"""What predicts, and Shapley values (n,); either may be missing."""
PACKAGES = ("shapiq", "lightgbm", "scikit-learn", "xgboost", "sparse-transform", "spectralexplain", "numpy", "scipy")


class Spectral(Exception):
    """Carries a Fourier spectrum out of a peer's fit."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms


class Given:
    """Stands for shapiq's CoalitionSampler: these masks, each weighed by 1 / its probability under uniform draws."""

    def __init__(self, masks: Masks) -> None:
        self.coalitions_matrix = masks
        self.empty_coalition_index = int(np.flatnonzero(~masks.any(axis=1))[0])
        self.log_sampling_adjustment_weights = np.full(len(masks), masks.shape[1] * np.log(2.0))

    def sample(self, _budget: int) -> None:
        pass


def stop(terms: Terms) -> Any:
    raise Spectral(dict(terms))


def spectral(approximator: Any, budget: int, value: Callable[[Masks], Values], n: int) -> Spectrum:
    """Run until the Fourier spectrum is there."""
    try:
        approximator.approximate(budget, value)
    except Spectral as found:
        return Spectrum.from_terms(n, list(found.terms), [float(value) for value in found.terms.values()])
    raise RuntimeError("the peer finished without a Fourier spectrum")


def proxyspex(n: int, seed: int, search: bool = True, masks: Masks | None = None) -> Any:
    from shapiq.approximator import ProxySPEX  # noqa: PLC0415 - only where it is installed

    approximator = ProxySPEX(n=n, max_order=2, hpo=search, random_state=seed)
    getattr(approximator.proxy_model, "estimator", approximator.proxy_model).set_params(
        verbose=-1
    )  # no warnings printed
    approximator.fourier_to_moebius = stop
    if masks is not None:
        approximator._sampler = Given(masks)
    return approximator


def regression(n: int, order: int, masks: Masks, value: Callable[[Masks], Values]) -> Spectrum:
    """Least squares on uniform masks (Faith-Banzhaf), on the given ones."""
    from shapiq.approximator import RegressionFBII  # noqa: PLC0415

    approximator = RegressionFBII(n, max_order=order)
    approximator._sampler = Given(masks)
    return polynomial(n, approximator.approximate(len(masks), value))


def polynomial(n: int, found: Any) -> Spectrum:
    """Interaction values c as the function sum_T c(T) prod_{i in T} m_i, with the constant c(()) that was fitted."""
    terms = games.of_products((players, float(found.values[at])) for players, at in found.interaction_lookup.items())
    return Spectrum.from_terms(n, list(terms), list(terms.values()))


def proxyshap(game: games.Live, budget: int, seed: int) -> Spectrum:
    """Faith-Banzhaf interactions as a function. The package puts v(nothing) where the constant belongs, with which
    the function would miss by far; it gets the constant that fits the masks it asked for."""
    from shapiq.approximator import ProxySHAP  # noqa: PLC0415

    seen: list[tuple[Masks, Values]] = []

    def value(masks: Masks) -> Values:
        seen.append((np.asarray(masks, dtype=bool), game.value(masks)))
        return seen[-1][1]

    spectrum = polynomial(
        game.n, ProxySHAP(game.n, max_order=2, index="FBII", random_state=seed).approximate(budget, value)
    )
    masks, values = (np.concatenate(part) for part in zip(*seen, strict=True))
    spectrum.coefficients[0] += np.mean(values - walsh.predict(spectrum, masks))
    return spectrum


def shapley(n: int, found: Any) -> NDArray[np.float64]:
    return np.asarray([float(found[(player,)]) for player in range(n)])


def recorded(method: str, masks: Masks, values: Values, seed: int) -> Spectrum:
    """A peer on given masks."""

    def answer(asked: Masks) -> Values:
        assert asked is masks, "the peer changed the masks"
        return values

    n = masks.shape[1]
    if method.startswith("shapiq RegressionFBII"):
        return regression(n, int(method[-1]), masks, answer)
    search = method == "shapiq ProxySPEX"
    return spectral(proxyspex(n, seed, search, masks), len(masks), answer, n)


def own_masks(method: str, game: games.Live, budget: int, seed: int) -> Found:
    """A peer with its own design."""
    import shapiq.approximator as peer  # noqa: PLC0415
    from shapiq.approximator.sparse import base as sparse  # noqa: PLC0415

    n = game.n
    if method == "shapiq ProxySPEX":
        return spectral(proxyspex(n, seed), budget, game.value, n), None
    if method == "shapiq SPEX":
        sparse.fourier_to_moebius = stop  # its own module's name for the last step
        np.random.seed(seed)  # noqa: NPY002 - the package's only source of chance
        return spectral(peer.SPEX(n=n, random_state=seed), budget, game.value, n), None
    if method == "shapiq ProxySHAP":
        values = peer.ProxySHAP(n, max_order=1, index="SV", random_state=seed).approximate(budget, game.value)
        return proxyshap(game, budget, seed), shapley(n, values)  # each asks anew
    kind = {"shapiq KernelSHAP": peer.KernelSHAP, "shapiq OddSHAP": peer.OddSHAP}[method]
    found = kind(n, random_state=seed).approximate(budget, game.value)
    return None, shapley(n, found)


RECORDED = (
    "shapiq ProxySPEX",
    "shapiq ProxySPEX, one fit",
    "shapiq RegressionFBII order 1",
    "shapiq RegressionFBII order 2",
)
LIVE = ("shapiq ProxySPEX", "shapiq SPEX", "shapiq ProxySHAP", "shapiq KernelSHAP", "shapiq OddSHAP")


def on_recorded(request: dict[str, Any]) -> dict[str, Any]:
    game = games.load(Path(request["file"]))
    rows = game.training(request["masks"], request["seed"])
    masks, values = np.ascontiguousarray(rows.masks), rows.values
    begin, cpu = time.perf_counter(), time.process_time()
    spectrum = recorded(request["method"], masks, values, request["seed"])
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    return {"r2": scores.r_squared(spectrum, game.test()), "fit_seconds": seconds, "cpu_seconds": cpu}


def on_live(request: dict[str, Any]) -> dict[str, Any]:
    game = games.live(request["game"], request["seed"])
    asked, waited = 0, 0.0

    def value(masks: Masks) -> Values:
        nonlocal asked, waited
        begin = time.perf_counter()
        values = game.value(np.asarray(masks).astype(bool))
        asked += len(values)
        waited += time.perf_counter() - begin
        return values

    counted = games.Live(game.name, game.n, value, game.truth)
    begin = time.perf_counter()
    spectrum, values = own_masks(request["method"], counted, request["masks"], request["seed"])
    seconds = time.perf_counter() - begin - waited
    if values is None and spectrum is not None:
        values = interactions.shapley_values(spectrum)
    assert values is not None
    return {
        "r2": None if spectrum is None else scores.r_squared(spectrum, game.test()),
        "fit_seconds": seconds,
        "asked": asked,
        "shapley_error": scores.shapley_error(values, game),
        "recovered": None if spectrum is None else scores.recovered(spectrum, game),
    }


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What a peer can't do is an answer too."""
    if request.get("method") is None:
        found = {}
        for package in PACKAGES:
            try:
                found[package] = version(package)
            except ImportError:
                continue
        return {"python": python_version(), "packages": found}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return on_recorded(request) if "file" in request else on_live(request)
    except Exception as error:  # noqa: BLE001 - other people's code: any failure is a result, and is told
        return {"failed": f"{type(error).__name__}: {error}"[:200]}


def main() -> None:
    out = sys.stdout
    sys.stdout = sys.stderr  # what packages print is not an answer
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=out, flush=True)


if __name__ == "__main__":
    main()
