"""Studies as files: NumPy's .npz, arrays as arrays, the rest as one JSON text. No pickles."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine.conclude import Fit
from spex_proxy.facts.errors import BadEvidence
from spex_proxy.facts.evidence import Evidence
from spex_proxy.facts.explanation import Fidelity
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.spectrum import Spectrum

VERSION = 1

Packed = dict[str, NDArray[Any]]
Kept = tuple[tuple[str, ...], Recipe, Evidence, Fit, str]


def pack(names: tuple[str, ...], recipe: Recipe, evidence: Evidence, fit: Fit, unit: str) -> Packed:
    """One level as arrays."""
    told = {
        "version": VERSION,
        "names": names,
        "recipe": recipe.to_json(),
        "fidelity": dataclasses.asdict(fit.fidelity),
        "how": fit.how,
        "verdict": [fit.verdict, fit.verdict_reason],
        "unit": unit,
    }
    packed = {
        "told": np.asarray(json.dumps(told)),
        "masks": np.packbits(evidence.masks, axis=1),
        "values": evidence.values,
        "replicates": evidence.replicates,
        "supports": fit.spectrum.supports,
        "coefficients": fit.spectrum.coefficients,
    }
    errors = fit.spectrum.standard_errors
    return packed if errors is None else {**packed, "standard_errors": errors}


def unpack(packed: Packed) -> Kept:
    """Raises KeyError, ValueError or TypeError for what `pack` did not make."""
    told = json.loads(str(packed["told"]))
    if told["version"] != VERSION:
        raise ValueError(f"it has version {told['version']}, this is spex_proxy for version {VERSION}")
    names = tuple(told["names"])
    masks = np.unpackbits(packed["masks"], axis=1)[:, : len(names)].astype(np.bool_)
    spectrum = Spectrum(len(names), packed["supports"], packed["coefficients"], packed.get("standard_errors"))
    fit = Fit(spectrum, Fidelity(**told["fidelity"]), told["how"], *told["verdict"])
    evidence = Evidence(masks, packed["values"], packed["replicates"])
    return names, Recipe.from_json(told["recipe"]), evidence, fit, told["unit"]


def write(path: Path, levels: list[Packed]) -> Path:
    """The coarsest level first."""
    arrays = {f"{number}.{name}": array for number, level in enumerate(levels) for name, array in level.items()}
    with path.open("wb") as file:  # numpy would add an ending of its own
        np.savez_compressed(file, allow_pickle=False, **arrays)
    return path


def read(path: Path) -> Iterator[Kept]:
    """Levels in the order of `write`. Raises BadEvidence, naming the file."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            levels: dict[int, Packed] = {}
            for key in stored.files:
                number, _, name = key.partition(".")
                levels.setdefault(int(number), {})[name] = stored[key]
        yield from [unpack(levels[number]) for number in sorted(levels)]
    except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BadEvidence(f"{path} is no study that was saved: {error}") from error
