"""What the flaggers' options may be: read the same way when a rules file is checked and when they are used."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spex_proxy.wire.patterns import expression

Reader = Callable[[Any], Any]


def read(options: Mapping[str, Any], known: Mapping[str, Reader], needs: Sequence[str] = ()) -> dict[str, Any]:
    """Option -> its value. Raises ValueError for an option that is not known, one that makes no sense, or if none of
    `needs` is given."""
    for name in options:
        if name not in known:
            raise ValueError(f"there is no option {name!r}; there is {', '.join(known) or 'none'}")
    if needs and not any(name in options for name in needs):
        raise ValueError(f"an option is needed: {' or '.join(needs)}")
    try:
        return {name: known[name](value) for name, value in options.items()}
    except (TypeError, ValueError) as error:
        raise ValueError(f"option: {error}") from None


def number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"must be a number, not {value!r}")
    return float(value)


def share(value: Any) -> float:
    if not 0 < (found := number(value)) <= 1:
        raise ValueError(f"must be a share above 0, at most 1, not {value!r}")
    return found


def names(value: Any) -> tuple[str, ...]:
    """One pattern, or a list of them."""
    found = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else ()
    if not found or not all(isinstance(name, str) and name for name in found):
        raise ValueError(f"must be a name or a list of names, not {value!r}")
    return found


def regex(value: Any) -> Any:
    if not isinstance(value, str) or not value:
        raise ValueError(f"must be a regular expression of RE2, not {value!r}")
    return expression(value)
