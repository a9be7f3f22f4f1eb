"""scikit-learn's classifiers as trainers: by a short name, or by the path of any class with its interface."""

from __future__ import annotations

import importlib
import inspect
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spex_proxy.facts.seals import canonical_json, seal
from spex_proxy_training.section import Section
from spex_proxy_training.trainer import Scale, Untrained

SHORT: dict[str, tuple[str, Mapping[str, Any]]] = {
    "logistic": ("sklearn.linear_model:LogisticRegression", {"max_iter": 1000}),
    "svm": ("sklearn.svm:SVC", {}),
    "linear_svm": ("sklearn.svm:LinearSVC", {"max_iter": 10_000}),
    "ridge": ("sklearn.linear_model:RidgeClassifier", {}),
    "neighbours": ("sklearn.neighbors:KNeighborsClassifier", {"n_neighbors": 1}),
    "naive_bayes": ("sklearn.naive_bayes:GaussianNB", {}),
    "forest": ("sklearn.ensemble:RandomForestClassifier", {"n_estimators": 50}),
}
"""Name -> class, and parameters where its own defaults would not do."""

KNOWN = ("estimator", "parameters", "unconverged")
PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
UNCONVERGED = ("fail", "accept")
FEWEST = 2
"""Examples that a trainer is given at least: one of each of two classes."""


@dataclass(frozen=True, slots=True)
class Estimator:
    """One class and its parameters; a fresh instance for each coalition."""

    make: Any
    """The class."""
    parameters: Mapping[str, Any]
    accepts_unconverged: bool
    name: str
    scale: Scale
    identity: Mapping[str, Any]
    neighbours: int | None = None
    """How many vote, of a class that asks neighbours: where fewer examples are kept, all of these do."""

    def scores(
        self, features: NDArray[np.float64], labels: NDArray[np.int64], asked: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """As `Trainer.scores`. One that stops before it has converged is Untrained, unless that is accepted."""
        unfinished = importlib.import_module("sklearn.exceptions").ConvergenceWarning
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("ignore" if self.accepts_unconverged else "error", unfinished)
            try:
                fitted = self.make(**self.parameters_for(len(labels))).fit(features, labels)
            except unfinished as error:
                raise Untrained(
                    f"{self.name} stopped before it had converged: raise its number of iterations, or set "
                    "trainer.unconverged to accept"
                ) from error
            with np.errstate(all="ignore"):
                return two_sided(answers(fitted, asked, self.scale))

    def parameters_for(self, kept: int) -> Mapping[str, Any]:
        if self.neighbours is None or self.neighbours <= kept:
            return self.parameters
        return {**self.parameters, "n_neighbors": kept}


def answers(fitted: Any, asked: NDArray[np.float64], scale: Scale) -> NDArray[np.float64]:
    """What a fitted classifier says of each asked example, in its own shape."""
    if scale == "decision":
        return np.asarray(fitted.decision_function(asked), dtype=np.float64)
    if hasattr(fitted, "predict_log_proba"):
        return np.asarray(fitted.predict_log_proba(asked), dtype=np.float64)
    return np.log(np.asarray(fitted.predict_proba(asked), dtype=np.float64))


def two_sided(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """One decision value (k,) of two classes as two of a score each (k, 2), whose difference it is."""
    return np.stack([-scores / 2.0, scores / 2.0], axis=1) if scores.ndim == 1 else scores


def from_config(section: Section, seed: int) -> Estimator:
    """Raises ValueError for an unknown class or refused parameters, ModuleNotFoundError without scikit-learn."""
    given = section.text("estimator")
    path, defaults = SHORT.get(given, (given, {}))
    make = imported(path, section.path("estimator"))
    parameters = {**defaults, **parameters_of(section)}
    instance = built(make, parameters, section)
    if "random_state" in instance.get_params() and "random_state" not in parameters:
        parameters["random_state"] = seed % 2**32
        instance = built(make, parameters, section)
    neighbours = neighbours_of(instance)
    # since coalitions of fewer examples have values
    clamped = {} if neighbours is None or neighbours <= FEWEST else {"neighbours": "at most those kept"}
    return Estimator(
        make,
        parameters,
        section.choice("unconverged", UNCONVERGED, "fail") == "accept",
        given,
        scale_of(instance, given),
        {"class": path, "parameters": parameters, **clamped, **provenance(make)},
        neighbours,
    )


def neighbours_of(instance: Any) -> int | None:
    """None for what asks no neighbours, or says otherwise how many."""
    found = instance.get_params().get("n_neighbors") if hasattr(instance, "kneighbors") else None
    return found if isinstance(found, int) else None


def imported(path: str, where: str) -> Any:
    """The class of a short name or `package.module:Class`."""
    if not PATH.fullmatch(path):
        raise ValueError(f"{where} is {path!r}; it must be one of {', '.join(SHORT)}, or package.module:Class")
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'{where}: {module} can\'t be imported, for there is no {error.name}: pip install "spex-proxy[training]", '
            "or whatever brings it",
            name=error.name,
        ) from error
    if not inspect.isclass(found):
        raise ValueError(f"{where}: {module} has no class {name!r}")
    return found


def parameters_of(section: Section) -> dict[str, Any]:
    """The person's, JSON-able: they are part of the digest."""
    given = section.entries.get("parameters") or {}
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise ValueError(f"{section.path('parameters')} must be a mapping of names to values")
    try:
        canonical_json(dict(given))
    except (TypeError, ValueError):
        raise ValueError(f"{section.path('parameters')} must hold plain numbers, texts and lists") from None
    return dict(given)


def built(make: Any, parameters: Mapping[str, Any], section: Section) -> Any:
    """An instance that has what the game needs. Raises ValueError if not."""
    try:
        instance = make(**parameters)
    except TypeError as error:
        raise ValueError(f"{section.path('parameters')}: {make.__name__} does not take them: {error}") from None
    if not (hasattr(instance, "fit") and hasattr(instance, "get_params")):
        raise ValueError(f"{section.path('estimator')}: {make.__name__} lacks scikit-learn's fit and get_params")
    return instance


def scale_of(instance: Any, given: str) -> Scale:
    """Raises ValueError for what gives classes neither probabilities nor decision values: a regressor, a bare label."""
    if hasattr(instance, "predict_log_proba") or hasattr(instance, "predict_proba"):
        return "log_probability"
    if hasattr(instance, "decision_function"):
        return "decision"
    raise ValueError(
        f"the estimator {given!r} has neither predict_proba nor decision_function: margins can't be read of it"
    )


def provenance(make: Any) -> dict[str, str]:
    """The package's version and the source of the class itself: either may change what comes out."""
    module = str(make.__module__)
    package = importlib.import_module(module.partition(".")[0])
    try:
        source = inspect.getsource(make)
    except (OSError, TypeError):
        source = ""
    version = str(getattr(package, "__version__", ""))
    return {"package": package.__name__, "version": version, "source": seal(source.encode("utf-8"))}
