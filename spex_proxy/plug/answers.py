"""Ask a plugin, and check what it returned before anybody relies on it.

What breaks the contract of kinds.py ends as a PluginError that names the plugin and
says what it did. No message here quotes content: it is stored as a job's reason.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from spex_proxy.facts.errors import PluginError
from spex_proxy.facts.evidence import Values
from spex_proxy.facts.exchange import Exchange, Segmentation, TextRange
from spex_proxy.plug.kinds import Flagger, Masker, Seen, Segmenter, Value
from spex_proxy.plug.load import call

MOST_FLAGS = 8
"""Of one flagger on one exchange or explanation."""
LONGEST_DETAIL = 1_000
Array = TypeVar("Array", NDArray[np.bool_], NDArray[np.float32])


def split(segmenter: Segmenter, name: str, exchange: Exchange) -> tuple[TextRange, ...]:
    """Ranges of an exchange's messages: inside the text, not empty, disjoint, in prompt order."""
    ranges = call("segmenter", name, lambda: tuple(segmenter.split(exchange)))
    last = (0, 0)
    for number, piece in enumerate(ranges):
        where = f"its range {number}"
        if not isinstance(piece, TextRange):
            raise _broken("segmenter", name, f"{where} is a {type(piece).__name__}, not a TextRange")
        if not 0 <= piece.message < len(exchange.messages):
            raise _broken("segmenter", name, f"{where} is in message {piece.message} of {len(exchange.messages)}")
        if not 0 <= piece.start < piece.end <= len(exchange.messages[piece.message].text):
            raise _broken("segmenter", name, f"{where} is empty or reaches out of its message")
        if (piece.message, piece.start) < last:
            raise _broken("segmenter", name, f"{where} begins before the end of the one before it")
        last = (piece.message, piece.end)
    return ranges


def apply(
    masker: Masker, name: str, prompt_ids: tuple[int, ...], players: Segmentation, mask: NDArray[np.bool_]
) -> tuple[int, ...]:
    """The masked prompt: token ids, at least one; of the full mask, the prompt itself."""
    kept = call("masker", name, lambda: tuple(map(operator.index, masker.apply(prompt_ids, players, _locked(mask)))))
    if not kept or min(kept) < 0:
        raise _broken("masker", name, "it returned no token at all" if not kept else "it returned a negative token id")
    if mask.all() and kept != prompt_ids:
        raise _broken("masker", name, "it changed the prompt although every player is kept")
    return kept


def read(value: Value, name: str, logprobs: NDArray[np.float32]) -> Values:
    """One finite number for each row."""
    values = call("value", name, lambda: np.asarray(value.read(_locked(logprobs)), dtype=np.float64))
    if values.shape != (len(logprobs),):
        raise _broken("value", name, f"it made values of shape {values.shape} of {len(logprobs)} rows")
    if not np.isfinite(values).all():
        raise _broken("value", name, "it made a value that is not a finite number")
    return values


def check_options(flagger: Flagger, name: str, options: Mapping[str, Any]) -> None:
    """Raises ValueError for options that the flagger does not understand, PluginError if it fails otherwise."""
    try:
        flagger.check(options)
    except ValueError:
        raise
    except Exception as error:
        raise PluginError(f"the flagger {name!r} failed with a {type(error).__name__}") from error


def inspect(
    flagger: Flagger, name: str, seen: Seen, options: Mapping[str, Any]
) -> tuple[tuple[str, float | None], ...]:
    """(detail, score) of what it found: a text, and a finite number or None. At most MOST_FLAGS are kept."""
    found: list[tuple[Any, Any]] = call(
        "flagger", name, lambda: [(detail, score) for detail, score in flagger.inspect(seen, options)]
    )
    for detail, score in found:
        if not isinstance(detail, str) or not detail:
            raise _broken("flagger", name, "it gave a detail that is no text")
        if score is not None and not (type(score) in (int, float) and math.isfinite(score)):
            raise _broken("flagger", name, "it gave a score that is no finite number")
    return tuple(
        (detail[:LONGEST_DETAIL], None if score is None else float(score)) for detail, score in found[:MOST_FLAGS]
    )


def _locked(array: Array) -> Array:
    """The same numbers, which can't be written to: a plugin must not change the evidence."""
    view = array.view()
    view.flags.writeable = False
    return view


def _broken(kind: str, name: str, what: str) -> PluginError:
    return PluginError(f"the {kind} {name!r} broke its contract: {what}")
