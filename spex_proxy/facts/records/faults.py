"""Errors, as the API says them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spex_proxy.facts.records.documented import documented


@documented
@dataclass(frozen=True, slots=True)
class Fault:
    """What went wrong, whose fault it is, and where."""

    message: str
    """For people: what happened and what to do."""
    type: Literal["invalid_request_error", "server_error"]
    """Whose fault it is: the caller's, or ours."""
    code: str
    """For programs: one word for one kind of fault."""
    where: str | None = None
    """The parameter or field, `query.limit`; only with invalid requests."""


@documented
@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """The one shape of all errors."""

    error: Fault
