"""torch modules as trainers: full-batch Adam for a fixed number of steps, from seeded weights, on the CPU.

    linear          one layer: logistic regression
    embedding_bag   words (hashed columns) -> a vector each, added up -> classes: a small text classifier
    perceptron      one hidden layer
    PATH            package.module:function of the person: (features, classes) -> torch.nn.Module

The first weights depend on the seed alone, so that equal coalitions give equal scores.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spex_proxy.facts.seals import seal
from spex_proxy_training.estimators import PATH
from spex_proxy_training.section import Section
from spex_proxy_training.trainer import Scale, Untrained

Build = Callable[[int, int], Any]
"""(features, classes) -> torch.nn.Module whose output is one logit for each class."""
KNOWN = ("torch", "parameters")
PARAMETERS = ("width", "epochs", "learning_rate", "weight_decay")


@dataclass(frozen=True, slots=True)
class Module:
    """How a module is made, and how it is trained."""

    build: Build
    name: str
    epochs: int
    learning_rate: float
    weight_decay: float
    seed: int
    identity: Mapping[str, Any]
    scale: Scale = "log_probability"

    def scores(
        self, features: NDArray[np.float64], labels: NDArray[np.int64], asked: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """As `Trainer.scores`; cross entropy in float32. Untrained when the loss is no finite number any more."""
        torch = importlib.import_module("torch")
        with alone(torch, self.seed):
            given = torch.from_numpy(features.astype(np.float32))
            right = torch.from_numpy(labels)
            module = self.build(features.shape[1], int(labels.max()) + 1)
            steps = torch.optim.AdamW(module.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
            module.train()
            for epoch in range(self.epochs):
                steps.zero_grad()
                loss = torch.nn.functional.cross_entropy(module(given), right)
                if not bool(torch.isfinite(loss)):
                    raise Untrained(f"{self.name} diverged at step {epoch + 1}: its loss is not finite; train slower")
                loss.backward()
                steps.step()
            module.eval()
            with torch.no_grad():
                logits = module(torch.from_numpy(asked.astype(np.float32))).double()
                found: NDArray[np.float64] = torch.log_softmax(logits, dim=1).numpy()
            return found


@contextmanager
def alone(torch: Any, seed: int) -> Iterator[None]:
    """torch's random numbers from this seed, and one thread: sums in one order. Both are put back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def from_config(section: Section, seed: int) -> Module:
    """Raises ValueError for what it does not know, ModuleNotFoundError without torch."""
    try:
        torch = importlib.import_module("torch")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('torch is missing: pip install "spex-proxy[training]"', name=error.name) from error
    given, parameters = section.text("torch"), section.below("parameters", PARAMETERS)
    width = parameters.whole("width", 16, 1)
    known: dict[str, Build] = {
        "linear": torch.nn.Linear,
        "embedding_bag": lambda features, classes: torch.nn.Sequential(
            torch.nn.Linear(features, width, bias=False), torch.nn.Linear(width, classes)
        ),
        "perceptron": lambda features, classes: torch.nn.Sequential(
            torch.nn.Linear(features, width), torch.nn.ReLU(), torch.nn.Linear(width, classes)
        ),
    }
    build, source = (known[given], "") if given in known else own(given, section.path("torch"), tuple(known))
    epochs, rate = parameters.whole("epochs", 60, 1), parameters.positive("learning_rate", 0.02)
    decay = parameters.positive("weight_decay", 0.01)
    identity = {
        "module": given, "source": source, "width": width, "epochs": epochs, "learning_rate": rate,
        "weight_decay": decay, "seed": seed, "package": "torch", "version": str(torch.__version__),
    }  # fmt: skip
    return Module(build, given, epochs, rate, decay, seed, identity)


def own(path: str, where: str, known: tuple[str, ...]) -> tuple[Build, str]:
    """The person's function, and the seal of its source."""
    if not PATH.fullmatch(path):
        raise ValueError(f"{where} is {path!r}; it must be one of {', '.join(known)}, or package.module:function")
    module, _, name = path.partition(":")
    found = getattr(importlib.import_module(module), name, None)
    if not callable(found):
        raise ValueError(f"{where}: {module} has no function {name!r}")
    try:
        source = inspect.getsource(found)
    except (OSError, TypeError):
        raise ValueError(f"{where}: the source of {path} can't be read, so nothing tells when it changes") from None
    return found, seal(source.encode("utf-8"))
