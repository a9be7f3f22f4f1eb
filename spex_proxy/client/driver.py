"""Carries out what `policy` says, and waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar

import httpx

from spex_proxy.client import policy
from spex_proxy.client.calls import Call
from spex_proxy.client.reading import Reply
from spex_proxy.client.transport import broken, failed, reply_of, request_of
from spex_proxy.facts.errors import UpstreamError

T = TypeVar("T")


class Driver:
    """A connection to the API, and how a plan of `policy` is carried out on it."""

    def __init__(
        self, base_url: str = "http://127.0.0.1:8081", *, project: str | None = None, http: httpx.Client | None = None
    ) -> None:
        """`base_url`: the second port. `project`: instead of the server's own. `http`: a client of yours, which
        stays yours to close; without one, proxies of the environment are not used."""
        self._base, self._project = base_url.rstrip("/"), project
        self._http, self._owns = http or httpx.Client(trust_env=False), http is None

    def close(self) -> None:
        if self._owns:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _get(self, call: Call[T]) -> T:
        return self._run(policy.answer(call))

    def _run(self, steps: policy.Steps[T], tell: Callable[[Any], None] | None = None) -> T:
        line, answer = _Line(self._http, self._base), None
        try:
            while True:
                try:
                    step = steps.send(answer)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]
                answer = None if isinstance(step, policy.Tell) else line.perform(step)
                if tell is not None and isinstance(step, policy.Tell):
                    tell(step.item)
        finally:
            line.close()

    def _each(self, steps: policy.Steps[Any]) -> Iterator[Any]:
        line, answer = _Line(self._http, self._base), None
        try:
            while True:
                try:
                    step = steps.send(answer)
                except StopIteration:
                    return
                answer = None if isinstance(step, policy.Tell) else line.perform(step)
                if isinstance(step, policy.Tell):
                    yield step.item
        finally:
            line.close()


class _Line:
    """Performs steps; holds the stream that is open, if one is."""

    def __init__(self, http: httpx.Client, base: str) -> None:
        self._http, self._base = http, base
        self._response: httpx.Response | None = None
        self._chunks: Iterator[bytes] = iter(())

    def perform(self, step: policy.Step) -> Any:
        match step:
            case Call():
                return self._ask(step)
            case policy.Open(call):
                return self._open(call)
            case policy.More():
                return self._more()
            case policy.Pause(seconds):
                time.sleep(seconds)
        return None

    def _ask(self, call: Call[Any]) -> Reply:
        try:
            return reply_of(self._http.send(request_of(self._http, self._base, call)))
        except httpx.HTTPError as error:
            return failed(error, call)

    def _open(self, call: Call[Any]) -> Reply:
        self.close()
        try:
            self._response = self._http.send(request_of(self._http, self._base, call), stream=True)
            if self._response.is_success:
                self._chunks = self._response.iter_bytes()
            else:
                self._response.read()
            return reply_of(self._response)
        except httpx.HTTPError as error:
            return failed(error, call)

    def _more(self) -> bytes | UpstreamError:
        try:
            return next(self._chunks, b"")
        except httpx.HTTPError as error:
            return broken(error)

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
