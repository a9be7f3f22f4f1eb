"""Requests as data: flags, and what users say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spex_proxy.client.calls import Call, params_of, path_of
from spex_proxy.facts.records import RaisedList, RaisedRecord


def flags(any_id: str, project: str | None) -> Call[RaisedList]:
    return Call("GET", path_of("exchanges", any_id, "flags"), RaisedList, params_of(project=project))


def send(any_id: str, what: str, given: Mapping[str, Any], key: str | None, project: str | None) -> Call[RaisedRecord]:
    """`flags` or `feedback`. May be sent again: of one sender, each name counts once."""
    body = {name: value for name, value in given.items() if value is not None}
    headers = {"Idempotency-Key": key} if key else {}
    return Call("POST", path_of("exchanges", any_id, what), RaisedRecord, params_of(project=project), body, headers)
