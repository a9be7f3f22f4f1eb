"""Carries out what `policy` says, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Self, TypeVar

import httpx

from spex_proxy.client import policy
from spex_proxy.client.calls import Call
from spex_proxy.client.reading import Reply
from spex_proxy.client.transport import broken, failed, reply_of, request_of
from spex_proxy.facts.errors import UpstreamError

T = TypeVar("T")


class AsyncDriver:
    """A connection to the API, and how a plan of `policy` is carried out on it."""

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8081",
        *,
        project: str | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        """`base_url`: the second port. `project`: instead of the server's own. `http`: a client of yours, which
        stays yours to close; without one, proxies of the environment are not used."""
        self._base, self._project = base_url.rstrip("/"), project
        self._http, self._owns = http or httpx.AsyncClient(trust_env=False), http is None

    async def close(self) -> None:
        if self._owns:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _get(self, call: Call[T]) -> T:
        return await self._run(policy.answer(call))

    async def _run(self, steps: policy.Steps[T], tell: Callable[[Any], None] | None = None) -> T:
        line, answer = _Line(self._http, self._base), None
        try:
            while True:
                try:
                    step = steps.send(answer)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]
                answer = None if isinstance(step, policy.Tell) else await line.perform(step)
                if tell is not None and isinstance(step, policy.Tell):
                    tell(step.item)
        finally:
            await line.close()

    async def _each(self, steps: policy.Steps[Any]) -> AsyncIterator[Any]:
        line, answer = _Line(self._http, self._base), None
        try:
            while True:
                try:
                    step = steps.send(answer)
                except StopIteration:
                    return
                answer = None if isinstance(step, policy.Tell) else await line.perform(step)
                if isinstance(step, policy.Tell):
                    yield step.item
        finally:
            await line.close()


class _Line:
    """Performs steps; holds the stream that is open, if one is."""

    def __init__(self, http: httpx.AsyncClient, base: str) -> None:
        self._http, self._base = http, base
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    async def perform(self, step: policy.Step) -> Any:
        match step:
            case Call():
                return await self._ask(step)
            case policy.Open(call):
                return await self._open(call)
            case policy.More():
                return await self._more()
            case policy.Pause(seconds):
                await asyncio.sleep(seconds)
        return None

    async def _ask(self, call: Call[Any]) -> Reply:
        try:
            return reply_of(await self._http.send(request_of(self._http, self._base, call)))
        except httpx.HTTPError as error:
            return failed(error, call)

    async def _open(self, call: Call[Any]) -> Reply:
        await self.close()
        try:
            self._response = await self._http.send(request_of(self._http, self._base, call), stream=True)
            if self._response.is_success:
                self._chunks = self._response.aiter_bytes()
            else:
                await self._response.aread()
            return reply_of(self._response)
        except httpx.HTTPError as error:
            return failed(error, call)

    async def _more(self) -> bytes | UpstreamError:
        try:
            return await anext(self._chunks, b"") if self._chunks else b""
        except httpx.HTTPError as error:
            return broken(error)

    async def close(self) -> None:
        if self._response is not None:
            await self._response.aclose()
