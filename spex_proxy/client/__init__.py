"""The JSON API from Python.

    with Client("http://127.0.0.1:8081") as spex:
        for row in spex.exchanges(state=["reliable"]):
            print(row.received_at, row.r2, row.id)
        why = spex.explain("chatcmpl-9f6dfe44d0494a11", wait=True, segmenter="word")
        print(why.verdict, [s.text for s in sorted(why.segments, key=lambda s: -abs(s.effect))[:3]])

What comes back are `spex_proxy.facts.records`, what is raised `spex_proxy.facts.errors`. Two clients, one
policy: `policy` says what to send and what to make of the answers; `sync` and `asynchronous` only carry it out.
"""

from spex_proxy.client.asynchronous import AsyncClient
from spex_proxy.client.sync import Client

__all__ = ["AsyncClient", "Client"]
