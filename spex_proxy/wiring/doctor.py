"""`doctor`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from spex_proxy import __version__
from spex_proxy.flows.doctor import Doctor, Setup
from spex_proxy.plug.load import Plugins
from spex_proxy.ports.look import Looker
from spex_proxy.ports.model_server import ModelServer
from spex_proxy.settings import Settings
from spex_proxy.wiring.shared import url_here


@asynccontextmanager
async def doctor_parts(settings: Settings, model: str | None) -> AsyncIterator[Doctor]:
    """What looks at everything; needs nothing of it to be there."""
    key = settings.upstream_api_key.get_secret_value() if settings.upstream_api_key else None
    setup = Setup(
        upstream=settings.upstreams[0],
        replicas=settings.upstreams[1:],
        api_key=key,
        model=model,
        scheduling_policy=settings.scheduling_policy,
        priority=settings.background_priority,
        relay_url=url_here(settings.host, settings.port),
        second_url=url_here(settings.admin_host, settings.admin_port),
        store=settings.store,
        chosen={"segmenter": settings.segmenter, "masker": settings.masker, "value": settings.value},
        otlp_endpoint=settings.otlp_endpoint,
        version=__version__,
        scorer=settings.scorer,
    )
    ca = settings.upstream_ca
    async with ModelServer(settings.upstreams[0], key, ca) as server, Looker(ca=ca) as looker:
        yield Doctor(setup, server, looker, Plugins())
